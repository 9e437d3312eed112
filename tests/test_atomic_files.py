"""Files and folders of output: whole, of one writer, and never in the place of another's."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dwa_jax import atomic_files, partials
from dwa_jax.finetune import own_files, run_folder
from dwa_jax.finetune.config import Config

pytestmark = pytest.mark.slow

MARKER = ".marker.json"


def write(path, text, **options):
    with atomic_files.whole_file(path, **options) as partial:
        partial.write_text(text)


def fill(path, files, **options):
    with atomic_files.whole_folder(path, MARKER, **options) as folder:
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)


def test_a_file_that_appears_in_between_stays(tmp_path):
    path = tmp_path / "out.csv"
    with (
        pytest.raises(ValueError, match="appeared while this was running"),
        atomic_files.whole_file(path, overwrite=False) as partial,
    ):
        partial.write_text("ours")
        path.write_text("mine")
    assert path.read_text() == "mine" and os.listdir(tmp_path) == ["out.csv"]
    write(path, "ours", overwrite=True)
    assert path.read_text() == "ours" and os.listdir(tmp_path) == ["out.csv"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_links_pipes_and_folders_are_never_written_through(tmp_path, overwrite):
    private = tmp_path / "private"
    private.write_text("mine")
    for make in (
        lambda path: path.symlink_to(private),
        lambda path: path.symlink_to(tmp_path / "nowhere"),
        os.mkfifo,
        os.mkdir,
    ):
        path = tmp_path / "out"
        make(path)
        with pytest.raises(ValueError, match=r"is a (link|pipe|folder)"):
            write(path, "ours", overwrite=overwrite)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            with pytest.raises(ValueError, match=r"is a (link|pipe)"):
                run_folder.write_json(path, {})
            path.unlink()
    assert private.read_text() == "mine" and os.listdir(tmp_path) == ["private"]


def test_replacing_keeps_permissions_and_shows_nothing_meanwhile(tmp_path):
    path = tmp_path / "out"
    for mode in (0o600, 0o640, 0o444):
        path.write_text("old")
        path.chmod(mode)
        with atomic_files.whole_file(path, overwrite=True) as partial:
            assert partial.stat().st_mode & 0o077 == 0
            partial.write_text("new")
        assert path.stat().st_mode & 0o777 == mode and path.read_text() == "new"
        path.unlink()


def test_what_a_killed_writer_left_is_cleared_and_what_a_live_one_writes_is_not(tmp_path):
    path = tmp_path / "out"
    code = (
        "import os, sys; from pathlib import Path; from dwa_jax import atomic_files\n"
        "with atomic_files.whole_file(Path(sys.argv[1]), overwrite=False) as partial:\n"
        "    partial.write_text('half'); print('begun', flush=True)\n"
        "    sys.stdin.read(); os.kill(os.getpid(), 9)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    )
    assert other.stdout.readline() == b"begun\n"
    left = [name for name in os.listdir(tmp_path) if partials.is_partial(name, "out")]
    partials.clear(path)
    assert os.listdir(tmp_path) == left and len(left) == 1
    other.communicate()
    # Of that name, but no partial file of ours.
    (tmp_path / ".out.partial").write_text("mine")
    (tmp_path / ".out.dwa_jax-0123456789abcdef.partial").symlink_to(tmp_path / ".out.partial")
    write(path, "whole", overwrite=False)
    assert left[0] not in os.listdir(tmp_path)
    assert (tmp_path / ".out.partial").read_text() == "mine"
    assert len(os.listdir(tmp_path)) == 3


def test_an_export_that_was_edited_since_is_nobody_s_to_replace(tmp_path):
    out = tmp_path / "out"
    fill(out, {"a": "1", "b/c": "2"})
    (out / "b" / "c").chmod(0o600)
    out.chmod(0o700)
    fill(out, {"a": "3", "b/c": "4"})
    assert (out / "a").read_text() == "3" and (out / "b" / "c").stat().st_mode & 0o777 == 0o600
    assert out.stat().st_mode & 0o777 == 0o700
    (out / "a").write_text("by hand")
    with pytest.raises(ValueError, match="'a' is not as an export wrote it.*overwrite=True"):
        fill(out, {"a": "5"})
    assert (out / "a").read_text() == "by hand" and (out / "b" / "c").read_text() == "4"
    fill(out, {"a": "5"}, overwrite=True)
    assert (out / "a").read_text() == "5" and not (out / "b").exists()
    for add in (lambda p: p.mkdir(), lambda p: p.symlink_to(tmp_path), lambda p: p.write_text("")):
        add(out / "more")
        with pytest.raises(ValueError, match="'more', which no export wrote"):
            fill(out, {"a": "6"}, overwrite=True)
        (out / "more").rmdir() if (out / "more").is_dir() and not (out / "more").is_symlink() else (
            out / "more"
        ).unlink()


def test_what_a_desktop_leaves_in_a_folder_is_in_nobody_s_way(tmp_path):
    folder, out = tmp_path / "run", tmp_path / "out"
    for path in (folder, out, tmp_path / "plots"):
        path.mkdir()
        for name in (".DS_Store", "._model.csv", "Thumbs.db", "desktop.ini"):
            (path / name).write_bytes(b"Bud1")
    fill(out, {"one/a": "1"})
    (out / "one" / ".DS_Store").write_bytes(b"Bud1")
    fill(out, {"one/a": "2"})
    assert (out / "one" / "a").read_text() == "2"
    own_files.check_own(tmp_path, ["plots"])
    run_folder.open_folder(folder, Config(), data="rows")
    assert (folder / "config.json").exists()
    # Of these names, too, only a file is clutter.
    (out / "one" / "Thumbs.db").symlink_to(folder)
    with pytest.raises(ValueError, match=r"holds 'one/Thumbs\.db', which no export wrote"):
        fill(out, {"one/a": "3"})


def test_an_edit_while_an_export_runs_is_kept(tmp_path):
    out = tmp_path / "out"
    fill(out, {"a": "1"})
    with (
        pytest.raises(ValueError, match="not as an export wrote it"),
        atomic_files.whole_folder(out, MARKER) as folder,
    ):
        (folder / "a").write_text("2")
        (out / "a").write_text("by hand")
    assert (out / "a").read_text() == "by hand" and os.listdir(tmp_path) == ["out"]


def test_only_regular_files_are_published(tmp_path):
    private = tmp_path / "private"
    private.write_text("mine")
    with (
        pytest.raises(ValueError, match="only regular files are published"),
        atomic_files.whole_folder(tmp_path / "out", MARKER) as folder,
    ):
        (folder / "weights.png").symlink_to(private)
    assert os.listdir(tmp_path) == ["private"] and private.read_text() == "mine"


WRITER = """
import sys, time
from pathlib import Path
from dwa_jax import atomic_files
out, mine = Path(sys.argv[1]), sys.argv[2]
with atomic_files.whole_folder(out / "folder", ".marker.json") as folder:
    for i in range(20):
        (folder / f"{i}").write_text(mine)
        time.sleep(0.002)
with atomic_files.whole_file(out / "file", overwrite=True) as partial:
    for i in range(20):
        with partial.open("a") as file:
            file.write(mine)
        time.sleep(0.002)
"""


def test_overlapping_writers_with_kills_leave_what_is_whole_and_of_one(tmp_path):
    # 50 of them, every third killed: WRITERS=50.
    count = int(os.environ.get("WRITERS", "6"))
    processes = []
    for i in range(count):
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(tmp_path), f"{i:04d}"],
                cwd=Path(__file__).parents[1],
                stderr=subprocess.PIPE,
            )
        )
        if i % 3 == 2:
            time.sleep(0.12 + 0.01 * (i % 10))
            processes[i - 1].kill()
    for process in processes:
        said = process.communicate()[1].decode()
        assert process.returncode in (0, -9) or "ValueError" in said or "OSError" in said, said
    fill(tmp_path / "other", {"a": "1"})
    if (tmp_path / "folder").exists():
        listed = json.loads((tmp_path / "folder" / MARKER).read_text())["files"]
        texts = {(tmp_path / "folder" / name).read_text() for name in listed}
        assert len(listed) == 20 and len(texts) == 1
    text = (tmp_path / "file").read_text()
    assert text == 20 * text[:4]
    write(tmp_path / "file", "last", overwrite=True)
    fill(tmp_path / "folder", {"a": "last"})
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "other"]


def test_files_of_others_in_a_run_s_folder_are_not_replaced(tmp_path):
    def place(text, **options):
        with own_files.placing(tmp_path, **options) as folder:
            (folder / "plots").mkdir()
            (folder / "plots" / "weights.png").write_text(text)

    private = tmp_path / "private"
    private.write_text("mine")
    place("1")
    place("2")
    shown = tmp_path / "plots" / "weights.png"
    assert shown.read_text() == "2"
    own_files.check_own(tmp_path, ["plots", "summary.json"])
    shown.write_text("by hand")
    with pytest.raises(ValueError, match=r"weights\.png is not as this wrote it"):
        place("3")
    with pytest.raises(ValueError, match=r"weights\.png is not as this wrote it"):
        own_files.check_own(tmp_path, ["plots"])
    assert shown.read_text() == "by hand"
    place("3", overwrite=True)
    shown.unlink()
    shown.symlink_to(private)
    with pytest.raises(ValueError, match=r"weights\.png is a link, and stays as it is"):
        place("4", overwrite=True)
    assert shown.is_symlink() and private.read_text() == "mine"
    shown.unlink()
    shown.parent.rmdir()
    shown.parent.symlink_to(tmp_path.parent)
    with pytest.raises(ValueError, match="plots is a link"):
        place("5")
    assert not (tmp_path.parent / "weights.png").exists()
    # What this would write anyway is as good as its own.
    (tmp_path / "same").write_text("same")
    with own_files.placing(tmp_path) as folder:
        (folder / "same").write_text("same")


def test_a_lock_that_is_a_link_or_a_text_of_somebody_s_is_not_emptied(tmp_path):
    private = tmp_path / "private"
    private.write_text("years of work")
    for make in (lambda p: p.symlink_to(private), os.mkfifo, lambda p: p.write_text("notes\n")):
        make(tmp_path / "lock")
        with pytest.raises(ValueError, match="lock is"), run_folder.lock(tmp_path):
            pass
        (tmp_path / "lock").unlink()
    with run_folder.lock(tmp_path):
        pass
    with run_folder.lock(tmp_path):
        assert f"pid {os.getpid()} on" in (tmp_path / "lock").read_text()
    assert private.read_text() == "years of work"
