"""Where a server listens, and how its starter is told."""

import contextlib
import errno
import ipaddress
import os
import socket


def bind(host: str, port: int, *, beside: bool) -> socket.socket:
    """Takes an address, without listening yet.

    A second server of the same user may take it as well, where it says so: the kernel then deals
    out connections among those that listen.

    Args:
      host: an address or a name of this machine.
      port: 0 takes a free one.
      beside: whether another server may be there already.

    Raises:
      ValueError: there is, and that was not said, or no such address is ours.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise ValueError(f"--host={host} is no address of this machine") from None
    family, kind, protocol, _, address = found[0]
    try:
        if not beside and port:
            # Where it could be shared, it would be without a word.
            with socket.socket(family, kind, protocol) as alone:
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind(address)
        taken = socket.socket(family, kind, protocol)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            taken.bind(address)
        except OSError:
            taken.close()
            raise
    except OSError as error:
        raise ValueError(_why(error, host, port, beside)) from None
    taken.setblocking(False)
    return taken


def _why(error, host, port, beside):
    if error.errno == errno.EADDRINUSE:
        advice = "it is not shared" if beside else "--beside serves there too, another --port alone"
        return f"{host}, port {port} is taken: {advice}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} is not open to this user; those from 1024 on are"
    return f"--host={host} is no address of this machine: {error.strerror}"


def is_loopback(taken: socket.socket) -> bool:
    """Says whether this machine alone can reach it."""
    return ipaddress.ip_address(taken.getsockname()[0].partition("%")[0]).is_loopback


def url(taken: socket.socket) -> str:
    """Returns the address that a browser takes."""
    host, port = taken.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def tell_starter(state: str) -> None:
    """Tells systemd, where it started us with Type=notify, what it waits for.

    Args:
      state: "READY=1" or "STOPPING=1"; see sd_notify(3).
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.sendto(state.encode(), "\0" + path[1:] if path[0] == "@" else path)
