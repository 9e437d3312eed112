"""Corrections of p values for the number of tests."""


def holm(p_values: list[float | None]) -> list[float | None]:
    """Adjusts p values for the number of comparisons, by Holm's step-down method.

    Holm (1979), "A simple sequentially rejective multiple test procedure": the m values in
    ascending order are multiplied by m, m - 1, ..., 1, made to ascend and cut at 1.

    Args:
      p_values: m values in [0, 1]; None is passed over and does not count.

    Returns:
      The adjusted values, in the order given.

    Raises:
      ValueError: if a value is outside [0, 1].
    """
    known = {i: p for i, p in enumerate(p_values) if p is not None}
    for i, p in known.items():
        if not 0 <= p <= 1:
            raise ValueError(f"p_values[{i}] is {p}, expected a number in [0, 1]")
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(known, key=known.__getitem__)):
        largest = max(largest, min(1.0, (len(known) - rank) * known[i]))
        adjusted[i] = largest
    return adjusted
