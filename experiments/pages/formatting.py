"""Numbers as a reader wants them: few digits, a true minus sign, an en dash for what is missing."""

import math
import statistics
from collections.abc import Sequence

from experiments.pages.document import DASH

MINUS = "−"


def places(value: float | None) -> int:
    """Returns the decimal places that show four significant digits of a number (at most 8)."""
    if value is None or not math.isfinite(value) or value == 0:
        return 4
    return min(8, max(0, 3 - math.floor(math.log10(abs(value)))))


def fixed(value: float | None, decimals: int) -> str:
    """Writes a number with so many decimals."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:.{decimals}f}"
    # No "-0.000": a sign that the digits do not bear out.
    return text.lstrip("-") if float(text) == 0 else text.replace("-", MINUS)


def signed(value: float | None, decimals: int) -> str:
    """Writes a difference, with its sign."""
    text = fixed(value, decimals)
    positive = value is not None and value > 0 and text != DASH and float(text) != 0
    return f"+{text}" if positive else text


def mean(values: Sequence[float | None]) -> float | None:
    """Returns the mean of what is there, None of nothing."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.fmean(known) if known else None


def spread(values: Sequence[float | None], decimals: int) -> str:
    """Writes mean ± standard deviation (n - 1) over seeds; of one seed the value alone."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    text = fixed(mean(known), decimals)
    return f"{text} ± {statistics.stdev(known):.{decimals}f}" if len(known) > 1 else text


def interval(low: float | None, high: float | None, decimals: int) -> str:
    """Writes an interval, nothing where there is none."""
    if low is None or high is None:
        return ""
    return f"[{signed(low, decimals)}, {signed(high, decimals)}]"


def p_value(p: float | None) -> str:
    """Writes a p value to three decimals."""
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float | None) -> str:
    """Writes seconds to three digits: 4.56, 45.6, 456, 4560."""
    if seconds is None:
        return DASH
    return fixed(seconds, min(2, max(0, 2 - math.floor(math.log10(max(seconds, 0.01))))))


def readable_size(count: float | None) -> str:
    """Writes bytes as MiB or GiB."""
    if count is None:
        return DASH
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
