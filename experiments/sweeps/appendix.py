"""What the report says of a whole sweep, after its datasets: blocks of a document."""

import json
from pathlib import Path

from experiments.pages.document import DASH, Bullets, Cell, Code, Figure, Heading, Table
from experiments.pages.formatting import mean, places
from experiments.sweeps import lookup, pictures
from experiments.sweeps.comparison import COMMON_THRESHOLDS


def thresholds(results: dict, place: Path) -> list:
    """Draws each dataset's scores and the thresholds of its stratifiers."""
    blocks = []
    for dataset, found in results["distributions"].items():
        path = place / f"{lookup.anchor(dataset)}-thresholds.png"
        svg = pictures.draw_thresholds(path, found["edges"], found["counts"], found["thresholds"])
        caption = f"Scores of {dataset}, and the classes that each stratifier cuts."
        alt = f"Histogram of scores and thresholds, {dataset}"
        blocks.append(Figure(path.stem, svg, alt, caption))
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
    family: dict[tuple, int] = {}
    for found in results["comparisons"]:
        if found["p"] is not None:
            key = (found["dataset"], found["backbone"], found["metric"])
            family[key] = family.get(key, 0) + 1
    items = [
        "Every difference is the method minus the baseline on the same texts and the same seeds: "
        "for errors a negative one is better, for accuracy a positive one.",
        "The interval resamples seeds and texts independently. It says how far the difference "
        "might move with other seeds and other texts of the same kind; it says nothing of other "
        "datasets, backbones or settings.",
        "With few seeds it is too narrow where the seeds disagree: in simulations a 95 % interval "
        "from 5 seeds held the truth in 84 % of cases when all variation came from seeds, and in "
        "92 to 97 % otherwise. From one seed it covers the texts alone.",
    ]
    if family:
        items.append(
            f"p values are corrected by Holm's method within each dataset, backbone and metric, "
            f"for at most {max(family.values())} comparisons at a time; over the whole report "
            f"there are {sum(family.values())}. A result that is not bold is undecided, not a zero."
        )
    items += [
        "Class labels differ between stratifiers, so accuracy and macro-F1 on own labels grade "
        "each method by its own questions. The common labels cut the true and the predicted "
        f"scores at {', '.join(f'{x:g}' for x in COMMON_THRESHOLDS).replace('-', '−')} for every "
        "method; balanced MSE is the mean of the MSE of those classes.",
        "Seconds and memory were taken while runs shared a machine. They show the order of "
        "magnitude, not a benchmark.",
    ]
    return [Heading(2, "How to read this"), Bullets(items)]


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
