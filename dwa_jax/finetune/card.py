"""The model card of an export: what was trained, on what, how well, and how to open it."""

import json
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dwa_jax import backbones
from dwa_jax.finetune import exports
from dwa_jax.finetune.categories import intervals, labels
from dwa_jax.finetune.config import changed
from dwa_jax.finetune.corpus import IN_MEMORY
from dwa_jax.finetune.exports.opened import Opened
from dwa_jax.finetune.saved import Trained
from dwa_jax.plain_text import for_markdown, markdown_code, markdown_span

# Rows of the table that shows how the tasks' weights moved.
_STEPS = 20
_OVER_TASKS = ("weight", "lambda", "coefficient")


def write(
    run: Trained,
    form: str,
    *,
    made_by: str,
    license: str,
    curve: bool,
    opened: Opened | None = None,
) -> str:
    """Writes the card.

    Args:
      run: what is exported.
      form: one of `exports.FORMATS`.
      made_by: the command of the export.
      license: identifier.
      curve: whether weights.png is there.
      opened: what came of opening it; None claims no numbers.

    Returns:
      Markdown with a header for the Hugging Face hub.
    """
    config = run.config
    backbone = config.backbone
    header: dict[str, Any] = {"license": license, "pipeline_tag": "text-classification"}
    header["library_name"] = form.replace("_", "-")
    header["tags"] = ["sentiment-analysis", "dwa_jax"]
    # The hub takes names of its own alone.
    if backbone != "scratch" and not _is_folder(backbone):
        header["base_model"] = backbone
    # JSON is YAML, and quotes whatever a name may hold.
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in header.items()), "---", ""]
    shape = run.module.config
    trained = f"LoRA, scale {run.lora_scale:g}" if run.adapter else "all of the trunk"
    if config.freeze and not run.adapter:
        trained = f"the trunk but for {', '.join(map(markdown_span, config.freeze))}"
    family = backbones.FAMILIES[shape.family]
    start = f"a {family.title} from scratch" if backbone == "scratch" else markdown_span(backbone)
    lines += [
        "# Sentiment polarity: a score in [-1, 1] and an ordered category",
        "",
        f"Fine-tuned with dwa_jax from {start} ({shape.family}, {shape.num_layers} layers of "
        f"{shape.hidden_size}); trained: {trained}; tasks: {', '.join(config.tasks)}; weighting: "
        f"{markdown_span(config.weighting)}.",
        "",
        "## Opening it",
        "",
        *exports.get(form).opening(run),
        "",
        f"Texts are cut to {run.max_tokens} tokens, as in training, and padded on the right."
        + _closeness(run, opened),
    ]
    if config.normalize_tweets:
        lines += [
            "",
            "**Before the tokenizer**, replace each word that starts with `@` by `@user` and each "
            "that starts with `http` by `http`: the model was trained on such texts.",
        ]
    lines += ["", "## Categories", "", *_categories(run)]
    lines += ["", "## Data", "", *_data(run), "", "## Results", "", *_results(run)]
    lines += ["", "## How the tasks were weighted", ""]
    if curve:
        lines += ["![weights over steps](weights.png)", ""]
    lines += _weights(run)
    commands = [command for command in (training_command(run), made_by) if command]
    if commands:
        lines += [
            "",
            "## Commands",
            "",
            *(line for c in commands for line in (markdown_code(c), "")),
        ]
    return "\n".join(lines)


def _closeness(run, opened):
    claim = ""
    if opened is not None:
        claim = (
            f" Opened with {opened.package} when it was written, it gave the numbers of the run "
            f"within {opened.difference:.1e} on {opened.texts} texts (scores and probabilities)"
        )
        claim += "." if run.config.dtype == "float32" else ", computed in float32."
        if opened.near is not None:
            sentence = opened.near.sentence()
            claim += f" {sentence[0].upper()}{sentence[1:]}."
    if run.config.dtype != "float32":
        claim += (
            f" The run computed in {run.config.dtype}, this is float32: what it predicted itself "
            "differs by that rounding."
        )
    return claim


def _is_folder(backbone):
    return Path(os.path.expanduser(backbone)).exists() or backbone.count("/") > 1


def training_command(run: Trained) -> str:
    """Returns the command of the run: every key that is not at its default.

    "" where there is none: the texts came from a Python program.
    """
    if run.config.train == IN_MEMORY:
        return ""
    options = [f"--config.{key}={value}" for key, value in changed(run.config).items()]
    command = ["python", "-m", "experiments.main", "--config=configs/base.py", *options]
    return shlex.join([*command, *([f"--workdir={run.folder}"] if run.folder else [])])


def _categories(run):
    ranges = intervals(run.thresholds)
    names = labels(run.config.category_names, run.thresholds, run.config.num_classes)
    if ranges is None:
        return [f"* {k}: {for_markdown(name)}" for k, name in enumerate(names)]
    rows = [[k, names[k], ranges[k]] for k in range(run.config.num_classes)]
    origin = run.summary.get("thresholds_from")
    fitted = f"fitted by {markdown_span(run.config.stratifier)}"
    how = f"those of {markdown_span(origin)}" if origin else fitted
    thresholds = ", ".join(f"{value:.6f}" for value in run.thresholds)
    return [
        f"Thresholds of the score, {how}: {thresholds}.",
        "",
        *_table(["", "name", "scores"], rows),
        "",
        "The model's own scores may lie a little beyond [-1, 1]; `dwa_jax` gives the nearer end.",
    ]


def _data(run):
    config = run.config
    if config.train:
        given = "texts that a Python program handed over"
        lines = [
            f"* trained on: {given if config.train == IN_MEMORY else for_markdown(config.train)}"
        ]
        if config.score_range:
            lines.append(f"* scores from {config.score_range}, rescaled to [-1, 1]")
    else:
        lines = [f"* {config.generated_rows} headlines that dwa_jax generated, seed {config.seed}"]
    named = {split: getattr(config, split) for split in ("validation", "test")}
    held = [
        f"{split}: {'handed over, too' if files == IN_MEMORY else for_markdown(files)}"
        for split, files in named.items()
        if files
    ]
    split = ", ".join(held) or f"{config.fractions} of the rows, seed {config.seed}"
    if config.folds:
        split += f"; test is one of {config.folds} folds"
    lines.append(f"* train, validation, test: {split}")
    by_machine = run.summary.get("machine_scored") or {}
    if by_machine:
        counts = ", ".join(f"{for_markdown(split)}: {count}" for split, count in by_machine.items())
        lines.append(f"* scores that VADER gave, not people: {counts}")
    if left := run.summary.get("left_out", {}).get("count", 0):
        lines.append(f"* {left} bad rows left out")
    # A run of an earlier version did not count.
    rows = [
        [split, found["count"], *found["by_class"]]
        for split, found in run.summary.get("rows", {}).items()
    ]
    numbers = [f"category {k}" for k in range(config.num_classes)]
    return [*lines, "", *_table(["", "texts", *numbers], rows)] if rows else lines


def _results(run):
    summary = run.summary
    splits = {split: summary.get(split) for split in ("validation", "test")}
    splits |= summary.get("also_tested") or {}
    splits = {split: found for split, found in splits.items() if found}
    names = [
        name
        for name in dict.fromkeys(name for found in splits.values() for name in found)
        if any(isinstance(found.get(name), int | float) for found in splits.values())
    ]
    rows = [[name, *(_number(found.get(name)) for found in splits.values())] for name in names]
    best = f"Epoch {summary['best_epoch']} of {summary['epochs']}, the best on the validation split"
    lines = [f"{best} by {markdown_span(summary['monitor'])}."]
    if folds := summary.get("folds"):
        count = len(folds["each"])
        lines.append(
            f"This is the model of fold {folds['kept']} of {count}; test is of all rows, each "
            f"predicted by the one of {count} models that had not seen it."
        )
    return [*lines, "", *_table(["", *splits], rows)]


def _weights(run):
    steps = [record for record in run.metrics if record["kind"] == "step"]
    tasks = [task.name for task in run.tasks]
    names = [f"{kind}_{task}" for kind in _OVER_TASKS for task in tasks]
    names = [name for name in names if any(name in record for record in steps)]
    if not names:
        return ["The run logged no weights."]
    # The first and the last, and others evenly in between.
    count = min(_STEPS, len(steps))
    places = sorted({round(i * (len(steps) - 1) / max(count - 1, 1)) for i in range(count)})
    rows = [[steps[i]["step"], *(_number(steps[i].get(name)) for name in names)] for i in places]
    return _table(["step", *names], rows)


def _number(value):
    return "-" if value is None else f"{value:.4f}"


def _table(header: Iterable, rows: Iterable[Iterable]) -> list[str]:
    # A bar in a file's name would end the cell.
    def line(cells):
        return f"| {' | '.join(for_markdown(str(cell)) for cell in cells)} |"

    header = list(header)
    return [line(header), f"|{'---|' * len(header)}", *map(line, rows)]
