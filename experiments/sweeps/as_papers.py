"""A sweep's numbers in the columns of the papers' tables, their rows beside ours; their figures."""

from pathlib import Path

from dwa_jax.finetune import plots
from experiments.pages.document import DASH, Cell, Figure, Heading, Paragraph, Table
from experiments.pages.formatting import duration, fixed, mean, places
from experiments.sweeps import lookup, papers, pictures

_HEAD = ["", "method", "model", "data", "best epoch", "MSE", "R²", "ACC", "Prec.", "F1"]
_HEAD += ["memory (MiB)", "time (s)", "time usage", "batch"]
_TEXTS = 4


def blocks(results: dict, timing: dict, place: Path) -> list:
    """Writes what a table or figure of the papers shows; nothing for another sweep.

    Args:
      results: of the sweep.
      timing: of its runs.
      place: folder of the pictures.

    Returns:
      Blocks of the report.
    """
    kind, _, number = results["sweep"].get("papers", "").partition(" ")
    if kind == "table":
        return _table(results, timing, number)
    if kind != "figure":
        return []
    draw = {"2": _figure2, "3": _figure3, "6": _figure6}[number]
    return [Heading(2, f"Figure {number} of the papers"), *draw(results, place)]


def _table(results, timing, number):
    theirs = papers.rows(number)
    rows, used = [], set()
    names = results["sweep"]["papers_rows"]
    for method in results["sweep"]["methods"]:
        for dataset, backbone in lookup.cells(results):
            rows.append(_ours(results, timing, dataset, backbone, method))
        name = names.get(method)
        if name not in used:
            rows += [_theirs(row) for row in theirs if row.method == name]
        used.add(name)
    kept = [i for i in range(len(_HEAD)) if i < _TEXTS or any(row[i].text != DASH for row in rows)]
    rows = [[row[i] for i in kept] for row in rows]
    splits = {run["split"] for run in results["runs"] if run.get("split")}
    of = " and ".join(sorted(splits)) or "test"
    caption = (
        f"Ours: means over seeds, of the {of} split at the epoch that is best on validation; MSE "
        "± its deviation over seeds; time is that of steps and their compilation, time usage that "
        f"of the median step; memory is {_memory_of(results, timing)}. The papers': one run of "
        "100 epochs, of the validation split at its best epoch, on texts that are not public and "
        "an RTX 3090 Ti. Errors and accuracies of different texts cannot be compared."
    )
    if not theirs:
        caption += " The papers' own rows are in an appendix that is not public."
    table = Table([_HEAD[i] for i in kept], rows, caption, text_columns=_TEXTS)
    return [
        Heading(2, f"Table {number.replace('a', 'A.')} of the papers, its columns"),
        table,
        *_ratios(results, timing),
    ]


def _ours(results, timing, dataset, backbone, method):
    runs = lookup.finished(results, dataset, backbone, method)
    times = [timing["runs"].get(run["id"], {}) for run in runs]

    def percent(name):
        value = mean(lookup.values(runs, "test", name))
        return Cell(DASH if value is None else fixed(100 * value, 2))

    epoch = mean([run.get("best_epoch") for run in runs])
    batch = mean([run.get("batch_size") for run in runs])
    memory = mean([time.get("peak_bytes") for time in times])
    errors = lookup.values(runs, "test", "mse")
    usage = _over(results, timing, dataset, backbone, method, results["sweep"]["full"])
    return [
        Cell("here"),
        Cell(method),
        Cell(backbone),
        Cell(dataset),
        Cell(fixed(epoch, 1)),
        lookup.seed_spread(errors, places(mean(errors))),
        Cell(fixed(mean(lookup.values(runs, "test", "r2")), 3)),
        percent("accuracy"),
        percent("precision_weighted"),
        percent("f1_weighted"),
        Cell(DASH if memory is None else f"{memory / 2**20:.0f}"),
        Cell(duration(mean([time.get("train_seconds") for time in times]))),
        Cell(DASH if usage is None else f"{100 * usage:.0f} %"),
        Cell(DASH if batch is None else f"{batch:g}"),
    ]


def _theirs(row):
    def number(value, written="{:g}"):
        return Cell(DASH if value is None else written.format(value))

    texts = [Cell("papers"), Cell(row.method), Cell(row.model), Cell(row.dataset)]
    measured = [number(row.epoch), number(row.mse, "{:.4f}"), Cell(DASH)]
    measured += [number(value, "{:.2f}") for value in (row.acc, row.prec, row.f1)]
    cost = [number(row.gpu_mib, "{:.0f}"), number(row.time_s, "{:.0f}")]
    return texts + measured + [*cost, number(row.time_usage_percent, "{:.2f} %"), number(row.batch)]


def _over(results, timing, dataset, backbone, method, other):
    """Time of a method's median step over another's, mean over seeds; None where it is unknown."""
    means = []
    for name in (method, other):
        runs = lookup.finished(results, dataset, backbone, name) if name else []
        means.append(mean([timing["runs"].get(run["id"], {}).get("step_ms") for run in runs]))
    ours, theirs = means
    return ours / theirs if ours and theirs else None


def _ratios(results, timing):
    """The two figures that other data leave comparable: what DWA gains, and what it costs."""
    by_name = {name: method for method, name in results["sweep"]["papers_rows"].items()}
    constant, dwa = by_name.get(papers.CONSTANT), by_name.get(papers.DWA)
    if constant is None or dwa is None:
        return []
    rows = []
    for dataset, backbone in lookup.cells(results):
        base, ours = (
            mean(lookup.values(lookup.finished(results, dataset, backbone, m), "test", "mse"))
            for m in (constant, dwa)
        )
        gain = None if not base or ours is None else 100 * (1 - ours / base)
        found = None
        if constant == results["sweep"]["baseline"]:
            found = lookup.comparison(results, dataset, backbone, dwa, "mse")
        detail = ""
        if gain is not None and found and found["low"] is not None:
            ends = [fixed(-100 * found[end] / base, 1) for end in ("high", "low")]
            detail = f"[{', '.join(ends)}]"
        time = _over(results, timing, dataset, backbone, dwa, constant)
        where = Cell(lookup.where(results, dataset, backbone))
        shown = Cell(DASH if gain is None else f"{fixed(gain, 1)} %", lookup.mark(found), detail)
        rows.append([where, shown, Cell(fixed(time, 2))])
    gain, time = papers.ratios()
    rows.append([Cell("papers, mean of nine cells"), Cell(f"{gain:.1f} %"), Cell(f"{time:.2f}")])
    head = ["", "lower MSE of DWA [95 %]", "time of a step over constant weights'"]
    caption = "DWA against constant weights of .25 and .75; a gain below 0 is a loss."
    return [Heading(3, "What can be compared across data"), Table(head, rows, caption)]


def _memory_of(results, timing):
    kinds = {time.get("memory_of") for time in timing["runs"].values()} - {None}
    if kinds <= {"process"}:
        return "the process's, for a CPU reports none of its own"
    return f"the device's own figure ({', '.join(sorted(kinds))})"


def _figure2(results, place):
    found = []
    for dataset, backbone in lookup.cells(results):
        for method in results["sweep"]["methods"]:
            runs = lookup.finished(results, dataset, backbone, method)
            counts = runs[0].get("histograms") if runs else None
            if not counts or not counts["train"]:
                continue
            name = lookup.anchor(f"{dataset}-{backbone}-{method}-figure2")
            split = runs[0]["split"]
            figure = plots.score_panels(counts["train"], counts["true"], counts["predicted"], split)
            figure.savefig(place / f"{name}.png", dpi=110, facecolor="white")
            caption = (
                f"{method} on {lookup.where(results, dataset, backbone)}, seed {runs[0]['seed']}: "
                f"scores of the training rows (A), of the {split} rows (B), predictions of them "
                "(C), and the three as densities (D)."
            )
            alt = f"Distributions of scores, {method}, {dataset}"
            found.append(Figure(name, "", alt, caption))
    return found


def _figure3(results, place):
    axis, rows = results["sweep"]["axis"], results["sweep"]["papers_rows"]
    dwa = next((method for method, name in rows.items() if name == papers.DWA), None)
    found = []
    for dataset, backbone in lookup.cells(results):
        own = lookup.finished(results, dataset, backbone, dwa) if dwa else []
        share = mean([run["weights"]["end"].get("share_classification") for run in own])
        panels, beside = {}, {}
        for title, metric in (("MSE", "mse"), ("ACC", "accuracy")):
            panels[title] = [
                (
                    number,
                    lookup.values(
                        lookup.finished(results, dataset, backbone, method), "test", metric
                    ),
                )
                for method, number in axis["of"].items()
            ]
            if dwa and share is not None:
                beside[title] = (dwa, share, lookup.values(own, "test", metric))
        name = lookup.anchor(f"{dataset}-{backbone}-figure3")
        if pictures.against_axis(place / f"{name}.png", axis["label"], panels, beside):
            caption = (
                f"{lookup.where(results, dataset, backbone)}: constant weights (means over seeds, "
                "single seeds and their range), and DWA (star) where the share of the "
                "classification ended. The papers' best constant weight is about .25, and their "
                f"DWA has an MSE of {papers.FIGURE3_DWA['mse']} and an ACC of "
                f"{100 * papers.FIGURE3_DWA['accuracy']:.2f} %."
            )
            alt = f"MSE and ACC against the constant weight, {dataset}"
            found.append(Figure(name, "", alt, caption))
    return found


def _figure6(results, place):
    found: list = []
    for dataset, backbone in lookup.cells(results):
        for method in results["sweep"]["methods"]:
            curves = results["curves"].get(f"{dataset}/{backbone}/{method}")
            name = lookup.anchor(f"{dataset}-{backbone}-{method}-figure6")
            path = place / f"{name}.png"
            if not curves or not pictures.draw_weights(path, curves, curves["by_epoch"]):
                continue
            caption = (
                f"{method} on {lookup.where(results, dataset, backbone)}: means over seeds, above "
                "with the range of the seeds."
            )
            found.append(Figure(name, "", f"Weights over a run, {method}, {dataset}", caption))
    note = (
        "In the papers the classification's weight falls from about .5 to .15 in some 1600 "
        "batches, and its mean by epoch from .3 to .1 over the first 25 epochs."
    )
    return [*found, Paragraph(note)] if found else []
