"""Help without waiting, and mistakes without tracebacks unless asked."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from configs import base
from experiments import main
from experiments.terminal import command, usage

ROOT = Path(__file__).parents[2]
# What takes tenths of a second or more.
HEAVY = {"jax", "numpy", "transformers", "tokenizers", "matplotlib", "pyarrow", "rich", "torch"}
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("[a-z]*.py"))


def imports(*arguments):
    """What a program printed, and the modules that it imported for it."""
    program = [sys.executable, "-X", "importtime", "-m", *arguments]
    result = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    lines = result.stderr.splitlines()
    found = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time")}
    said = [line for line in lines if not line.startswith("import time")]
    assert "argparse" in found or "ast" in found
    return result.returncode, result.stdout, said, found


@pytest.mark.parametrize(
    "program", sorted(p.stem for p in (ROOT / "experiments").glob("[a-z]*.py"))
)
def test_help_imports_nothing_heavy_and_nothing_is_said_before_it(program):
    status, printed, said, found = imports(f"experiments.{program}", "--help")
    assert (status, said) == (0, []) and not found & HEAVY
    assert printed.startswith("Fine-tunes" if program == "main" else "usage:")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["main", "--config=configs/demo.py", "--config.epochz=3"], "the nearest is 'epochs'"),
        (["main", "--config=configs/demo.py", "--config.epochs=0"], "epochs=0 must be"),
        (["predict", "--workdir=nowhere"], "nowhere holds no run: there is no config.json"),
        (["serve", "--workdir=nowhere"], "nowhere holds no run"),
        (["export", "--workdir=nowhere", "--output=x"], "nowhere holds no run"),
        (["report", "--workdir", "nowhere"], "nowhere holds no run"),
        (["reproduce", "--sweep=nowhere.py"], "nowhere.py: no such file"),
    ],
)
def test_a_mistake_is_answered_before_anything_heavy(arguments, words):
    status, printed, said, found = imports(f"experiments.{arguments[0]}", *arguments[1:])
    assert (status, printed, len(said)) == (2, "", 1) and words in said[0]
    assert not found & HEAVY


def test_help_lists_options_and_configurations(monkeypatch):
    monkeypatch.chdir(ROOT)
    printed = usage.program_help(main.__doc__)
    for name in NAMES:
        assert f"\n  {name} " in printed
    assert "B9: Qwen2-0.5B" in printed
    for flag in main.FLAGS.flags_by_module_dict()[main.__name__]:
        assert f"\n  --{flag.name}" in printed


def test_help_on_a_configuration_has_every_key_and_marks_what_differs(monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = usage.keys(Path("configs/demo.py")).splitlines()
    for key in base.get_config():
        assert any(line[2:].startswith(f"--config.{key}") for line in lines), key
    assert "* --config.generated_rows=6000" in lines
    assert "  --config.seed=42" in lines and "  --config.scratch.width=128" in lines
    where = lines.index("  --config.log_every=10")
    assert lines[where + 1].strip() == "Steps between two records in metrics.jsonl."


def test_help_on_what_is_no_configuration_is_one_line(tmp_path, capsys):
    path = tmp_path / "wrong.py"
    path.write_text("def get_config():\n    return nothing\n")
    with pytest.raises(SystemExit, match="2"):
        usage.answer(["-h", f"--config={path}"], "")
    assert "wrong.py cannot be loaded: NameError: name 'nothing'" in capsys.readouterr().err


def test_without_a_configuration_those_there_are_named(capsys):
    with pytest.raises(SystemExit, match="2"):
        main.main(["main"])
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and all(f"{name}.py" in printed for name in NAMES)


@pytest.mark.parametrize("asked", [False, True])
def test_a_program_shows_where_it_failed_only_if_asked(monkeypatch, capsys, asked):
    monkeypatch.setattr(sys, "argv", ["program", *(["--traceback"] if asked else [])])

    def program():
        command.Parser().parse_args()
        raise ValueError("what\nis wrong")

    with pytest.raises(SystemExit, match="2"):
        command.run(program)
    printed = capsys.readouterr().err
    assert printed.endswith("error: what is wrong\n")
    assert ("Traceback" in printed) == asked and (asked or printed.count("\n") == 1)


def test_a_device_whose_memory_is_full_is_no_fault_of_ours():
    with pytest.raises(jax.errors.JaxRuntimeError) as error:
        jax.numpy.zeros((10**6, 10**9)).block_until_ready()
    assert "memory is full; smaller batches" in command.words_of(error.value)
    assert "the machine's memory is full" in command.words_of(MemoryError("8 GiB"))
    assert command.words_of(TypeError("a fault of ours")) is None


def test_a_program_says_options_where_the_library_says_arguments():
    said = {
        "give another name, or overwrite=True": "give another name, or --overwrite",
        "removed; check=False leaves that out": "removed; --no-check leaves that out",
        "format='peft' holds it": "--format='peft' holds it",
        "backbone='x' is gone; say so: backbone=FOLDER": "backbone='x' is gone; say so: "
        "--backbone=FOLDER",
        "a --format=x of Predictor.format=y": "a --format=x of Predictor.format=y",
        "dropout=False": "dropout=False",
    }
    for words, expected in said.items():
        assert command.words_of(ValueError(words)) == expected


PRINTS = "from experiments.terminal import command; command.run(lambda: print('line\\n' * 10**6))"


@pytest.mark.parametrize(
    "program",
    [
        ["-c", PRINTS],
        ["-m", "experiments.main", "--help", "--config=configs/qwen.py"],
    ],
)
def test_a_program_whose_output_nobody_reads_ends_without_a_word(program):
    with subprocess.Popen(
        [sys.executable, *program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + 13
