"""Later texts are read as the run's own were."""

from dwa_jax.finetune.config import Config
from dwa_jax.finetune.drift.later_rows import read_later


def test_times_are_read_in_the_run_s_form(tmp_path):
    file = tmp_path / "later.csv"
    file.write_text("text,day\nthird,01/03/2024\nfirst,02/01/2024\nsecond,01/02/2024\n")
    notes = []
    config = Config(train="rows.csv", time_format="%d/%m/%Y")
    rows = read_later(config, [str(file)], time_column="day", note=notes.append)
    assert list(rows.texts) == ["first", "second", "third"] and notes == []
