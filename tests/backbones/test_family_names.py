"""A family's name stands in its own file alone: code anywhere else asks its entry.

Docstrings and comments may name a family. Strings and identifiers of code may not, whatever
their case, but for four kinds of data: a hub id (owner/name), the name of a shipped
configuration, and the name of a benchmark's shape, which stand for a model, not a family; and the
name of a JSON file, which another program chose. The shapes themselves are configurations, and so
data, and lie in one file.
"""

import ast
import re
from pathlib import Path

import pytest

from dwa_jax.backbones import FAMILIES
from experiments.benchmarks import shapes

ROOT = Path(__file__).parents[2]
OF_FAMILIES = ROOT / "dwa_jax" / "backbones" / "families"
SHAPES = Path(shapes.__file__)
HUB_ID_OR_FILE = re.compile(r"\b[\w-]+/[\w.-]+|\b\w+\.json\b")


def models():
    """Names of shipped configurations and of shapes, the longest first."""
    found = {path.stem for path in (ROOT / "configs").glob("*.py")}
    found |= {node.value for node in ast.walk(ast.parse(SHAPES.read_text())) if is_key(node)}
    return sorted(found, key=len, reverse=True)


def is_key(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and "-" in node.value


def words(source):
    """Every identifier and string of a file's code, with its line."""
    tree = ast.parse(source)
    said = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if id(node) in said:
            continue
        for field in ("value", "id", "attr", "arg", "name", "asname", "module"):
            word = getattr(node, field, None)
            if isinstance(word, str):
                yield getattr(node, "lineno", 0), word


def named(source):
    """Where a file's code names a family: (line, word)."""
    spellings = [re.sub(r"\W", r"[-_ ]?", name) for name in FAMILIES]
    family = re.compile("|".join(sorted(spellings, key=len, reverse=True)), re.IGNORECASE)
    # Whose parts a file's name joins by _, and a paper by -.
    names = "|".join(re.sub(r"_|\\-", "[-_]", re.escape(name)) for name in models())
    of_models = re.compile(rf"(?<![\w-])({names})(?![\w-])", re.IGNORECASE)
    return [
        (line, word)
        for line, word in words(source)
        if family.search(of_models.sub("", HUB_ID_OR_FILE.sub("", word)))
    ]


def test_no_other_file_names_a_family():
    folders = ("dwa_jax", "experiments", "configs")
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    files = [path for path in files if path.parent != OF_FAMILIES and path != SHAPES]
    assert len(files) > 100
    found = {str(path.relative_to(ROOT)): named(path.read_text("utf-8")) for path in files}
    assert {path: words for path, words in found.items() if words} == {}


def test_every_family_is_a_file_of_its_own_that_imports_no_other():
    found = {path.stem: path.read_text() for path in OF_FAMILIES.glob("*.py")}
    del found["__init__"]
    assert {name.replace("-", "_") for name in FAMILIES} == set(found)
    for source in found.values():
        assert "backbones.families" not in source


@pytest.mark.parametrize(
    "line",
    [
        'if settings.family != "roberta": pass',
        "from dwa_jax.backbones.families import qwen2",
        'options = {"DistilBertModel": 1}',
        "is_llama = True",
        'text = f"a RoBERTa of {3}"',
        "def of_xlm_roberta(): pass",
        "run(mistral=1)",
        'if family == "qwen2": pass',
    ],
)
def test_a_name_in_code_is_found(line):
    assert named(line)


@pytest.mark.parametrize(
    "line",
    [
        '"""As in RoBERTa."""',
        "x = 1  # BERT",
        'backbone = "FacebookAI/roberta-large"',
        'shape = "qwen2-0.5b"',
        'place / "sentence_bert_config.json"',
        "from configs import twitter_roberta_large",
        'backbones = {"Twitter-RoBERTa-large": 1}',
    ],
)
def test_what_is_no_family_in_code_is_left_alone(line):
    assert not named(line)
