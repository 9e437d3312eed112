"""Forms that other programs open, one a file.

A new one is an `ExportForm` in a file here and a line in `FORMS`; `export` takes the first that
can hold a run.
"""

from dwa_jax.finetune.exports import to_peft, to_sentence_transformers, to_transformers
from dwa_jax.finetune.exports.form import ExportForm

__all__ = ["FORMS", "ExportForm"]

FORMS: dict[str, ExportForm] = {
    "transformers": to_transformers.FORM,
    "peft": to_peft.FORM,
    "sentence_transformers": to_sentence_transformers.FORM,
}
