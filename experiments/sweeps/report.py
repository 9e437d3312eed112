"""The report of a sweep: report.md, report.html and the pictures, from the collected numbers.

It computes nothing but means over seeds: differences, intervals and p values come with the results.
"""

import itertools
import re
from pathlib import Path

from experiments.pages import document, formatting
from experiments.pages.document import (
    DASH,
    Box,
    Cell,
    Figure,
    Heading,
    Paragraph,
    Table,
)
from experiments.pages.formatting import fixed, mean, p_value, places, signed, spread
from experiments.sweeps import appendix, as_papers, lookup, pictures
from experiments.sweeps.comparison import COMMON_THRESHOLDS

_DAGGER = "†"
_METRICS = {
    "mse": "MSE",
    "balanced_mse": "balanced MSE",
    "accuracy_common": "accuracy, common labels",
    "accuracy": "accuracy, own labels",
    "balanced_accuracy": "mean accuracy of own classes",
}


def write(results: dict, timing: dict, folder: Path) -> None:
    """Writes report.md, report.html and pictures/*.png.

    Args:
      results: of the sweep, see `collect.collect`.
      timing: of the same runs.
      folder: where to; made if need be.
    """
    place = folder / "pictures"
    place.mkdir(parents=True, exist_ok=True)
    blocks = _head(results) + as_papers.blocks(results, timing, place)
    blocks += _tuned(results)
    for dataset, backbone in lookup.cells(results):
        blocks += _cell(results, timing, dataset, backbone, place)
    blocks += (
        appendix.thresholds(results, place)
        + appendix.also_tested(results)
        + appendix.unfinished(results)
    )
    blocks += [*appendix.reading(results), *appendix.settings(results, timing)]
    (folder / "report.md").write_text(document.markdown(blocks, place.name), encoding="utf-8")
    page = document.page(results["title"], blocks, "experiments.reproduce", place.name)
    (folder / "report.html").write_text(page, encoding="utf-8")


def summary_section(results: dict) -> str:
    """Writes the sweep as a short table for a terminal.

    Args:
      results: of the sweep.

    Returns:
      A block of lines for each dataset and backbone: method, seeds, MSE, difference, p.
    """
    lines = []
    for dataset, backbone in lookup.cells(results):
        rows = [("method", "seeds", "MSE", "difference [95 %]", "p (Holm)")]
        decimals = lookup.decimals(results, dataset, backbone, "mse")
        for method in results["sweep"]["methods"]:
            runs = lookup.finished(results, dataset, backbone, method)
            found = lookup.comparison(results, dataset, backbone, method, "mse")
            text, mark, detail = lookup.difference(found, decimals)
            rows.append(
                (
                    method,
                    f"{len(runs)}/{len(results['sweep']['seeds'])}",
                    spread(lookup.values(runs, "test", "mse"), decimals),
                    f"{text} {detail}".rstrip() + (" *" if mark else ""),
                    p_value(found["p_holm"] if found else None),
                )
            )
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines.append(f"{dataset}, {backbone}")
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append("  " + "  ".join(cells).rstrip())
        lines.append("")
    lines.append(lookup.tally(results) + " * : the corrected p is below 0.05.")
    return "\n".join(lines)


# What the page opens with.


def _head(results):
    blocks: list = [Heading(1, results["title"]), Paragraph(results["question"])]
    blocks.append(Paragraph(f"{lookup.tally(results)} Baseline: {results['sweep']['baseline']}."))
    cells = lookup.cells(results)
    if len(cells) > 1:
        blocks += [Heading(2, "At a glance"), _overview(results, cells)]
    if results["papers"]:
        rows = [
            [Cell(item["what"]), Cell(item["figure"]), Cell(item["source"])]
            for item in results["papers"]
        ]
        note = Paragraph(
            "Their own statements, on other data and with other baselines: to be read beside the "
            "differences here, not as values these runs should reach."
        )
        table = Table(["what", "figure", "source"], rows, text_columns=3)
        blocks.append(Box("The papers report", [note, table]))
    return blocks


def _tuned(results):
    """What every method could choose among, and what the validation split chose."""
    if not results.get("tuned"):
        return []
    rows = []
    for one in results["tuned"]:
        tried = [
            f"{_keys(candidate['keys'])}: {fixed(candidate['error'], 5)}"
            for candidate in one["candidates"]
        ]
        rows.append(
            [
                Cell(lookup.where(results, one["dataset"], one["backbone"])),
                Cell(one["method"]),
                Cell("; ".join(tried) or "the mean coefficients of another method's last epoch"),
                Cell("not settled yet" if one["chosen"] is None else _keys(one["chosen"])),
                Cell(f"{sum(c['runs'] for c in one['candidates'])}"),
            ]
        )
    seeds = ", ".join(map(str, results["sweep"]["tuning_seeds"]))
    caption = (
        f"Mean validation MSE over the seeds {seeds}. Of a method's own keys the smallest is "
        "taken, then of the keys that all share those whose errors are smallest on average over "
        "methods. No test split was looked at."
    )
    head = ["where", "method", "candidates and their validation MSE", "chosen", "runs"]
    table = Table(head, rows, caption, text_columns=4)
    return [Heading(2, "What was tuned"), Box("Candidates", [table], folded=True)]


def _keys(keys):
    return ", ".join(f"{key}={value}" for key, value in keys.items()) or "as it is"


def _overview(results, cells):
    """Differences in MSE as a share of the baseline's: methods down, cells across."""
    rows = []
    for method in results["sweep"]["methods"]:
        row = [Cell(method)]
        for dataset, backbone in cells:
            runs = lookup.finished(results, dataset, backbone, results["sweep"]["baseline"])
            base = mean(lookup.values(runs, "test", "mse"))
            if method == results["sweep"]["baseline"]:
                row.append(Cell(fixed(base, places(base))))
                continue
            found = lookup.comparison(results, dataset, backbone, method, "mse")
            if not base or not found or found["difference"] is None:
                row.append(Cell(DASH))
                continue
            percent = signed(100 * found["difference"] / base, 1)
            row.append(Cell(f"{percent} %", lookup.mark(found)))
        rows.append(row)
    head = ["method", *(lookup.where(results, *cell) for cell in cells)]
    return Table(
        head,
        rows,
        "Test MSE of the baseline, and the other methods' difference as a share of it (lower is "
        f"better). Bold: {lookup.SETTLED}.",
    )


# A dataset and a backbone.


def _cell(results, timing, dataset, backbone, place):
    blocks = [Heading(2, lookup.where(results, dataset, backbone))]
    blocks.append(_main_table(results, timing, dataset, backbone))
    blocks += _cheap(results, dataset, backbone)
    stem = lookup.anchor(f"{dataset}-{backbone}")
    blocks += _forest(results, dataset, backbone, place / f"{stem}-mse.png")
    blocks += _classes(results, dataset, backbone)
    blocks += _axis(results, dataset, backbone, place / f"{stem}-axis.png")
    blocks += _curves(results, dataset, backbone, place / f"{stem}-curves.png")
    blocks += _ends(results, dataset, backbone)
    blocks += _every_comparison(results, dataset, backbone)
    blocks += _training(results, dataset, backbone)
    return blocks


def _main_table(results, timing, dataset, backbone):
    sweep = results["sweep"]
    places_of = {m: lookup.decimals(results, dataset, backbone, m) for m in lookup.LOWER_IS_BETTER}
    rows, daggers = [], False
    for method in sweep["methods"]:
        runs = lookup.finished(results, dataset, backbone, method)
        dagger = "" if lookup.same_labels(results, dataset, backbone, method) else _DAGGER
        daggers |= bool(dagger)
        row = [Cell(method), Cell(f"{len(runs)}/{len(sweep['seeds'])}")]
        for metric, source in (("mse", "test"), ("balanced_mse", "common")):
            found = lookup.comparison(results, dataset, backbone, method, metric)
            row += [
                lookup.seed_spread(lookup.values(runs, source, metric), places_of[metric]),
                lookup.difference(found, places_of[metric]),
                Cell(p_value(found["p_holm"] if found else None)),
            ]
        for source, metric, suffix in (
            ("test", "accuracy", dagger),
            ("common", "accuracy", ""),
            ("test", "f1_macro", dagger),
        ):
            row.append(lookup.seed_spread(lookup.values(runs, source, metric), 3, suffix))
        times = [timing["runs"].get(run["id"], {}) for run in runs]
        row.append(Cell(formatting.duration(mean([time.get("seconds") for time in times]))))
        row.append(Cell(formatting.readable_size(mean([time.get("peak_bytes") for time in times]))))
        rows.append(row)
    head = ["method", "seeds", "MSE", "− baseline [95 %]", "p (Holm)", "balanced MSE"]
    head += ["− baseline [95 %]", "p (Holm)", "accuracy, own labels", "accuracy, common labels"]
    head += ["macro-F1, own labels", "seconds", "peak memory"]
    caption = (
        f"Mean ± standard deviation over seeds. Bold difference of MSE: {lookup.SETTLED}; other "
        "columns describe."
    )
    if daggers:
        caption += (
            f" {_DAGGER} Other class labels than the baseline's: not comparable with its figure."
        )
    return Table(head, rows, caption)


def _cheap(results, dataset, backbone):
    """What there is without fine-tuning, and below it the baseline method with it."""
    here = [
        found
        for found in results.get("cheap", [])
        if (found["dataset"], found["backbone"]) == (dataset, backbone)
    ]
    if not here:
        return []
    by_name = {
        found["name"]: [one for one in here if one["name"] == found["name"]] for found in here
    }
    decimals = {m: lookup.decimals(results, dataset, backbone, m) for m in lookup.LOWER_IS_BETTER}
    metrics = ("mse", "balanced_mse", "r2", "accuracy")
    rows = [
        [
            Cell(name),
            Cell(f"{len(found)}"),
            *(
                lookup.seed_spread([one[metric] for one in found], decimals.get(metric, 3))
                for metric in metrics
            ),
        ]
        for name, found in by_name.items()
    ]
    baseline = results["sweep"]["baseline"]
    runs = lookup.finished(results, dataset, backbone, baseline)
    sources = ("test", "common", "test", "common")
    rows.append(
        [
            Cell(f"fine-tuned: {baseline}"),
            Cell(f"{len(runs)}"),
            *(
                lookup.seed_spread(lookup.values(runs, source, metric), decimals.get(metric, 3))
                for source, metric in zip(sources, metrics, strict=True)
            ),
        ]
    )
    head = ["", "seeds", "MSE", "balanced MSE", "R²", "accuracy, common labels"]
    caption = (
        f"The same rows and splits. The vectors are those of {backbone} before any training, each "
        "number brought to deviation 1; TF-IDF is of words and pairs of words. The strength of a "
        "ridge regression is chosen by leaving each training row out in turn."
    )
    return [Heading(3, "Without fine-tuning"), Table(head, rows, caption)]


def _forest(results, dataset, backbone, path):
    rows = []
    for method in results["sweep"]["methods"]:
        found = lookup.comparison(results, dataset, backbone, method, "mse")
        if found and found["low"] is not None:
            ends = found["low"], found["high"]
            row = (method, found["difference"], *ends, found["by_seed"], lookup.mark(found))
            rows.append(pictures.Difference(*row))
    if not rows:
        return []
    label = f"test MSE minus that of {results['sweep']['baseline']} (lower is better)"
    pictures.forest(path, rows, label)
    caption = (
        "Difference in MSE with its 95 % interval; small dots are single seeds. Filled and "
        f"coloured: {lookup.SETTLED}."
    )
    alt = f"Differences in MSE to the baseline, {lookup.where(results, dataset, backbone)}"
    return [Figure(path.stem, "", alt, caption)]


def _classes(results, dataset, backbone):
    borders = [-1, *COMMON_THRESHOLDS, 1]
    names = [
        f"{'[' if k == 0 else '('}{low:g}, {high:g}]".replace("-", formatting.MINUS)
        for k, (low, high) in enumerate(itertools.pairwise(borders))
    ]
    rows = []
    for method in results["sweep"]["methods"]:
        lists = lookup.values(
            lookup.finished(results, dataset, backbone, method), "common", "mse_by_class"
        )
        lists = [values for values in lists if values is not None]
        if lists:
            means = [mean([values[k] for values in lists]) for k in range(len(names))]
            rows.append([Cell(method), *(Cell(fixed(value, places(value))) for value in means)])
    if not rows:
        return []
    caption = "Mean over seeds of the squared error of texts whose true score lies in the range."
    return [Heading(3, "MSE by common class"), Table(["method", *names], rows, caption)]


def _axis(results, dataset, backbone, path):
    axis = results["sweep"]["axis"]
    if not axis:
        return []
    panels = {}
    for title, source, metric in (
        ("MSE", "test", "mse"),
        ("balanced MSE", "common", "balanced_mse"),
        ("accuracy, own labels", "test", "accuracy"),
        ("accuracy, common labels", "common", "accuracy"),
    ):
        panels[title] = [
            (
                number,
                lookup.values(lookup.finished(results, dataset, backbone, method), source, metric),
            )
            for method, number in axis["of"].items()
        ]
    if not pictures.against_axis(path, axis["label"], panels):
        return []
    caption = "Mean over seeds (large), single seeds (small) and their range (bar)."
    alt = f"Metrics against {axis['label']}, {lookup.where(results, dataset, backbone)}"
    return [Heading(3, f"Against {axis['label']}"), Figure(path.stem, "", alt, caption)]


def _curves(results, dataset, backbone, path):
    found = {
        method: results["curves"][key]
        for method in results["sweep"]["methods"]
        if (key := f"{dataset}/{backbone}/{method}") in results["curves"]
    }
    if not pictures.draw_steps(path, found):
        return []
    caption = "Mean over seeds; the band reaches from the smallest to the largest seed."
    alt = f"Weights over training steps, {lookup.where(results, dataset, backbone)}"
    return [Heading(3, "How the weights moved"), Figure(path.stem, "", alt, caption)]


def _ends(results, dataset, backbone):
    """Where each method's weights began and ended, so that a rival that stood still is seen."""
    by_method = {
        method: [
            run["weights"]
            for run in lookup.finished(results, dataset, backbone, method)
            if run.get("weights")
        ]
        for method in results["sweep"]["methods"]
    }
    by_method = {
        m: w for m, w in by_method.items() if any("share_classification" in o["end"] for o in w)
    }
    if not by_method:
        return []
    names = {
        "share_classification": "share of the classification",
        "lambda_classification": "its λ",
        "weight_classification": "its w",
        "alpha": "α",
        "beta": "β",
    }
    names = {
        n: t for n, t in names.items() if any(n in o["end"] for w in by_method.values() for o in w)
    }
    rows = []
    for method, weights in by_method.items():
        row = [Cell(method)]
        for name in names:
            start = mean([one["start"].get(name) for one in weights])
            end = lookup.seed_spread([one["end"].get(name) for one in weights], 3)
            arrow = f"{fixed(start, 3)} → {end.text}" if start is not None else DASH
            row.append(Cell(arrow, detail=end.detail))
        rows.append(row)
    caption = (
        "From the first logged step to the mean of the last epoch, mean over seeds ± deviation. "
        "The share is the classification's coefficient over the sum of both."
    )
    head = ["method", *names.values()]
    return [Heading(3, "Where the weights ended"), Table(head, rows, caption)]


def _every_comparison(results, dataset, backbone):
    rows = []
    for found in results["comparisons"]:
        if (found["dataset"], found["backbone"]) != (dataset, backbone):
            continue
        metric = found["metric"]
        decimals = lookup.decimals(results, dataset, backbone, metric)
        rows.append(
            [
                Cell(found["method"]),
                Cell(_METRICS.get(metric, metric)),
                lookup.difference(found, decimals),
                Cell(p_value(found["p"])),
                Cell(p_value(found["p_holm"])),
                Cell(
                    ", ".join(
                        f"{seed}: {signed(value, decimals)}"
                        for seed, value in zip(found["seeds"], found["by_seed"], strict=True)
                    )
                ),
            ]
        )
    if not rows:
        return []
    head = ["method", "metric", "− baseline [95 %]", "p", "p (Holm)", "by seed"]
    title = f"Every comparison with {results['sweep']['baseline']}, and each seed's"
    return [Box(title, [Table(head, rows, text_columns=2)], folded=True)]


def _training(results, dataset, backbone):
    by_method = {
        method: runs
        for method in results["sweep"]["methods"]
        if (runs := lookup.finished(results, dataset, backbone, method))
    }
    names = []
    for runs in by_method.values():
        for run in runs:
            names += [n for n in run.get("final") or {} if n not in names]
    wanted = [n for n in names if re.match(r"(lambda|weight|coefficient)_|(alpha|beta)$", n)]
    rows = []
    for method, runs in by_method.items():
        row = [Cell(method)]
        for key in ("best_epoch", "epochs", "skipped_steps"):
            row.append(
                Cell(
                    f"{value:g}"
                    if (value := mean([run.get(key) for run in runs])) is not None
                    else DASH
                )
            )
        for name in wanted:
            row.append(lookup.seed_spread([(run.get("final") or {}).get(name) for run in runs], 3))
        rows.append(row)
    if not rows:
        return []
    head = ["method", "best epoch", "epochs", "skipped steps", *(f"final {n}" for n in wanted)]
    caption = "Means over seeds. Skipped steps are those whose gradients were not finite."
    return [Box("Training: epochs and final weights", [Table(head, rows, caption)], folded=True)]
