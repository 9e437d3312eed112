"""Code that comes with a model or a tokenizer is never run, and no source file would run it.

No array axes of its own.
"""

import ast
import json
import pathlib
import shutil

import pytest
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import dwa_jax
from dwa_jax import backbones
from dwa_jax.data import load_tokenizer
from tests.strangers import CASES, FUZZ


@pytest.fixture
def model(checkpoint, tmp_path):
    """A folder of its own with a small BERT."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(checkpoint("bert").folder / name, tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzzed")


# Code that comes with a model

CODE = "import os, pathlib\npathlib.Path(os.environ['DWA_JAX_MARKER']).touch()\nclass Model: pass\n"


@pytest.fixture
def marker(tmp_path, monkeypatch):
    path = tmp_path / "marker"
    monkeypatch.setenv("DWA_JAX_MARKER", str(path))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return path


def with_code(folder):
    (folder / "stranger.py").write_text(CODE)
    names = ("AutoConfig", "AutoModel", "AutoTokenizer")
    return dict.fromkeys(names, "stranger.Model") | {"AutoTokenizer": ["stranger.Model"] * 2}


def test_the_code_of_a_model_is_never_run(model, checkpoint, marker):
    config = json.loads((model / "config.json").read_text()) | {"auto_map": with_code(model)}
    (model / "config.json").write_text(json.dumps(config))
    assert backbones.load(model)[0].config == checkpoint("bert").module.config
    assert not marker.exists()


def save_tokenizer(folder):
    model = tokenizers.models.WordLevel({"[UNK]": 0, "[PAD]": 1, "euro": 2}, unk_token="[UNK]")
    inner = tokenizers.Tokenizer(model)
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([("Replace", "o", "oo")] * 6, None),
        ([("Replace", "o", "oooooooooo")] * 8, "by up to 100,000,000 times as much"),
        ([("Replace", "o", "x" * 10**6)], "by up to 1,000,000 times"),
        ([("Regex", "a*", "x" * 1000)], "by up to 1,001 times"),
        ([("Regex", r"\s+", " ")] * 3 + [("Replace", "``", '"')], None),
    ],
)
def test_a_tokenizer_that_makes_much_of_little_is_refused(tmp_path, steps, words):
    save_tokenizer(tmp_path)
    normalizers = [
        tokenizers.normalizers.Replace(
            found if kind == "Replace" else tokenizers.Regex(found), content
        )
        for kind, found, content in steps
    ]
    path = tmp_path / "tokenizer.json"
    inner = tokenizers.Tokenizer.from_file(str(path))
    inner.normalizer = tokenizers.normalizers.Sequence(normalizers)
    inner.save(str(path))
    if words is None:
        assert load_tokenizer(tmp_path)("euro")["input_ids"]
        return
    with pytest.raises(ValueError, match=words):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(("longest", "refused"), [(18, False), (5000, True)])
def test_a_table_of_replacements_is_read_for_its_longest(tmp_path, longest, refused):
    save_tokenizer(tmp_path)
    # SentencePiece's: a trie behind its size, then each replacement with a 0 behind it.
    table = (1024).to_bytes(4, "little") + bytes(1024) + b"abc\0" + b"x" * longest + b"\0"
    path = tmp_path / "tokenizer.json"
    inner = tokenizers.Tokenizer.from_file(str(path))
    inner.normalizer = tokenizers.normalizers.Precompiled(table)
    inner.save(str(path))
    if refused:
        with pytest.raises(ValueError, match="by up to 5,001 times"):
            load_tokenizer(tmp_path)
    else:
        assert load_tokenizer(tmp_path).get_vocab()["euro"] == 2


def test_a_tokenizer_that_breaks_off_ends_in_a_line(tmp_path, capfd):
    save_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    inner = tokenizers.Tokenizer.from_file(str(path))
    # Of one unit, beyond which the first character leads.
    inner.normalizer = tokenizers.normalizers.Precompiled(
        (4).to_bytes(4, "little") + bytes(4) + b"abc\0"
    )
    inner.save(str(path))
    with pytest.raises(ValueError, match="breaks off: .*; its tokenizer.json is damaged"):
        load_tokenizer(tmp_path)


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("known", [True, False])
def test_the_code_of_a_tokenizer_is_never_run(tmp_path, marker, known):
    folder = tmp_path / "tokenizer"
    save_tokenizer(folder)
    changes = {"auto_map": with_code(folder)}
    if not known:
        changes["tokenizer_class"] = "StrangerTokenizer"
        (folder / "config.json").write_text(
            json.dumps({"model_type": "stranger", "auto_map": changes["auto_map"]})
        )
    change_json(folder / "tokenizer_config.json", **changes)
    try:
        vocabulary = load_tokenizer(folder).get_vocab()
    except ValueError as error:
        assert str(folder) in str(error) and "\n" not in str(error)
    else:
        assert vocabulary["euro"] == 2
    assert not marker.exists()
    exec(CODE)
    assert marker.exists(), "the code would have left it"


@pytest.mark.parametrize("kind", ["BertTokenizer", "PreTrainedTokenizerFast", "GPT2Tokenizer"])
@pytest.mark.parametrize("with_its_own", [True, False])
def test_a_tokenizer_s_configuration_reaches_no_file_outside(tmp_path, kind, with_its_own):
    folder, secret = tmp_path / "tokenizer", tmp_path / "secret.txt"
    save_tokenizer(folder)
    secret.write_text("[UNK]\n[PAD]\nsecret\n")
    outside = tmp_path / "outside"
    save_tokenizer(outside)
    other = (outside / "tokenizer.json").read_text().replace("euro", "secret")
    (outside / "tokenizer.json").write_text(other)
    change_json(
        folder / "tokenizer_config.json",
        tokenizer_class=kind,
        vocab_file=str(secret),
        merges_file="../secret.txt",
        tokenizer_file=str(outside / "tokenizer.json"),
        added_tokens_file=str(secret),
        special_tokens_map_file=str(secret),
    )
    if not with_its_own:
        (folder / "tokenizer.json").unlink()
    try:
        vocabulary = load_tokenizer(folder).get_vocab()
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert "secret" not in vocabulary


@settings(FUZZ, max_examples=max(30, CASES // 5))
@given(
    name=st.sampled_from(["tokenizer.json", "tokenizer_config.json"]),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3
    ),
)
def test_a_damaged_tokenizer_is_one_or_one_line(scratch, name, changes):
    folder = scratch / "tokenizer"
    save_tokenizer(folder)
    content = bytearray((folder / name).read_bytes())
    for place, byte in changes:
        content[int(place * len(content))] = byte
    (folder / name).write_bytes(content)
    try:
        load_tokenizer(folder)
    except ValueError as error:
        assert str(folder) in str(error) and "\n" not in str(error)


# The source itself

SOURCES = [
    path
    for package in ("dwa_jax", "experiments", "configs")
    for path in (pathlib.Path(dwa_jax.__file__).parents[1] / package).rglob("*.py")
]
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: word.value for word in node.keywords}


def test_no_source_unpickles_trusts_remote_code_or_evaluates_text():
    for path in SOURCES:
        _check_source(path)


def _check_source(path):
    tree = ast.parse(path.read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
    }
    assert not imported & UNPICKLING
    for function, keywords in calls(tree):
        assert function not in ("eval", "exec", "pickle.load", "pickle.loads", "read_pickle")
        assert not function.endswith((".extractall", ".unpack_archive"))
        for name, wanted in (
            ("trust_remote_code", False),
            ("allow_pickle", False),
            ("weights_only", True),
        ):
            if name in keywords:
                assert getattr(keywords[name], "value", None) is wanted, function
        if function == "torch.load":
            assert "weights_only" in keywords
        if function in ("np.load", "numpy.load"):
            assert "allow_pickle" in keywords
        if function.endswith("Tokenizer.from_pretrained"):
            assert "trust_remote_code" in keywords
