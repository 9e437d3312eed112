"""What a sweep's results say, in sentences that follow from them: the README's text on results.

Nothing here is written by hand, so that no sentence claims what the table does not; a test holds
the README to it.
"""

import re
from pathlib import Path

from dwa_jax.atomic_files import replacing
from experiments.pages.formatting import fixed, interval, mean, p_value, places, signed
from experiments.sweeps import appendix, lookup, papers
from experiments.sweeps.comparison import PRIMARY

_BEGIN, _END = "<!-- results of {}: made by experiments.reproduce --readme -->", "<!-- end -->"
# A classification of a smaller share of the weight than this is hardly learned.
_HARDLY = 0.01
# Metrics that describe: what they are called, and whether lower is better.
_DESCRIBED = {
    "balanced_mse": ("The MSE averaged over the common classes", True),
    "balanced_accuracy": ("The accuracy averaged over its classes", False),
}


def write(results: dict) -> str:
    """Returns the sentences and the table, as Markdown.

    Args:
      results: of a sweep, see `collect.collect`.
    """
    parts = [_setting(results), _table(results)]
    bullets = [*_of_dwa(results), *_settled(results), *_described(results)]
    bullets += [*_ended(results), *_without_classes(results), *_other_rates(results)]
    return "\n\n".join([*parts, "\n".join(f"* {bullet}" for bullet in bullets)]) + "\n"


def check_marks(path: Path, name: str) -> None:
    """Checks that a Markdown file has a place for the sentences on a sweep.

    Raises:
      ValueError: the file is not there, or has no marks of the sweep.
    """
    if not path.is_file():
        raise ValueError(f"--readme={path}: there is no such file")
    if placed(path.read_text("utf-8"), name) is None:
        raise ValueError(f"{path} has no line {_BEGIN.format(name)!r} with {_END!r} after it")


def place(path: Path, name: str, results: dict) -> None:
    """Puts what `write` returns between the marks of the sweep in a Markdown file.

    Raises:
      ValueError: the file is not there, or has no such marks.
    """
    check_marks(path, name)
    text = path.read_text("utf-8")
    start, end = _between(text, name).span(1)
    with replacing(path) as partial:
        partial.write_text(f"{text[:start]}\n{write(results)}\n{text[end:]}", "utf-8")


def placed(text: str, name: str) -> str | None:
    """Returns what stands between the marks of the sweep, None where there are none."""
    found = _between(text, name)
    return found and found[1].strip("\n") + "\n"


def names(text: str) -> list[str]:
    """Returns the sweeps whose marks a Markdown text has."""
    return re.findall(re.escape(_BEGIN).replace(r"\{\}", "(.*?)"), text)


def _between(text, name):
    return re.search(f"{re.escape(_BEGIN.format(name))}\n(.*?){re.escape(_END)}", text, re.DOTALL)


def _setting(results):
    sweep = results["sweep"]
    parts = [f"{len(sweep['methods'])} methods", f"{', '.join(sweep['datasets'])}"]
    parts += [
        ", ".join(sweep["backbones"]),
        f"{len(sweep['seeds'])} seeds, each with its own split",
    ]
    return (
        f"{lookup.tally(results)[:-1]}: {'; '.join(parts)}. Test MSE of each method, and its "
        f"difference to {sweep['baseline']} with a 95 % interval; bold where p, corrected for all "
        f"{lookup.tests(results)} tests of the table, is below .05. What is not bold is undecided."
    )


def _table(results):
    cells = lookup.cells(results)
    heads = [head for cell in cells for head in (lookup.where(results, *cell), "difference")]
    lines = [["", *heads], ["---"] * (len(heads) + 1)]
    for method in results["sweep"]["methods"]:
        line = [method]
        for cell in cells:
            decimals = lookup.decimals(results, *cell, PRIMARY)
            runs = lookup.finished(results, *cell, method)
            line.append(fixed(mean(lookup.values(runs, "test", PRIMARY)), decimals))
            found = lookup.comparison(results, *cell, method, PRIMARY)
            text, mark, detail = lookup.difference(found, decimals)
            text = f"{text} {detail}".strip() if found else ""
            line.append(f"**{text}**" if mark else text)
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _of_dwa(results):
    """DWA against the baseline, and whether the papers' gain is within the interval."""
    by_name = {name: method for method, name in results["sweep"]["papers_rows"].items()}
    dwa, constant = by_name.get(papers.DWA), by_name.get(papers.CONSTANT)
    if dwa is None or constant != results["sweep"]["baseline"]:
        return []
    gain, bullets = papers.ratios()[0], []
    for dataset, backbone in lookup.cells(results):
        found = lookup.comparison(results, dataset, backbone, dwa, PRIMARY)
        base = mean(
            lookup.values(lookup.finished(results, dataset, backbone, constant), "test", PRIMARY)
        )
        if not found or found["low"] is None or not base:
            continue
        percent, low, high = (100 * found[key] / base for key in ("difference", "low", "high"))
        verdict = {"better": "it is better", "worse": "it is worse", "": "undecided"}
        inside = low <= -gain <= high
        bullets.append(
            f"{lookup.where(results, dataset, backbone)}: the MSE of {dwa} differs from that of "
            f"{constant} by {signed(percent, 1)} % {interval(low, high, 1)}, corrected p "
            f"{p_value(found['p_holm'])}: {verdict[lookup.mark(found)]}. The papers' {gain:.1f} % "
            f"less lies {'within' if inside else 'outside of'} the interval."
        )
    return bullets


def _settled(results):
    bullets = []
    for mark, word in (("better", "Better"), ("worse", "Worse")):
        named = [
            f"{found['method']} on {lookup.where(results, found['dataset'], found['backbone'])}"
            for found in results["comparisons"]
            if lookup.mark(found) == mark
        ]
        bullets.append(f"{word} than {results['sweep']['baseline']}: {'; '.join(named) or 'none'}.")
    count = lookup.tests(results)
    return [*bullets, *filter(None, [appendix.power(results, count) if count else ""])]


def _described(results):
    bullets = []
    for metric, (words, lower) in _DESCRIBED.items():
        sides: dict[bool, list[str]] = {True: [], False: []}
        for found in results["comparisons"]:
            if found["metric"] != metric or found["low"] is None:
                continue
            if found["low"] > 0 or found["high"] < 0:
                decimals = max(places(found["difference"]) - 2, 0)
                cell = lookup.where(results, found["dataset"], found["backbone"])
                ends = interval(found["low"], found["high"], decimals)
                text = f"{found['method']} on {cell} {signed(found['difference'], decimals)} {ends}"
                sides[(found["difference"] < 0) == lower].append(text)
        better, worse = ("; ".join(sides[side]) or "none" for side in (True, False))
        bullets.append(
            f"{words}, by intervals that stand for themselves (uncorrected) and exclude 0: "
            f"better: {better}. Worse: {worse}."
        )
    return bullets


def _ended(results):
    bullets = []
    for dataset, backbone in lookup.cells(results):
        ended = []
        for method in results["sweep"]["methods"]:
            runs = lookup.finished(results, dataset, backbone, method)
            start, share = (_share(runs, when) for when in ("start", "end"))
            # What is constant has its weight in its name.
            if share is not None and start != share:
                ended.append(f"{method} {fixed(start, 3)} to {fixed(share, 3)}")
        if ended:
            cell = lookup.where(results, dataset, backbone)
            bullets.append(
                f"The classification's share of the weight, first and last, on {cell}: "
                f"{'; '.join(ended)}."
            )
    return bullets


def _share(runs, when):
    """The classification's mean share of the weight at the "start" or "end"; None if unknown."""
    weights = [run["weights"] for run in runs if run.get("weights")]
    return mean([one[when].get("share_classification") for one in weights])


def _without_classes(results):
    """Methods that all but gave the classification up: their error is that of regression alone."""
    bullets = []
    for dataset, backbone in lookup.cells(results):
        given_up, accuracies = [], []
        for method in results["sweep"]["methods"]:
            runs = lookup.finished(results, dataset, backbone, method)
            share = _share(runs, "end")
            if share is not None and share < _HARDLY:
                given_up.append(method)
                accuracies.append(mean(lookup.values(runs, "test", "accuracy")))
        runs = lookup.finished(results, dataset, backbone, results["sweep"]["baseline"])
        usual = mean(lookup.values(runs, "test", "accuracy"))
        known = [accuracy for accuracy in accuracies if accuracy is not None]
        if known and usual is not None:
            cell = lookup.where(results, dataset, backbone)
            ends = dict.fromkeys(fixed(one, 2) for one in (min(known), max(known)))
            tuned = any(one.get("dataset") == dataset for one in results.get("tuned") or ())
            why = " The learning rates were chosen by validation MSE, which asks for no class."
            bullets.append(
                f"On {cell}, {', '.join(given_up)} ended with less than {100 * _HARDLY:g} % of the "
                f"weight on the classification, whose accuracy is {' to '.join(ends)} there, "
                f"beside {fixed(usual, 2)} of {results['sweep']['baseline']}: their MSE is one of "
                f"regression alone.{why if tuned else ''}"
            )
    return bullets


def _other_rates(results):
    """Where tuning gave the baseline another learning rate of the trunk than others."""
    bullets, baseline = [], results["sweep"]["baseline"]
    usual = results["sweep"]["settings"].get("learning_rate")
    for dataset, backbone in lookup.cells(results):
        rates = {
            one["method"]: one["chosen"].get("learning_rate", usual)
            for one in results.get("tuned") or ()
            if (one["dataset"], one["backbone"]) == (dataset, backbone)
            and one["chosen"] is not None
        }
        own = rates.get(baseline)
        others = [method for method, rate in rates.items() if rate != own]
        if own is None or not others:
            continue
        same = [method for method in rates if method not in (*others, baseline)]
        beside = f", as {', '.join(same)} did" if same else ""
        bullets.append(
            f"On {lookup.where(results, dataset, backbone)}, tuning gave {baseline} a learning "
            f"rate of {own:g} for the trunk{beside}; {', '.join(others)} had "
            f"{', '.join(f'{rate:g}' for rate in dict.fromkeys(rates[one] for one in others))}. "
            "Their differences to it are those of learning rates as well."
        )
    return bullets
