"""Weights from strangers: an error of one line, and nothing run.

No array axes of its own.
"""

import json
import os
import pathlib
import pickle
import resource
import shutil
import struct
import zipfile

import jax
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dwa_jax import backbones
from dwa_jax.backbones import BackboneError, files
from tests.strangers import CASES, FUZZ, refusal


@pytest.fixture
def model(checkpoint, tmp_path):
    """A folder of its own with a small BERT."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(checkpoint("bert").folder / name, tmp_path)
    return tmp_path


# safetensors: a header that lies


def safe_file(header, body=b"", length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def entry(**changes):
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


EIGHT = bytes(8)
LYING = {
    "empty file": b"",
    "seven bytes": bytes(7),
    "header past the end": safe_file(b"{}", length=3),
    "header of 2^63": safe_file(b"{}", length=2**63),
    "header of 2^64 - 1": safe_file(b"{}", length=2**64 - 1),
    "header of 200 MB": safe_file(b"{}", length=200_000_000),
    "header that is too large and there": safe_file(b'{"a":"' + b" " * 100_000_001 + b'"}'),
    "no header": safe_file(b""),
    "header of another encoding": safe_file(b'{"\xff": 1}'),
    "header in UTF-16": safe_file(json.dumps({"a": entry()}).encode("utf-16"), EIGHT),
    "no JSON": safe_file(b"{'a': 1}"),
    "a list": safe_file([]),
    "null": safe_file(b"null"),
    "nested a million times": safe_file(b'{"a":' * 1_000_000),
    "a list nested a million times": safe_file(b'{"a":' + b"[" * 1_000_000),
    "a name with half a surrogate pair": safe_file(b'{"\\ud800": 1}'),
    "offsets past the end": safe_file({"a": entry(shape=[4], data_offsets=[0, 16])}, EIGHT),
    "offsets below 0": safe_file({"a": entry(data_offsets=[-8, 0])}, EIGHT),
    "offsets in reverse": safe_file({"a": entry(data_offsets=[8, 0])}, EIGHT),
    "offsets that overlap": safe_file({"a": entry(), "b": entry(data_offsets=[4, 12])}, EIGHT * 2),
    "the same offsets": safe_file({"a": entry(), "b": entry()}, EIGHT),
    "a gap": safe_file({"a": entry(), "b": entry(data_offsets=[16, 24])}, EIGHT * 3),
    "bytes left over": safe_file({"a": entry()}, EIGHT + b"x"),
    "a body cut short": safe_file({"a": entry()}, EIGHT[:5]),
    "offsets of 5000 digits": safe_file(b'{"a": {"data_offsets": [0, ' + b"9" * 5000 + b"]}}"),
    "shape larger than its bytes": safe_file({"a": entry(shape=[3])}, EIGHT),
    "shape smaller than its bytes": safe_file({"a": entry(shape=[1])}, EIGHT),
    "shape below 0": safe_file({"a": entry(shape=[-2])}, EIGHT),
    "shape that overflows": safe_file({"a": entry(shape=[2**63, 2, 2**62])}, EIGHT),
    "shape that overflows to 0": safe_file({"a": entry(shape=[2**62, 4])}, b""),
    "shape of fractions": safe_file({"a": entry(shape=[2.0])}, EIGHT),
    "shape of words": safe_file({"a": entry(shape="2")}, EIGHT),
    "unknown type": safe_file({"a": entry(dtype="Q7")}, EIGHT),
    "a type of another size": safe_file({"a": entry(dtype="F64")}, EIGHT),
    "no offsets": safe_file({"a": {"dtype": "F32", "shape": [2]}}, EIGHT),
    "metadata of numbers": safe_file({"__metadata__": {"a": 1}}),
    "one name twice": safe_file(
        f'{{"a": {json.dumps(entry())}, "a": {json.dumps(entry(dtype="I32"))}}}'.encode(), EIGHT
    ),
}


@pytest.mark.parametrize("kind", LYING)
def test_a_safetensors_file_whose_header_lies_is_refused(model, kind):
    (model / "model.safetensors").write_bytes(LYING[kind])
    message = refusal(model)
    assert message.startswith(str(model / "model.safetensors")), message


def test_a_header_s_length_is_not_allocated(model):
    (model / "model.safetensors").write_bytes(safe_file(b"{}", length=99_999_999))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(model)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F8_E8M0", "F6_E2M3", "F4"])
def test_types_that_numpy_has_not_are_refused_by_the_tensor_s_name(tmp_path, dtype):
    bits = {"F6_E2M3": 6, "F4": 4}.get(dtype, 8)
    header = {"a": entry(dtype=dtype, shape=[8], data_offsets=[0, bits])}
    (tmp_path / "model.safetensors").write_bytes(safe_file(header, bytes(bits)))
    with (
        files.open_tensors(tmp_path) as tensors,
        pytest.raises(BackboneError, match=dtype) as error,
    ):
        tensors["a"][1]()
    assert "cannot read a" in str(error.value) and "\n" not in str(error.value)


def test_names_of_a_stranger_cannot_write_on_the_terminal(model, checkpoint):
    tensors = {
        "a\n\x1b[31mred": np.zeros(2, np.float32),
        "b" * 100_000: np.zeros(2, np.float32),
        "c\u202e\u2028d": np.zeros(2, np.float32),
    }
    backbones.save_tensors(model / "model.safetensors", tensors)
    message = refusal(model)
    assert r"unexpected a\n\x1b[31mred" in message and r"c\u202e\u2028d" in message


SMALL = safe_file(
    {
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]},
        "c": {"dtype": "BF16", "shape": [], "data_offsets": [32, 34]},
    },
    bytes(range(34)),
)
PLACE = st.integers(0, len(SMALL) - 1)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzzed")


@FUZZ
@given(
    flips=st.lists(st.tuples(PLACE, st.integers(0, 7)), max_size=4),
    digits=st.lists(st.tuples(PLACE, st.sampled_from(b'0123456789-,[]{}":FIBU')), max_size=4),
    junk=st.tuples(PLACE, st.binary(max_size=6)),
    keep=st.just(len(SMALL)) | PLACE,
)
def test_a_damaged_safetensors_file_is_tensors_that_fit_or_one_line(
    scratch, flips, digits, junk, keep
):
    content = bytearray(SMALL)
    for place, bit in flips:
        content[place] ^= 1 << bit
    for place, byte in digits:
        content[place] = byte
    content[junk[0] : junk[0]] = junk[1]
    content = bytes(content[:keep])
    (scratch / "model.safetensors").write_bytes(content)
    try:
        with files.open_tensors(scratch) as tensors:
            read = {name: (shape, get()) for name, (shape, get) in tensors.items()}
    except (ValueError, OSError) as error:
        assert str(scratch / "model.safetensors") in str(error) and "\n" not in str(error)
    else:
        (length,) = struct.unpack("<Q", content[:8])
        assert sum(value.nbytes for _, value in read.values()) == len(content) - 8 - length
        header = json.loads(content[8 : 8 + length])
        for name, (shape, value) in read.items():
            start, end = header[name]["data_offsets"]
            assert value.shape == shape == tuple(header[name]["shape"])
            assert value.tobytes() == content[8 + length :][start:end]


# Paths


@pytest.mark.parametrize(
    "name",
    [
        "../outside.safetensors",
        "/etc/passwd",
        "../../../../etc/passwd",
        "a/../../outside",
        "..",
        ".",
    ]
    + ["", "..\\outside.safetensors", "C:outside", "sub/inside.safetensors", "~/x", "\0", "x" * 999]
    + [5, None, ["../outside.safetensors"], {"a": 1}, "a\nb", "missing.safetensors"],
)
def test_an_index_reaches_only_files_beside_it(checkpoint, tmp_path, name):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(checkpoint("bert").folder / "config.json", folder)
    whole = checkpoint("bert").folder / "model.safetensors"
    for place in (tmp_path / "outside.safetensors", folder / "sub" / "inside.safetensors"):
        shutil.copy(whole, place)
    with files.open_tensors(checkpoint("bert").folder) as tensors:
        index = {"weight_map": dict.fromkeys(tensors, name)}
    (folder / files.INDEX).write_text(json.dumps(index))
    assert str(folder / files.INDEX) in refusal(folder)


def test_links_of_a_hub_cache_are_followed_also_from_an_index(checkpoint, tmp_path):
    source = tmp_path / "sharded"
    checkpoint("bert").whole.save_pretrained(source, max_shard_size="20kB")
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    shutil.copytree(source, blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(pathlib.Path("../../blobs") / file.name)
    assert (snapshot / files.INDEX).exists() and not (snapshot / files.SAFE).exists()
    same = jax.tree.map(
        np.testing.assert_array_equal, backbones.load(snapshot)[1], checkpoint("bert").params
    )
    assert same is not None


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "loop", "text"])
def test_a_file_that_is_something_else_is_refused_at_once(model, name, kind):
    path = model / name
    path.unlink()
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    else:
        path.symlink_to("/etc/passwd")
    message = refusal(model)
    assert "root:" not in message
    if kind in ("device", "pipe", "folder"):
        assert message == f"{path} is not a regular file"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_file_of_gigabytes_is_not_read(model, name):
    (model / "model.safetensors").unlink()
    (model / name).touch()
    os.truncate(model / name, 20 * 2**30)
    assert "has more than 10" in refusal(model)


def test_a_system_file_that_would_be_read_for_ever_is_no_configuration(model):
    # A regular file by its kind, without a length.
    (model / "config.json").unlink()
    (model / "config.json").symlink_to("/proc/self/environ")
    assert "is not readable JSON" in refusal(model)


# Pickles


class Payload:
    """What a malicious file holds: unpickled, it makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


def malicious(path, marker, kind):
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Payload(marker)))
    elif kind == "zip":
        torch.save({"a": torch.zeros(2), "b": Payload(marker)}, path)
    elif kind == "legacy":
        torch.save({"b": Payload(marker)}, path, _use_new_zipfile_serialization=False)
    elif kind == "zip with paths":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../../data.pkl", pickle.dumps(Payload(marker)))
            archive.writestr("archive/data.pkl", pickle.dumps(Payload(marker)))
            archive.writestr("archive/version", "3")


@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy", "zip with paths"])
def test_a_pickle_is_never_run(model, kind):
    (model / "model.safetensors").unlink()
    marker, path = model / "marker", model / "pytorch_model.bin"
    malicious(path, marker, kind)
    assert str(path) in refusal(model)
    assert not marker.exists()
    # The marker is one that an ordinary load would leave.
    if kind == "pickle":
        pickle.loads(path.read_bytes())
        assert marker.exists()


def test_a_file_too_large_for_the_address_space_is_one_line(model, monkeypatch):
    def no_room(*args, **options):
        raise MemoryError("Cannot allocate memory (os error 12)")

    monkeypatch.setattr(files.safetensors, "safe_open", no_room)
    assert "not a readable safetensors file (Cannot allocate memory" in refusal(model)


def test_a_pickle_under_the_name_of_safetensors_is_never_run(model):
    malicious(model / "model.safetensors", model / "marker", "zip")
    assert "is not a readable safetensors file" in refusal(model)
    assert not (model / "marker").exists()


def test_an_old_torch_is_not_trusted_with_a_pickle(model, monkeypatch):
    (model / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(2)}, model / "pytorch_model.bin")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    assert "needs torch 2.6" in refusal(model)


TENSORS = {
    "more than the file holds": torch.zeros(1).expand(10**9, 10**6),
    "a plain array": torch.eye(3).to_sparse(),
    "a plain array of numbers": torch.empty(10**9, 10**9, device="meta"),
}


@pytest.mark.parametrize("problem", TENSORS)
def test_a_torch_tensor_that_claims_more_than_it_has_is_refused(model, problem):
    (model / "model.safetensors").unlink()
    torch.save({"bert.lie": TENSORS[problem]}, model / "pytorch_model.bin")
    message = refusal(model)
    assert "bert.lie" in message and problem in message


def test_a_torch_file_names_tensors_with_strings(model):
    (model / "model.safetensors").unlink()
    torch.save({5: torch.zeros(2)}, model / "pytorch_model.bin")
    assert "5" in refusal(model)


@settings(FUZZ, max_examples=max(50, CASES // 3))
@given(
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    keep=st.just(1.0) | st.floats(0, 1),
)
def test_a_damaged_torch_file_is_tensors_or_one_line(scratch, changes, keep):
    folder = scratch / "torch"
    folder.mkdir(exist_ok=True)
    path = folder / "pytorch_model.bin"
    torch.save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2).bfloat16()}, path)
    content = bytearray(path.read_bytes())
    for place, byte in changes:
        content[int(place * len(content))] = byte
    path.write_bytes(content[: int(keep * len(content))])
    try:
        with files.open_tensors(folder) as tensors:
            read = [(shape, get()) for shape, get in tensors.values()]
    except (ValueError, OSError) as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert all(value.shape == shape for shape, value in read)
