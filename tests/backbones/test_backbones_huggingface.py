"""Checkpoints: every format in, the same bits out, and every way a file can be wrong.

No array axes of its own.
"""

import json
import shutil
import sys

import huggingface_hub
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch

from dwa_jax import backbones
from dwa_jax.backbones import BackboneError

pytestmark = pytest.mark.slow

PREFIXES = {"bert": "bert.", "distilbert": "distilbert."}
PREFIXES |= dict.fromkeys(("roberta", "xlm-roberta", "camembert"), "roberta.")


def file_tensors(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


def write(folder, config_from, tensors):
    folder.mkdir(exist_ok=True)
    shutil.copy(config_from / "config.json", folder)
    backbones.save_tensors(folder / "model.safetensors", tensors)
    return folder


def same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_round_trip_is_bit_for_bit(trunk):
    prefix = PREFIXES.get(trunk.module.config.family, "model.")
    ours = backbones.to_huggingface(trunk.module.config, trunk.params, prefix=prefix)
    theirs = file_tensors(trunk.folder)
    rest = {name for name in theirs if name not in ours}
    assert set(ours) <= set(theirs)
    heads = ("classifier.", "score.", "lm_head.", "head.", "pre_classifier.", "vocab_")
    heads = (*heads, prefix + "pooler.")
    assert all(name.startswith(heads) for name in rest), rest
    for name, value in ours.items():
        assert value.flags.c_contiguous
        assert value.dtype == theirs[name].dtype
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def test_transformers_opens_what_we_save(one_of_each, tmp_path):
    trunk = one_of_each
    config = trunk.module.config
    tensors = backbones.to_huggingface(config, trunk.params)
    backbones.save_tensors(tmp_path / "model.safetensors", tensors)
    (tmp_path / "config.json").write_text(json.dumps(config.to_huggingface()))
    model = type(trunk.trunk).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        hidden = model(
            torch.tensor(trunk.ids).long(), attention_mask=torch.tensor(trunk.mask)
        ).last_hidden_state
    real = trunk.mask == 1
    np.testing.assert_allclose(hidden.numpy()[real], trunk.hidden[real], atol=1e-5)


def test_names_without_prefix(trunk, tmp_path):
    trunk.trunk.save_pretrained(tmp_path)
    assert "embed" in next(iter(sorted(file_tensors(tmp_path), key=lambda n: "embed" not in n)))[:6]
    same(backbones.load(tmp_path)[1], trunk.params)


def test_sharded_files(one_of_each, tmp_path):
    one_of_each.whole.save_pretrained(tmp_path, max_shard_size="20kB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    same(backbones.load(tmp_path)[1], one_of_each.params)


def test_torch_files(one_of_each, tmp_path):
    trunk = one_of_each
    shutil.copy(trunk.folder / "config.json", tmp_path)
    torch.save(trunk.whole.state_dict(), tmp_path / "pytorch_model.bin")
    same(backbones.load(tmp_path)[1], trunk.params)
    half = {name: value.bfloat16() for name, value in trunk.whole.state_dict().items()}
    torch.save(half, tmp_path / "pytorch_model.bin")
    expected = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), trunk.params)
    same(backbones.load(tmp_path, param_dtype=jnp.bfloat16)[1], expected)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_files(checkpoint, tmp_path, dtype):
    trunk = checkpoint("qwen2")
    half = {name: value.astype(dtype) for name, value in file_tensors(trunk.folder).items()}
    write(tmp_path, trunk.folder, half)
    module, params = backbones.load(tmp_path, param_dtype=dtype)
    ours = backbones.to_huggingface(module.config, params, prefix="model.")
    for name, value in ours.items():
        assert value.dtype == dtype
        np.testing.assert_array_equal(value, half[name])
    wide = backbones.load(tmp_path)[1]
    same(wide, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params))


def test_options_reach_the_module(checkpoint):
    module, params = backbones.load(
        checkpoint("bert").folder,
        dtype=jnp.bfloat16,
        param_dtype=jnp.bfloat16,
        remat=True,
        unroll=2,
        lora_dropout=0.05,
    )
    assert (module.remat, module.unroll, module.lora_dropout) == (True, 2, 0.05)
    assert module.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}


def test_norms_named_as_tensorflow_did(checkpoint, tmp_path):
    trunk = checkpoint("bert")
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in file_tensors(trunk.folder).items()
    }
    same(backbones.load(write(tmp_path, trunk.folder, renamed))[1], trunk.params)


def test_known_buffers_are_skipped(checkpoint, tmp_path):
    for name, buffer in (
        ("roberta", "roberta.embeddings.position_ids"),
        ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq"),
    ):
        trunk = checkpoint(name)
        tensors = file_tensors(trunk.folder) | {buffer: np.arange(4)}
        same(backbones.load(write(tmp_path, trunk.folder, tensors))[1], trunk.params)


def change(tensors, kind):
    name = "bert.encoder.layer.1.intermediate.dense.weight"
    if kind == "missing":
        del tensors[name]
    elif kind == "unexpected":
        tensors["bert.adapter.weight"] = np.zeros(3, np.float32)
    elif kind == "transposed":
        tensors[name] = tensors[name].T
    elif kind == "another layer":
        tensors[name.replace("layer.1", "layer.3")] = tensors[name]
    elif kind == "twice":
        tensors[name.removeprefix("bert.")] = tensors[name]
    elif kind == "integers":
        tensors[name] = tensors[name].astype(np.int8)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"missing encoder\.layer\.1\.intermediate\.dense\.weight"),
        ("unexpected", r"unexpected bert\.adapter\.weight"),
        ("transposed", r"encoder\.layer\.1\.intermediate\.dense\.weight is \(32, 40\).*\(40, 32\)"),
        ("another layer", r"unexpected bert\.encoder\.layer\.3"),
        ("twice", r"intermediate\.dense\.weight twice"),
        ("integers", r"encoder\.layer\.1\.intermediate\.dense\.weight is int8"),
    ],
)
def test_tensors_that_do_not_fit_are_named(checkpoint, tmp_path, kind, message):
    trunk = checkpoint("bert")
    tensors = file_tensors(trunk.folder)
    change(tensors, kind)
    with pytest.raises(BackboneError, match=message):
        backbones.load(write(tmp_path, trunk.folder, tensors))


def test_many_misfits_are_listed_up_to_ten(checkpoint, tmp_path):
    trunk = checkpoint("bert")
    tensors = {n: v for n, v in file_tensors(trunk.folder).items() if "layer.2" not in n}
    with pytest.raises(BackboneError) as raised:
        backbones.load(write(tmp_path, trunk.folder, tensors))
    message = str(raised.value)
    assert message.count("missing encoder.layer.2") == 10
    assert "and 6 more" in message
    assert "\n" not in message


@pytest.mark.parametrize("keep", [5, 200, -7])
def test_a_truncated_file_is_named_in_one_line(checkpoint, tmp_path, keep):
    whole = (checkpoint("bert").folder / "model.safetensors").read_bytes()
    shutil.copy(checkpoint("bert").folder / "config.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(whole[:keep])
    with pytest.raises(BackboneError, match=r"model\.safetensors is not a readable") as raised:
        backbones.load(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "../outside.safetensors"}}, "not in its folder"),
        ({"weight_map": {"a": "/etc/hostname"}}, "not in its folder"),
        ({"weight_map": {"a": "model-1.safetensors"}}, "model-1.safetensors, which does not exist"),
        ({"weight_map": {"a": "one.safetensors"}}, r"lacks a, which model\.safetensors\.index"),
        ({"weight_map": {}}, "no weight_map"),
        ([], "holds list"),
        ("{", "not readable JSON"),
    ],
)
def test_an_index_that_does_not_fit_its_folder(checkpoint, tmp_path, index, message):
    shutil.copy(checkpoint("bert").folder / "config.json", tmp_path)
    backbones.save_tensors(tmp_path / "one.safetensors", {"b": np.zeros(1, np.float32)})
    text = index if isinstance(index, str) else json.dumps(index)
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(BackboneError, match=message):
        backbones.load(tmp_path)


def test_a_torch_file_without_torch(checkpoint, tmp_path, monkeypatch):
    shutil.copy(checkpoint("bert").folder / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackboneError, match=r"pytorch_model\.bin needs torch"):
        backbones.load(tmp_path)


class Payload:
    def __reduce__(self):
        return (print, ("this must never run",))


@pytest.mark.parametrize("content", [{"a": Payload()}, [1, 2], {"a": 3}])
def test_a_torch_file_of_anything_but_tensors(checkpoint, tmp_path, capsys, content):
    shutil.copy(checkpoint("bert").folder / "config.json", tmp_path)
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(BackboneError, match=r"pytorch_model\.bin is not"):
        backbones.load(tmp_path)
    assert "never" not in capsys.readouterr().out


def test_folders_that_hold_no_model(checkpoint, tmp_path):
    with pytest.raises(BackboneError, match=r"config\.json does not exist"):
        backbones.load(tmp_path)
    shutil.copy(checkpoint("bert").folder / "config.json", tmp_path)
    with pytest.raises(BackboneError, match=r"none of model\.safetensors"):
        backbones.load(tmp_path)
    with pytest.raises(BackboneError, match="is a file"):
        backbones.load(tmp_path / "config.json")
    with pytest.raises(BackboneError, match="neither a folder nor a hub id"):
        backbones.load(tmp_path / "nowhere")


def refuse(*_, **__):
    raise ConnectionError("no route\nto the hub")


@pytest.fixture
def without_network(monkeypatch, tmp_path):
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    return cache


def test_no_network_is_one_line_that_says_what_to_do(without_network):
    with pytest.raises(
        BackboneError, match=r"no folder 'someone/model'.*give the folder"
    ) as raised:
        backbones.load("someone/model")
    assert "\n" not in str(raised.value)


def test_without_a_network_the_hub_s_cache_serves(without_network, checkpoint):
    trunk = checkpoint("bert")
    home = without_network / "models--someone--model"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("0" * 40)
    # As the hub's client lays it out: every file a link to a blob beside the snapshot.
    shutil.copytree(trunk.folder, home / "blobs")
    snapshot = home / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for file in (home / "blobs").iterdir():
        (snapshot / file.name).symlink_to(file)
    same(backbones.load("someone/model")[1], trunk.params)


def test_trees_that_are_not_the_configuration_s(checkpoint):
    trunk = checkpoint("llama")
    config = trunk.module.config
    with pytest.raises(BackboneError, match="final_norm/scale"):
        backbones.to_huggingface(
            config, {k: v for k, v in trunk.params.items() if k != "final_norm"}
        )
    short = {**trunk.params, "final_norm": {"scale": np.zeros(31)}}
    with pytest.raises(BackboneError, match=r"final_norm/scale is .*31"):
        backbones.to_huggingface(config, short)
