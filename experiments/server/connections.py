"""Connections that cannot be held for ever, and a server that ends when all are answered.

uvicorn bounds neither how long a request may take to come, nor its head, nor the answers that a
caller does not take; and it closes connections, at its end, on which a request may be on its way.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from experiments.server.limits import Limits
from experiments.server.problems import SOON, Problem

# Bytes of a request that are not of its body, and requests sent ahead of their answers.
_HEAD, _AHEAD = 32 * 1024, 16
# Seconds that idle connections stay open, and those that they stay at the end, in which their
# next request is still answered and its caller told to go elsewhere.
_IDLE, _LINGER = 75, 1.0


class BoundedConfig(uvicorn.Config):
    """uvicorn's, with limits."""

    def __init__(self, app: Any, limits: Limits):
        super().__init__(
            app,
            http=BoundedProtocol,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            # A traceback may hold a text; faults are logged by ourselves.
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_IDLE,
        )
        self.limits = limits


class BoundedProtocol(HttpToolsProtocol):
    """One connection: a request must come, and its answer be taken, in time."""

    config: BoundedConfig

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._coming: asyncio.TimerHandle | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._head = self._fields = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes the connection, or says that there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.config.limits.connections:
            self._refuse(Problem(503, "too many connections are open", retry_after=SOON))
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        for timer in (self._coming, self._leaving):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes what came."""
        if self.transport.is_closing():
            return
        if self._coming is None:
            self._expect()
        self._head += len(data)
        super().data_received(data)
        if self._head > _HEAD:
            self._refuse(Problem(431, f"the head has more than {_HEAD:,} bytes"))
        elif len(self.pipeline) > _AHEAD:
            self.transport.close()  # nobody asks like that who waits for answers

    def eof_received(self) -> bool:  # type: ignore[override]
        """The caller sends nothing more, and may wait for what it asked."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        return True

    def on_message_begin(self) -> None:
        """A request begins."""
        self._fields = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Takes what is asked for, or a piece of it."""
        self._fields += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a field of the head."""
        self._fields += len(name) + len(value) + 4
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begins to answer."""
        self._head = 0
        # A head that came in one piece with what follows.
        if self._fields > _HEAD:
            self._refuse(Problem(431, f"the head has more than {_HEAD:,} bytes"))
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Takes a piece of the body."""
        self._head -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there."""
        self._head = 0
        if self._coming is not None:
            self._coming.cancel()
            self._coming = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is written, and may not be taken yet."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._must_leave()

    def pause_writing(self) -> None:
        """The caller takes nothing."""
        super().pause_writing()
        self._must_leave()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP."""
        self._refuse(Problem(400, msg))

    def _expect(self):
        self._coming = self.loop.call_later(self.config.limits.seconds, self._too_slow)

    def _too_slow(self):
        self._coming = None
        if not self._idle():
            self._refuse(Problem(408, f"the request took over {self.config.limits.seconds:g} s"))
        else:
            self.transport.close()

    def _idle(self):
        return self._head == 0 and (self.cycle is None or self.cycle.response_complete)

    def _must_leave(self):
        if self._leaving is None:
            self._leaving = self.loop.call_later(self.config.limits.seconds, self._left_standing)

    def _left_standing(self):
        self._leaving = None
        if not self.transport.get_write_buffer_size():
            return  # all of it was taken
        if self.flow.write_paused or self.transport.is_closing():
            self.transport.abort()
        else:
            self._must_leave()

    def _refuse(self, problem):
        if self.transport.is_closing():
            return
        cycle = self.cycle
        # Never in the place of an answer that is on its way.
        if (
            cycle is None
            or cycle.response_complete
            or (cycle.more_body and not cycle.response_started)
        ):
            body = json.dumps(problem.as_json()).encode()
            again = problem.retry_after
            head = [
                STATUS_LINE[problem.status],
                b"content-type: application/json\r\nconnection: close\r\n",
                b"" if again is None else b"retry-after: %d\r\n" % again,
                b"content-length: %d\r\n\r\n" % len(body),
            ]
            self.transport.write(b"".join(head) + body)
        self.transport.close()
        self._must_leave()


class DrainingServer(uvicorn.Server):
    """Stops without losing what it has taken."""

    def __init__(
        self,
        settings: BoundedConfig,
        taken: socket.socket,
        begun: Callable[[], object],
        ending: Callable[[], object],
    ):
        """Prepares to answer.

        Args:
          settings: with the application.
          taken: where it will listen.
          begun: called when it listens.
          ending: called when the end begins, in which the application closes connections.
        """
        super().__init__(settings)
        self._taken, self._begun, self._ending = taken, begun, ending

    def end(self) -> None:
        """Begins the end, or, called again, hastens it; from any thread."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen."""
        await super().startup(sockets)
        self._begun()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes the connections that the kernel holds, lets callers leave, and ends."""
        self._ending()
        self._taken.listen(0)
        loop = asyncio.get_running_loop()
        # asyncio takes what has come; then, without a pause, we what came meanwhile.
        await asyncio.sleep(0.05)
        loop.remove_reader(self._taken.fileno())
        last = []
        with contextlib.suppress(BlockingIOError):
            while True:
                last.append(self._taken.accept()[0])
        for server in self.servers:
            server.close()
        for connection in last:
            connection.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, connection)
        before = loop.time()
        while self.server_state.connections and loop.time() - before < _LINGER:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    def _protocol(self):
        return BoundedProtocol(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
