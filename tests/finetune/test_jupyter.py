"""A training in a kernel of Jupyter: what it shows there, and the numbers of this process."""

import json
import os
from pathlib import Path

import nbclient
import nbformat
import pytest

import dwa_jax
from dwa_jax.data import headlines
from tests.finetune.test_api import TIMES, TINY

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
QUICK = TINY | {"epochs": 1}
CELL = """
import json

import dwa_jax

rows = dwa_jax.data.headlines.generate(80, 3)
model = dwa_jax.train(rows.texts, rows.scores, **QUICK)
"""
# A float's repr is the float, to the last bit.
NUMBERS = "print(json.dumps([model.history, model.predict(rows.texts).score.tolist()]))"


@pytest.fixture(scope="module")
def outputs():
    """The outputs of three cells: training, its numbers, the model itself."""
    sources = [f"QUICK = {QUICK!r}\n{CELL}", NUMBERS, "model"]
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, sources)))
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3")
    client.execute(env={**os.environ, "PYTHONPATH": path})
    return [cell["outputs"] for cell in notebook.cells]


def timeless(history):
    return [{k: v for k, v in record.items() if k not in TIMES} for record in history]


def test_the_numbers_are_those_of_this_process_bit_for_bit(outputs):
    rows = headlines.generate(80, 3)
    model = dwa_jax.train(rows.texts, rows.scores, listener=dwa_jax.Listener(), **QUICK)
    (printed,) = outputs[1]
    history, scores = json.loads(printed["text"])
    here = json.loads(json.dumps(model.history))
    assert len(history) > 2 and timeless(history) == timeless(here)
    assert scores == model.predict(rows.texts).score.tolist()


def test_a_notebook_shows_the_bar_the_epochs_and_the_model(outputs):
    shown = [found for found in outputs[0] if found["output_type"] == "display_data"]
    bars = [found["data"]["text/plain"] for found in shown]
    (bar,) = [text for text in bars if text.startswith("training")]
    # The last of its states, in place of the others: 64 texts in batches of 16.
    assert "4/4" in bar and "loss x weight" in bar
    assert any("(validation)" in text for text in bars)
    # Not the least warning.
    assert {found["output_type"] for found in outputs[0]} == {"display_data"}
    (table,) = outputs[2]
    assert "<table>" in table["data"]["text/html"] and "scratch" in table["data"]["text/html"]
