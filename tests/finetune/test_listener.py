"""What is said of a run where nothing can move: a line a minute, whatever it is at."""

import io
import sys
import time

from dwa_jax.finetune import listener

RECORD = {"tokens_per_second": 1234.0, "loss_regression": 0.5, "coefficient_regression": 1.0}


def test_a_log_file_gets_a_line_a_minute_also_while_no_step_ends(monkeypatch):
    monkeypatch.setattr(listener, "_BETWEEN_LINES", 0.05)
    monkeypatch.setattr(sys, "stdout", file := io.StringIO())

    def wait_for(words):
        ends = time.monotonic() + 5
        while words not in file.getvalue():
            assert time.monotonic() < ends, file.getvalue()
            time.sleep(0.01)

    with listener.ProgressBar().progress(40, 3) as bar:
        with bar.telling("compiling"):
            wait_for("step 3 of 40; compiling\n")
        bar.advance()
        bar.show(RECORD)
        wait_for("step 4 of 40, 1,234 tokens/s; loss x weight: regression 0.500 x 1.00\n")
    over = file.getvalue()
    time.sleep(0.15)
    assert file.getvalue() == over
