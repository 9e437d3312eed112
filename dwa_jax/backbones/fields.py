"""The fields of a `config.json` that may come from a stranger: read, or refused by name.

Every function takes the parsed dictionary and raises a `BackboneError` of one line that
names the field.

No arrays, so no axis letters.
"""

import sys

from dwa_jax.backbones.config import BackboneError
from dwa_jax.messages import shown

# More layers than any model has: they are named one by one, so the number must be bounded.
MAX_LAYERS = 10_000
# Tokens and positions are 32-bit integers, and no other size is larger than theirs.
MAX_SIZE = 2**31 - 1
FLOAT_MAX = sys.float_info.max  # JSON has integers beyond it


def size(source: dict, field: str, most: int = MAX_SIZE) -> int:
    """Returns a positive integer of at most `most`."""
    value = source.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise BackboneError(
            f"{field} must be a positive integer of at most {most}, got {shown(value)}"
        )
    return value


def number(source: dict, field: str, default: float) -> float:
    """Returns a finite number above 0."""
    value = source.get(field, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= FLOAT_MAX:
        raise BackboneError(f"{field} must be a finite number above 0, got {shown(value)}")
    return value


def rate(source: dict, field: str, default: float) -> float:
    """Returns a number in [0, 1)."""
    value = source.get(field, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise BackboneError(f"{field} must be a number in [0, 1), got {shown(value)}")
    return value


def flag(source: dict, field: str, default: bool) -> bool:
    """Returns a boolean; null is false."""
    value = source.get(field, default)
    if value is not None and not isinstance(value, bool):
        raise BackboneError(f"{field} must be true or false, got {shown(value)}")
    return bool(value)


def pad_token(source: dict, default: int | None) -> int | None:
    """Returns `pad_token_id`: a token's id, -1 or None."""
    value = source.get("pad_token_id", default)
    # Some files write -1 for no token.
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int) or not -1 <= value <= MAX_SIZE
    ):
        raise BackboneError(f"pad_token_id must be a token's id or null, got {shown(value)}")
    return value


def heads(source: dict, width: str, count: str) -> tuple[int, int]:
    """Returns (width of the hidden states, number of heads), of which the second divides the first.

    Args:
      source: the parsed file.
      width: the field of the one.
      count: the field of the other.
    """
    hidden_size, num_heads = size(source, width), size(source, count)
    if hidden_size % num_heads:
        raise BackboneError(f"{width} {hidden_size} is not a multiple of {count} {num_heads}")
    return hidden_size, num_heads


def refuse(source: dict, field: str, accepted: tuple) -> None:
    """Raises where a field has a value that would change the numbers."""
    if source.get(field) not in accepted:
        raise BackboneError(
            f"{field} = {shown(source[field])} is not supported for {source['model_type']}; "
            f"one of {', '.join(map(repr, accepted))}"
        )
