"""Clients of a server that cost next to nothing: one thread, plain sockets, requests made before.

Each has a connection of its own, sends one request, waits for its answer, and sends the next of
those that are left. It is to measure a server on a machine that both of them share.
"""

import contextlib
import json
import selectors
import socket
import time
from collections.abc import Sequence
from typing import NamedTuple

_PATIENCE = 60  # seconds
_END, _LENGTH = b"\r\n\r\n", b"content-length: "


class Answered(NamedTuple):
    """What N requests came to.

    Attributes:
      seconds: from the first request to the last answer.
      waited: N numbers, seconds that each request waited for its answer, in their order.
      bodies: N answers, in their order.
    """

    seconds: float
    waited: list[float]
    bodies: list[bytes]


def request_of(text: str) -> bytes:
    """Returns the request for one text's prediction."""
    body = json.dumps({"texts": [text]}).encode()
    head = "POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class _Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number, self.came, self.began = -1, b"", 0.0

    def send(self, number, request):
        self.number, self.came, self.began = number, b"", time.perf_counter()
        self.socket.sendall(request)

    def answer(self):
        # The body, once all of it is there.
        part = self.socket.recv(65536)
        if not part:
            raise ValueError(f"the server closed on request {self.number}")
        self.came += part
        head, end, body = self.came.partition(_END)
        if not end:
            return None
        lower = head.lower()
        size = int(lower[lower.index(_LENGTH) + len(_LENGTH) :].split(b"\r", 1)[0])
        if len(body) < size:
            return None
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ValueError(f"request {self.number} was answered {self.came[:300]!r}")
        return body


def ask_all(port: int, requests: Sequence[bytes], count: int) -> Answered:
    """Sends all requests, and waits for their answers.

    Args:
      port: of this machine.
      requests: N of them, from `request_of`.
      count: of clients at a time.

    Raises:
      ValueError: one was not answered with 200.
      OSError: nobody answers.
    """
    waited, bodies = [0.0] * len(requests), [b""] * len(requests)
    left = iter(range(len(requests)))
    with contextlib.ExitStack() as held:
        selector = held.enter_context(selectors.DefaultSelector())
        clients = [_Client(port) for _ in range(min(count, len(requests)))]
        for client in clients:
            held.callback(client.socket.close)
            selector.register(client.socket, selectors.EVENT_READ, client)
        began = time.perf_counter()
        for client, number in zip(clients, left, strict=False):
            client.send(number, requests[number])
        missing = len(requests)
        while missing:
            ready = selector.select(_PATIENCE)
            if not ready:
                raise ValueError(f"{missing} requests had no answer within {_PATIENCE} s")
            for key, _ in ready:
                client = key.data
                body = client.answer()
                if body is None:
                    continue
                waited[client.number] = time.perf_counter() - client.began
                bodies[client.number] = body
                missing -= 1
                following = next(left, None)
                if following is None:
                    selector.unregister(client.socket)
                else:
                    client.send(following, requests[following])
        return Answered(time.perf_counter() - began, waited, bodies)
