"""A line of JSON a request, without its texts unless they were asked for."""

import contextlib
import json
import time
from typing import Any, TextIO


class RequestLog:
    """Writes lines; one that cannot be written is lost, and the request is not."""

    def __init__(self, file: TextIO, with_texts: bool = False):
        self._file = file
        self._with_texts = with_texts

    def write(self, event: str, texts: list[str] | None = None, **facts: Any) -> None:
        """Writes a line.

        Args:
          event: what happened.
          texts: that a caller sent.
          facts: numbers and names of our own.
        """
        shown = {"texts": texts} if texts is not None and self._with_texts else {}
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + "Z"
        with contextlib.suppress(OSError, ValueError):
            # ASCII, so that nothing in it acts on a terminal.
            print(
                json.dumps({"time": now, "event": event} | facts | shown),
                file=self._file,
                flush=True,
            )

    def fault(self, error: BaseException, **facts: Any) -> None:
        """Writes where in the code an error was raised; its words may hold a text."""
        places, trace = [], error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            places.append(f"{code.co_filename}:{trace.tb_lineno} {code.co_name}")
            trace = trace.tb_next
        words: dict[str, Any] = {"words": str(error)} if self._with_texts else {}
        self.write("fault", None, error=type(error).__name__, places=places[-8:], **words, **facts)
