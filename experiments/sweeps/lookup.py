"""Finding one's way in a sweep's results: runs and comparisons of a method, and what they settled.

`results` is what `collect.collect` returns and results.json holds.
"""

import re

from experiments.pages import formatting
from experiments.pages.document import DASH, Cell
from experiments.sweeps.comparison import LEVEL, PRIMARY

LOWER_IS_BETTER = ("mse", "balanced_mse")
SETTLED = f"p, corrected for every test of the report, is below {LEVEL}"


def cells(results: dict) -> list[tuple[str, str]]:
    """Returns every (dataset, backbone)."""
    sweep = results["sweep"]
    return [(d, b) for d in sweep["datasets"] for b in sweep["backbones"]]


def where(results: dict, dataset: str, backbone: str) -> str:
    """Names a cell; the backbone is left out where there is only one."""
    return dataset if len(results["sweep"]["backbones"]) == 1 else f"{dataset}, {backbone}"


def finished(results: dict, dataset: str, backbone: str, method: str) -> list[dict]:
    """Returns the method's finished runs, one a seed."""
    wanted = (dataset, backbone, method, "finished")
    keys = ("dataset", "backbone", "method", "status")
    return [run for run in results["runs"] if tuple(run[key] for key in keys) == wanted]


def values(runs: list[dict], source: str, metric: str) -> list:
    """Returns a metric of each run, None where it has none; `source` is "test" or "common"."""
    return [(run.get(source) or {}).get(metric) for run in runs]


def comparison(results: dict, dataset: str, backbone: str, method: str, metric: str) -> dict | None:
    """Returns the method's comparison with the baseline, None where there is none."""
    wanted = (dataset, backbone, method, metric)
    for found in results["comparisons"]:
        if tuple(found[key] for key in ("dataset", "backbone", "method", "metric")) == wanted:
            return found
    return None


def decimals(results: dict, dataset: str, backbone: str, metric: str) -> int:
    """Returns a column's decimals: four digits of the baseline, or of the first that has any."""
    if metric not in LOWER_IS_BETTER:
        return 3
    source = "test" if metric == "mse" else "common"
    for method in (results["sweep"]["baseline"], *results["sweep"]["methods"]):
        runs = finished(results, dataset, backbone, method)
        value = formatting.mean(values(runs, source, metric))
        if value is not None:
            return formatting.places(value)
    return 4


def difference(found: dict | None, places: int) -> Cell:
    """Writes a comparison's difference, with its interval as the detail, marked if settled."""
    if not found:
        return Cell(DASH)
    text = formatting.signed(found["difference"], places)
    return Cell(text, mark(found), formatting.interval(found["low"], found["high"], places))


def mark(found: dict | None) -> str:
    """Returns "better" or "worse" where the report's one tested metric settles it, else ""."""
    if not found or found["metric"] != PRIMARY or found["p_holm"] is None:
        return ""
    if found["p_holm"] >= LEVEL:
        return ""
    return "better" if found["difference"] < 0 else "worse"


def tests(results: dict) -> int:
    """Counts the tests that p values of the tested metric are corrected for."""
    return sum(
        found["metric"] == PRIMARY and found["p"] is not None and found["same_as"] is None
        for found in results["comparisons"]
    )


def same_labels(results: dict, dataset: str, backbone: str, method: str) -> bool:
    """Says whether the method's class labels are the baseline's."""
    # The comparison of accuracies is there only if the labels were alike on every seed.
    if comparison(results, dataset, backbone, method, "accuracy"):
        return True
    base = finished(results, dataset, backbone, results["sweep"]["baseline"])
    theirs = {run["seed"]: run.get("thresholds") for run in base}
    runs = finished(results, dataset, backbone, method)
    return all(run.get("thresholds") == theirs.get(run["seed"]) for run in runs)


def tally(results: dict) -> str:
    """Counts the runs by what became of them."""
    states = [run["status"] for run in results["runs"]]
    text = f"{states.count('finished')} of {len(states)} runs finished"
    others = [f"{states.count(s)} {s}" for s in ("failed", "missing") if s in states]
    return ", ".join([text, *others]) + "."


def seed_spread(values: list, places: int, suffix: str = "") -> Cell:
    """Writes mean (and suffix), with the standard deviation over seeds as the detail."""
    text, _, deviation = formatting.spread(values, places).partition(" ± ")
    text += suffix if text != DASH else ""
    return Cell(text, detail=f"± {deviation}" if deviation else "")


def anchor(text: str) -> str:
    """Makes a name fit for a file."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()
