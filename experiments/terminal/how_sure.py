"""Options of programs that predict: how often intervals hold, and what is better not relied on."""

import argparse
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dwa_jax.finetune.predictor import Predictor


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds --abstain, --coverage and --intervals."""
    add = parser.add_argument
    add(
        "--abstain",
        type=float,
        nargs="?",
        const=math.inf,
        default=None,
        metavar="WIDTH",
        help="marks texts unlike those that were trained on, and as abstained these, and those "
        "whose interval is wider than WIDTH, if one is given",
    )
    add(
        "--coverage",
        type=float,
        default=None,
        help="how often an interval is to hold the true score; by default the run's",
    )
    add(
        "--intervals",
        choices=["marginal", "by_category", "by_length"],
        default=None,
        help="of one width, or of one for each group; by default the run's",
    )


def check_options(args: argparse.Namespace) -> None:
    """Raises ValueError for a coverage that cannot be."""
    if args.coverage is not None and not 0.5 <= args.coverage < 1:
        raise ValueError(f"--coverage={args.coverage:g} must be in [0.5, 1)")


def apply_options(args: argparse.Namespace, predictor: "Predictor") -> None:
    """Sets what was asked for.

    Raises:
      ValueError: the run keeps nothing by which it could abstain.
    """
    predictor.coverage = args.coverage or predictor.coverage
    predictor.intervals = args.intervals or predictor.intervals
    if args.abstain is not None:
        predictor.check_abstain(args.abstain)
