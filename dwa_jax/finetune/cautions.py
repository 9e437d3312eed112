"""What would mislead who reads a run: a class never trained, or one predicted for all rows."""

from collections.abc import Mapping, Sequence

import numpy as np

# Share of the true scores' range, below which predicted ones hardly differ.
_NARROW = 0.2
# Of scores in [-1, 1]: what an update of a head may move one by untold, and what is well.
_FAR, _WELL = 0.3, 0.1


def untrained_classes(
    categories: Mapping[str, np.ndarray], num_classes: int, names: Sequence[str] = ()
) -> list[str]:
    """Says which classes no training row has.

    Args:
      categories: split -> (N,) integers, -1 where missing; "train" among them.
      num_classes: K.
      names: of the classes; () where they have none.

    Returns:
      A sentence for each.
    """
    found = []
    for category in sorted(set(range(num_classes)) - set(categories["train"].tolist())):
        others = {split: int((of == category).sum()) for split, of in categories.items()}
        there = ", ".join(f"{count} rows of {split}" for split, count in others.items() if count)
        found.append(
            f"category {_called(category, names)} has no training row, and is not learned"
            + (f"; {there} have it" if there else "")
        )
    return found


def fast_heads(scale: np.ndarray, rate: float) -> list[str]:
    """Says where an update of a head that is one matrix moves scores too far.

    Adam's first updates move each weight by the rate, and so a score by the rate times the sum of
    the vector's numbers without their signs. Behind a norm these are its scales times numbers of
    mean square 1, of which .8 is the mean size.

    Args:
      scale: (D,) of the norm that the vectors come from.
      rate: of the heads.

    Returns:
      A sentence, or none.
    """
    moved = 0.8 * float(np.abs(np.asarray(scale, np.float32)).sum())
    if rate * moved <= _FAR:
        return []
    return [
        f"head_learning_rate={rate:g}: an update can move a score by {rate * moved:.2g}, "
        f"so long are this model's vectors; {_WELL / moved:.1g} would move it by {_WELL:g}"
    ]


def of_predictions(
    split: str,
    scores: np.ndarray,
    categories: np.ndarray,
    predicted_scores: np.ndarray,
    predicted_categories: np.ndarray,
    names: Sequence[str] = (),
) -> list[str]:
    """Says where predictions hardly differ although the labels do.

    Args:
      split: what the rows are.
      scores: (N,) nan where missing.
      categories: (N,) integers, -1 where missing.
      predicted_scores: (N,) nan where none are predicted.
      predicted_categories: (N,) integers.
      names: of the classes; () where they have none.

    Returns:
      A sentence for each.
    """
    found = []
    known = categories >= 0
    if len(set(categories[known].tolist())) > 1 and len(set(predicted_categories.tolist())) == 1:
        category = int(predicted_categories[0])
        share = np.mean(categories[known] == category)
        found.append(
            f"{split}: category {_called(category, names)} is predicted for all of the "
            f"{len(categories)} rows; the accuracy is its share of them, {share:.0%}"
        )
    usable = ~np.isnan(scores) & ~np.isnan(predicted_scores)
    if usable.any():
        true, predicted = scores[usable], predicted_scores[usable]
        share = np.ptp(predicted) / max(np.ptp(true), 1e-12)
        if np.ptp(true) > 0 and share < _NARROW:
            found.append(
                f"{split}: predicted scores lie between {predicted.min():.3g} and "
                f"{predicted.max():.3g}, the true ones between {true.min():.3g} and "
                f"{true.max():.3g}: {share:.0%} of their range"
            )
    return found


def _called(category, names):
    return f"{category} {names[category]}" if names else str(category)
