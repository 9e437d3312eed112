"""Forms that other programs open, one a file.

A new one is an `ExportForm` named FORM in a file here and a line in `FORMS`; `export` takes the
first that can hold a run. A form is imported when it is asked for: its name alone takes no JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dwa_jax.finetune.exports.form import ExportForm

# Name -> the file that defines it.
FORMS = {
    "transformers": "to_transformers",
    "peft": "to_peft",
    "sentence_transformers": "to_sentence_transformers",
    "onnx": "to_onnx",
}
FORMATS = tuple(FORMS)


def get(name: str) -> "ExportForm":
    """Returns the form of a name in `FORMATS`."""
    return importlib.import_module(f"{__name__}.{FORMS[name]}").FORM
