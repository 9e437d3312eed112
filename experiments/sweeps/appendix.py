"""What the report says of a whole sweep, after its datasets: blocks of a document."""

import json
import statistics
from pathlib import Path

from experiments.pages.document import DASH, Bullets, Cell, Code, Figure, Heading, Table
from experiments.pages.formatting import fixed, mean, places
from experiments.sweeps import comparison, lookup, pictures
from experiments.sweeps.comparison import COMMON_THRESHOLDS, PRIMARY


def thresholds(results: dict, place: Path) -> list:
    """Draws each dataset's scores and the thresholds of its stratifiers."""
    blocks = []
    for dataset, found in results["distributions"].items():
        path = place / f"{lookup.anchor(dataset)}-thresholds.png"
        pictures.draw_thresholds(path, found["edges"], found["counts"], found["thresholds"])
        caption = f"Scores of {dataset}, and the classes that each stratifier cuts."
        alt = f"Histogram of scores and thresholds, {dataset}"
        blocks.append(Figure(path.stem, "", alt, caption))
    return [Heading(2, "Scores and thresholds"), *blocks] if blocks else []


def also_tested(results: dict) -> list:
    """Tabulates the files that models were tested on besides their own split."""
    files = sorted({name for run in results["runs"] for name in run.get("also_tested") or {}})
    if not files:
        return []
    blocks: list = [Heading(2, "Tested on other files")]
    for metric, title in (("mse", "MSE"), ("r2", "R²"), ("accuracy", "accuracy, own labels")):
        rows = []
        for dataset, backbone in lookup.cells(results):
            for method in results["sweep"]["methods"]:
                runs = lookup.finished(results, dataset, backbone, method)
                if not any(run.get("also_tested") for run in runs):
                    continue
                columns = [lookup.values(runs, "test", metric)]
                for name in files:
                    found = [(run.get("also_tested") or {}).get(name) or {} for run in runs]
                    columns.append([one.get(metric) for one in found])
                cells = []
                for values in columns:
                    value = mean(values)
                    cells.append(
                        lookup.seed_spread(values, places(value) if metric == "mse" else 3)
                    )
                rows.append([Cell(lookup.where(results, dataset, backbone)), Cell(method), *cells])
        head = ["trained on", "method", "own test split", *files]
        caption = "Mean ± standard deviation over seeds; no comparison was tested here."
        blocks += [Heading(3, title), Table(head, rows, caption, text_columns=2)]
    return blocks


def unfinished(results: dict) -> list:
    """Lists the runs that failed or are missing, with their errors."""
    rows = [
        [Cell(run["id"]), Cell(run["status"]), Cell(run.get("error") or DASH)]
        for run in results["runs"]
        if run["status"] != "finished"
    ]
    if not rows:
        return []
    caption = "They count in no mean and in no comparison."
    table = Table(["run", "status", "error"], rows, caption, text_columns=3)
    return [Heading(2, "Failed and missing runs"), table]


def reading(results: dict) -> list:
    """Says in plain words what the numbers mean."""
    items = [
        "Every difference is the method minus the baseline on the same texts and the same seeds, "
        "averaged over seeds: for errors a negative one is better, for accuracy a positive one.",
        "The interval is Student's over the seeds' differences, widened by what their test texts "
        "have in common. Each holds the truth in 93 to 97 of 100 simulated sweeps, whatever share "
        "of the variation is the seeds' (tests/experiments/test_sweep_comparison.py). It says how "
        "far the difference might move with other seeds and other texts of the same kind; what "
        "the training rows of all seeds have in common it cannot know, and of other datasets, "
        "backbones or settings it says nothing.",
        "MSE is the one metric that is tested. Its p values are corrected by Holm's method over "
        "the whole report, so that in at most 5 of 100 reports on methods that are all as good "
        "anything is bold. The other metrics' intervals stand for themselves, uncorrected; their "
        "p values are corrected each within its own metric.",
    ]
    if (count := lookup.tests(results)) and (words := power(results, count)):
        items.append(words)
    if same := _same(results):
        items.append(same)
    items += [
        "Class labels differ between stratifiers, so accuracy and macro-F1 on own labels grade "
        "each method by its own questions. The common labels cut the true and the predicted "
        f"scores at {', '.join(f'{x:g}' for x in COMMON_THRESHOLDS).replace('-', '−')} for every "
        "method; balanced MSE is the mean of the MSE of those classes.",
        "Precision and F1 in the papers' columns are means over classes weighted by their rows, "
        "and like accuracy there on each method's own labels; best epochs are those of validation.",
        "Seconds and memory were taken while runs shared a machine, a method's seeds a process: "
        "the first compiles, the later ones find memory in use. They show the order of "
        "magnitude, not a benchmark.",
    ]
    return [Heading(2, "How to read this"), Bullets(items)]


def power(results: dict, count: int) -> str:
    """Says which difference would have been found, "" where nothing was tested.

    Args:
      results: of the sweep.
      count: how many tests p values are corrected for.
    """
    sizes = []
    for dataset, backbone in lookup.cells(results):
        base = lookup.finished(results, dataset, backbone, results["sweep"]["baseline"])
        level = mean(lookup.values(base, "test", PRIMARY))
        spreads, seeds = [], 0
        for method in results["sweep"]["methods"]:
            found = lookup.comparison(results, dataset, backbone, method, PRIMARY)
            if found and found["p"] is not None:
                spreads.append(statistics.stdev(found["by_seed"]))
                seeds = max(seeds, len(found["seeds"]))
        if spreads and level:
            least = comparison.detectable(seeds, count) * statistics.median(spreads)
            where = lookup.where(results, dataset, backbone)
            sizes.append(f"{fixed(least, places(least))} ({100 * least / level:.0f} %) on {where}")
    if not sizes:
        return ""
    return (
        f"Power: with {count} tests a difference in MSE of {', '.join(sizes)} would be found with "
        "a probability of 80 % (of a method whose differences spread over seeds as the median "
        "method's do, what shared texts add left aside). What is not bold is undecided, not a zero."
    )


def _same(results):
    pairs = {(f["method"], f["same_as"]) for f in results["comparisons"] if f["same_as"]}
    words = [f"{method} predicted the very same as {other}" for method, other in sorted(pairs)]
    return f"{'; '.join(words)}: one method, counted once." if words else ""


def settings(results: dict, timing: dict) -> list:
    """Gives the command, the settings shared by every run, and what they ran on."""
    sweep = results["sweep"]
    rows = [[Cell(key), Cell(_text(value))] for key, value in sweep["settings"].items()]
    rows += [[Cell(name), Cell(version)] for name, version in results["versions"].items()]
    rows.append([Cell("seeds"), Cell(", ".join(map(str, sweep["seeds"])))])
    rows.append([Cell("commit"), Cell(results["commit"] or DASH)])
    rows.append([Cell("machine"), Cell(timing["machine"])])
    table = Table(["setting or package", "value"], rows, text_columns=2)
    return [Heading(2, "To run it again"), Code(results["command"]), table]


def _text(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
