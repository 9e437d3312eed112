"""A configuration as a flat list of keys."""

from collections.abc import Mapping


def flatten(config: Mapping, prefix: str = "") -> dict:
    """Flattens a configuration.

    Args:
      config: key -> value, which may be such a mapping itself.
      prefix: what the keys begin with.

    Returns:
      {"seed": 0, "scratch.width": 128, ...}.
    """
    flat: dict[str, object] = {}
    for key, value in config.items():
        inner = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


def changes(config: Mapping, defaults: Mapping) -> dict:
    """Returns the keys, flattened, whose value is not the default's."""
    defaults, missing = flatten(defaults), object()
    found = flatten(config).items()
    return {key: value for key, value in found if defaults.get(key, missing) != value}
