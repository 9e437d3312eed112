"""A finished run in a form that other programs open; `exports` has one a file.

transformers: one folder a task, `regression` and `classification`, which
`AutoModelForSequenceClassification.from_pretrained` opens; LoRA is merged.
peft: likewise, for `PeftModel.from_pretrained` on the run's backbone; of a trunk from scratch
that backbone is there too, as `base`.
sentence_transformers: likewise, for `SentenceTransformer`; LoRA is merged, and any pooling fits.
onnx: one graph of both tasks for ONNX Runtime, in float32 and with 8-bit matrices.
README.md is the model card of each.
"""

from collections.abc import Callable
from pathlib import Path

from dwa_jax.atomic_files import whole_folder
from dwa_jax.finetune import card, plots
from dwa_jax.finetune.exports import FORMATS, get
from dwa_jax.finetune.exports.opened import open_and_compare
from dwa_jax.finetune.inherited import MARKER
from dwa_jax.finetune.saved import Trained

__all__ = ["FORMATS", "MARKER", "check_form", "export", "fitting"]


def export(
    run: Trained,
    form: str,
    output: Path,
    *,
    made_by: str = "",
    license: str = "unknown",
    overwrite: bool = False,
    check: bool = True,
    note: Callable[[str], None] | None = None,
) -> Path:
    """Writes a run in a form that other programs open.

    Args:
      run: from `saved.load`.
      form: one of `FORMATS`; "" takes the first that can hold this run.
      output: the folder; a new one, or an earlier export.
      made_by: the command, for the model card.
      license: identifier for the model card.
      overwrite: whether an earlier export is replaced whose files were changed since.
      check: whether what was written is opened, where what opens it is installed, and compared
        with the run.
      note: told what came of it, in a sentence.

    Returns:
      The folder.

    Raises:
      ValueError: the form does not exist or cannot hold this run, the folder holds something
        else than an export, or what was written gives other numbers than the run; nothing is
        written.
      OSError: the folder cannot be written.
    """
    form = form or fitting(run)
    check_form(run, form)
    with whole_folder(output, MARKER, overwrite=overwrite) as folder:
        made = get(form)
        made.write(run, folder)
        opened = open_and_compare(run, made, folder) if check else None
        curve = plots.weights(run.metrics)
        if curve is not None:
            plots.save({"weights": curve}, folder)
        text = card.write(
            run, form, made_by=made_by, license=license, curve=curve is not None, opened=opened
        )
        (folder / "README.md").write_text(text, "utf-8")
    if note is not None and opened is not None:
        note(
            f"opened with {opened.package}: on {opened.texts} texts it differs from the run by at "
            f"most {opened.difference:.1e}"
        )
        if opened.near is not None:
            note(opened.near.sentence())
    elif note is not None and check:
        note(f"not opened: {' and '.join(get(form).packages)} are not installed here")
    return output


def fitting(run: Trained) -> str:
    """Returns the first of `FORMATS` that can hold a run.

    Raises:
      ValueError: none can; says why the last cannot.
    """
    for form in FORMATS:
        if not (why := get(form).refusal(run)):
            return form
    raise ValueError(why)


def check_form(run: Trained, form: str) -> None:
    """Checks that a form exists and can hold a run.

    Raises:
      ValueError: it does not, or cannot; says what would.
    """
    if form not in FORMATS:
        raise ValueError(f"format={form!r} is not one of {', '.join(FORMATS)}")
    if why := get(form).refusal(run):
        raise ValueError(why)
