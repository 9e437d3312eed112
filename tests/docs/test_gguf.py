"""A GGUF file becomes a folder that a backbone is loaded from, with the file's own numbers.

Axes: B texts, T tokens, D width.
"""

import gguf_to_folder
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from dwa_jax import backbones, data

pytestmark = pytest.mark.slow
gguf = pytest.importorskip("gguf", reason="gguf, which writes and reads such files, is missing")

WIDTH, LAYERS, HEADS, GROUPS, INNER = 32, 2, 4, 2, 64
TEXTS = ["EUR/USD jumps after ECB", "the dollar falls", "pound"]
# Hugging Face -> llama.cpp, within a layer.
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OUTSIDE = {"embed_tokens": "token_embd", "norm": "output_norm"}


def interleaved(weight, heads):
    """The order in which llama.cpp keeps the rows of queries and keys."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small random Llama of 8 bits, and what it computes by transformers."""
    words = data.headlines.tokenizer(TEXTS, 280)
    torch.manual_seed(0)
    model = transformers.LlamaModel(
        transformers.LlamaConfig(
            vocab_size=len(words),
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=GROUPS,
            intermediate_size=INNER,
            max_position_embeddings=64,
            rms_norm_eps=1e-5,
        )
    ).eval()
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    spoken = words.convert_ids_to_tokens(range(len(words)))
    writer.add_token_list(spoken)
    writer.add_token_types([int(gguf.TokenType.NORMAL)] * len(spoken))
    pairs = words.backend_tokenizer.model.__getstate__()
    import json

    merges = json.loads(pairs)["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(words.sep_token_id)
    state, kept = model.state_dict(), {}
    eight = gguf.GGMLQuantizationType.Q8_0
    for name, value in state.items():
        weight = value.numpy()
        bare = name.removesuffix(".weight")
        if bare.startswith("layers."):
            _, layer, inner = bare.split(".", 2)
            theirs = f"blk.{layer}.{NAMES[inner]}.weight"
        else:
            theirs = f"{OUTSIDE[bare]}.weight"
        if weight.ndim == 1:
            writer.add_tensor(theirs, weight)
            continue
        heads = {"attn_q": HEADS, "attn_k": GROUPS}.get(theirs.split(".")[-2])
        ordered = weight if heads is None else interleaved(weight, heads)
        packed = gguf.quants.quantize(np.ascontiguousarray(ordered), eight)
        writer.add_tensor(theirs, packed, raw_dtype=eight)
        # Rows are quantized one by one, whatever their order.
        rounded = gguf.quants.dequantize(gguf.quants.quantize(weight, eight), eight)
        kept[name] = torch.tensor(rounded)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model.load_state_dict({**state, **kept})
    return path, model, words


def test_a_folder_of_it_computes_what_the_file_s_weights_do(written, tmp_path):
    path, model, words = written
    gguf_to_folder.main([str(path), str(tmp_path / "folder")])
    tokenizer = data.load_tokenizer(str(tmp_path / "folder"))
    batch = words(TEXTS, padding=True, add_special_tokens=False, return_tensors="np")
    assert tokenizer.decode(tokenizer(TEXTS[0])["input_ids"]).strip() == TEXTS[0]
    module, params = backbones.load(tmp_path / "folder")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    hidden = module.apply({"params": params}, jnp.asarray(ids), jnp.asarray(mask))
    with torch.no_grad():
        expected = model(torch.tensor(ids), torch.tensor(mask)).last_hidden_state.numpy()
    real = mask.astype(bool)
    np.testing.assert_allclose(np.asarray(hidden)[real], expected[real], atol=1e-5)


def test_the_file_itself_is_told_what_to_do(written, tmp_path):
    path, _, _ = written
    for given in (path, path.parent):
        with pytest.raises(backbones.BackboneError) as caught:
            backbones.load(given)
        message = str(caught.value)
        assert "\n" not in message and f"gguf_to_folder.py {path} FOLDER" in message
