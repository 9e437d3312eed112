"""Named option sets: what the papers print, and what stays well behaved in long runs."""

# Options of `weighting.get("dwa")` and `losses.imbalance_loss` that differ from their
# defaults, which are the papers' with the repairs that make them run.
PRESETS: dict[str, dict[str, dict]] = {
    "paper": {"weighting": {}, "imbalance": {}},
    "stable": {"weighting": {"floor": 0.1}, "imbalance": {"mode": "prior"}},
}
