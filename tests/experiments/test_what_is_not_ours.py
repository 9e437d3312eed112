"""Files and links of others under every path that a run writes, prunes or exports."""

import os
import shutil
import stat

import jax.numpy as jnp
import pytest

from configs import base
from dwa_jax.checkpoints import Checkpoints, remove_all
from dwa_jax.finetune import export, saved
from dwa_jax.training import TrainState
from tests import runs

pytestmark = pytest.mark.slow


def look(folder):
    """Bytes, mode and target of everything: what must not change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        inside = os.readlink(path) if path.is_symlink() else None
        if stat.S_ISREG(about.st_mode):
            inside = path.read_bytes()
        found[path.relative_to(folder).as_posix()] = (stat.S_IMODE(about.st_mode), inside)
    return found


def state(step):
    parts = {name: {} for name in TrainState._fields}
    return TrainState(**parts | {"step": jnp.int32(step), "theta": {"kernel": jnp.ones(3)}})


def save(folder, steps):
    checkpoints = Checkpoints(folder)
    for step in steps:
        checkpoints.save(state(step), {"epoch": step})
    checkpoints.close()


def test_only_recorded_checkpoints_are_pruned(tmp_path):
    private, folder = tmp_path / "private", tmp_path / "checkpoints"
    (private / "state").mkdir(parents=True)
    (private / "state" / "thesis").write_text("years of work")
    save(folder, [1])
    shutil.copytree(folder / "1", folder / "my_best_backup")
    shutil.copytree(folder / "1", folder / "100")  # as a step's would be called
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("mine")
    (folder / "7").symlink_to(private)
    (folder / "linked").symlink_to(private)
    (folder / "notes.txt").write_text("mine")
    (folder / "2.partial").mkdir()
    before = look(tmp_path)
    ours = ("checkpoints/saved.json", "checkpoints/1/", "checkpoints/1")
    save(folder, [2, 3])
    (folder / "2" / "state" / "note").write_text("mine: why this one is good")
    kept = look(folder / "2")
    save(folder, [4, 5])
    after = look(tmp_path)
    foreign = [n for n in before if n not in ours and not n.startswith("checkpoints/1/")]
    assert len(foreign) > 12 and all(after[name] == before[name] for name in foreign)
    assert look(folder / "2") == kept
    assert not (folder / "1").exists() and not (folder / "3").exists()
    assert Checkpoints(folder).latest() == (5, [])
    remove_all(folder)
    after = look(tmp_path)
    assert all(after[name] == before[name] for name in foreign) and not (folder / "5").exists()


def test_a_link_in_the_place_of_the_checkpoints_is_not_followed(tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "1").mkdir()
    (tmp_path / "checkpoints").symlink_to(tmp_path / "private")
    with pytest.raises(OSError, match="is a link, where a folder is expected"):
        save(tmp_path / "checkpoints", [2])
    assert sorted(os.listdir(tmp_path / "private")) == ["1"]


def configuration():
    config = base.get_config()
    config.update(
        {"generated_rows": 60, "epochs": 1, "batch_size": 16, "eval_batch_size": 8}
        | {"max_buckets": 1, "max_length": 16, "log_every": 1, "writers": "tensorboard"}
        | {"gradient_scope": "representation", "dropout": False, "stratifier": "equal_width"}
    )
    config.scratch.update({"vocab_size": 300, "width": 8, "layers": 1, "heads": 2})
    config.scratch.feed_forward = 16
    return config


PLACES = ["tokenizer/tokenizer.json", "backbone.json", "predictions.csv", "plots/weights.png"]


def test_a_run_that_goes_on_says_what_is_in_its_way(tmp_path):
    config, folder = configuration(), tmp_path / "run"
    runs.run(config, folder)
    trained = saved.load(folder)
    # As a kill before the end leaves it.
    (folder / "summary.json").unlink()
    private = tmp_path / "private"
    private.write_text("a key")
    private.chmod(0o600)
    (folder / "tensorboard" / "events.out.tfevents.1.mine").write_text("mine")
    for name in PLACES:
        aside = tmp_path / "aside"
        (folder / name).rename(aside)
        for make in (lambda p: p.symlink_to(private), os.mkfifo, lambda p: p.write_text("mine")):
            make(folder / name)
            before = look(tmp_path)
            with pytest.raises(ValueError, match="stays as it is; move it away"):
                runs.run(config, folder)
            after = look(tmp_path)
            assert all(after[n] == before[n] for n in before if n != "run/lock")
            (folder / name).unlink()
        aside.rename(folder / name)
    runs.run(config, folder)
    assert (folder / "tensorboard" / "events.out.tfevents.1.mine").read_text() == "mine"
    assert private.read_text() == "a key"
    # Nothing of what lies in the folder is published but what the run is known to have made.
    (folder / "plots" / "weights.png").unlink()
    (folder / "plots" / "weights.png").symlink_to(private)
    (folder / "tokenizer" / "notes.txt").write_text("a key")
    for write in (
        lambda out: export.export(trained, "transformers", out, check=False),
        lambda out: saved.write(trained, out),
    ):
        write(tmp_path / "out")
        for path in (tmp_path / "out").rglob("*"):
            assert not path.is_symlink() and path.name != "notes.txt"
            assert not path.is_file() or b"a key" not in path.read_bytes()
        shutil.rmtree(tmp_path / "out")
    (folder / "tokenizer" / "notes.txt").unlink()
    (folder / "tokenizer" / "notes.txt").symlink_to(private)
    with pytest.raises(ValueError, match=r"notes\.txt is a link"):
        saved.load(folder)
