"""What is wrong with a request, as its caller reads it."""

from typing import Any

from dwa_jax.messages import bounded, printable

# Seconds after which a refused caller may come again, where nothing better is known.
SOON = 1


class Problem(Exception):
    """A request that is not answered as asked.

    Attributes:
      status: of HTTP.
      reason: one line for a person.
      field: of the body that is at fault; "" where it is none.
      retry_after: seconds; None where trying again would not help.
    """

    def __init__(self, status: int, reason: str, field: str = "", retry_after: int | None = None):
        super().__init__(reason)
        self.status = status
        self.reason = printable(bounded(reason, 300))
        self.field = field
        self.retry_after = retry_after

    def as_json(self) -> dict[str, Any]:
        """Returns {"error": {"status", "reason", "field"}}, the last where there is one."""
        error: dict[str, Any] = {"status": self.status, "reason": self.reason}
        if self.field:
            error["field"] = self.field
        return {"error": error}
