"""Clients of a server: each has one connection, and asks for one text after another."""

import asyncio
import json
import time


class Lost(Exception):
    """A request was sent whole, and its connection closed without an answer."""


async def ask(reader, writer, path, body, kind="application/json"):
    """Sends a request and returns (status, headers, answer)."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    try:
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        answer = await reader.readexactly(int(headers["content-length"]))
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Lost(str(error)) from None
    return int(head[0].split()[1]), headers, answer


async def client(port, bodies, done):
    """Asks for each body, and tells `done(number, status, answer, seconds)`.

    A connection that the server closes, as it says, is opened again, as is one that never was.
    """
    connection = None
    for number, body in bodies:
        while connection is None:
            try:
                connection = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
        began = time.perf_counter()
        try:
            status, headers, answer = await ask(*connection, "/predict", body)
        except Lost as lost:
            done(number, 0, str(lost).encode(), time.perf_counter() - began)
            connection = None
            continue
        done(number, status, answer, time.perf_counter() - began)
        if headers.get("connection") == "close":
            connection[1].close()
            connection = None
    if connection is not None:
        connection[1].close()


async def clients(port, bodies, done, count=32):
    """Lets so many clients ask for all bodies between them."""
    numbered = iter(enumerate(bodies))
    await asyncio.gather(*(client(port, numbered, done) for _ in range(count)))


def body_of(*texts):
    """The body that asks for some texts."""
    return json.dumps({"texts": texts}).encode()
