"""A backbone of one's own: GPT-2, from its Hugging Face weights.

It differs from the decoders that are there in learned positions, norms with a bias, and one
matrix for query, key and value together. Source: Radford et al., "Language Models are
Unsupervised Multitask Learners" (2019). B batch, T tokens, D width.
"""

import jax.numpy as jnp
from flax import linen as nn

from dwa_jax import backbones
from dwa_jax.backbones.attention import attention
from dwa_jax.backbones.classifier import score_classifier
from dwa_jax.backbones.layers import MLP, Block, Embedding, LayerNorm, Linear, Trunk, at
from dwa_jax.backbones.names import Tensor


class Embeddings(Block):
    """The sum of word and position embeddings."""

    @nn.compact
    def __call__(self, input_ids):
        word = self.part(Embedding, self.config.vocab_size, name="word")(input_ids)
        positions = jnp.arange(input_ids.shape[1])[None]
        place = self.part(Embedding, self.config.max_positions, name="position")(positions)
        return word + jnp.broadcast_to(place, word.shape)


class Attention(Block):
    """Causal attention with one matrix for query, key and value."""

    @nn.compact
    def __call__(self, x, mask, deterministic):
        c = self.config
        joined = self.part(Linear, 3 * c.hidden_size, name="qkv")(x, deterministic)
        heads = joined.reshape(*x.shape[:2], 3, c.num_heads, c.head_dim)
        rate = 0.0 if deterministic else c.attention_dropout
        drop_key = self.make_rng("dropout") if rate else None
        query, keys, values = heads[:, :, 0], heads[:, :, 1], heads[:, :, 2]
        mixed = attention(query, keys, values, mask, dropout_rate=rate, dropout_key=drop_key)
        return self.part(Linear, c.hidden_size, name="output")(
            mixed.reshape(x.shape), deterministic
        )


class Layer(Block):
    """One layer: attention and feed-forward, each on a normalised copy of its input."""

    @nn.compact
    def __call__(self, x, mask, deterministic=True, positions=None):
        rate = self.config.hidden_dropout
        normed = self.part(LayerNorm, name="attention_norm")(x)
        update = self.part(Attention, name="attention")(normed, mask, deterministic)
        x = x + self.dropout(update, rate, deterministic)
        normed = self.part(LayerNorm, name="mlp_norm")(x)
        update = self.part(MLP, name="mlp")(normed, deterministic)
        x = x + self.dropout(update, rate, deterministic)
        return at(x, positions), None  # the last layer's, where one token a text is pooled


class Gpt2(Trunk):
    """A GPT-2 trunk; the hidden states are those after the final norm."""

    def setup(self):
        self.embeddings = self.part(Embeddings)
        self.layers = self.stack(Layer)  # scanned: every parameter under it is (layers, ...)
        self.final_norm = self.part(LayerNorm)

    def embed(self, input_ids, deterministic):
        x = self.embeddings(input_ids)
        return self.dropout(x, self.config.hidden_dropout, deterministic)

    def context(self, attention_mask):
        tokens = attention_mask.shape[1]
        return jnp.tril(jnp.ones((tokens, tokens), bool)) & attention_mask[:, None, :]

    def finish(self, x):
        return self.final_norm(x)


def read(source: dict) -> backbones.BackboneConfig:
    """Reads GPT-2's `config.json`; refuses what would change the numbers."""
    for field, value in {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
    }.items():
        if source.get(field, value) != value:
            raise backbones.BackboneError(f"{field} {source[field]!r} is not supported")
    if source["resid_pdrop"] != source["embd_pdrop"]:
        raise backbones.BackboneError("resid_pdrop and embd_pdrop differ, which is not supported")
    width = source["n_embd"]
    return backbones.BackboneConfig(
        family="gpt2",
        vocab_size=source["vocab_size"],
        hidden_size=width,
        num_layers=source["n_layer"],
        num_heads=source["n_head"],
        num_kv_heads=source["n_head"],
        head_dim=width // source["n_head"],
        intermediate_size=source.get("n_inner") or 4 * width,
        max_positions=source["n_positions"],
        norm_eps=source["layer_norm_epsilon"],
        activation=source["activation_function"],
        hidden_dropout=source["resid_pdrop"],
        attention_dropout=source["attn_pdrop"],
        initializer_range=source["initializer_range"],
        tie_word_embeddings=source.get("tie_word_embeddings", True),
    )


def write(config: backbones.BackboneConfig) -> dict:
    """Inverts `read`."""
    return {
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_embd": config.hidden_size,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": config.intermediate_size,
        "n_positions": config.max_positions,
        "layer_norm_epsilon": config.norm_eps,
        "activation_function": config.activation,
        "resid_pdrop": config.hidden_dropout,
        "embd_pdrop": config.hidden_dropout,
        "attn_pdrop": config.attention_dropout,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def tensors(config: backbones.BackboneConfig) -> list[Tensor]:
    """Lists every parameter beside its name and shape in the file.

    GPT-2 stores matrices as (in, out), as we do: nothing is transposed.
    """
    width, inner = config.hidden_size, config.intermediate_size
    shapes = {
        ("embeddings", "word", "embedding"): ("wte.weight", (config.vocab_size, width)),
        ("embeddings", "position", "embedding"): ("wpe.weight", (config.max_positions, width)),
    }
    norms = {
        ("layers", "attention_norm"): "h.{}.ln_1",
        ("layers", "mlp_norm"): "h.{}.ln_2",
        ("final_norm",): "ln_f",
    }
    for path, name in norms.items():
        shapes[*path, "scale"] = (f"{name}.weight", (width,))
        shapes[*path, "bias"] = (f"{name}.bias", (width,))
    matrices = {
        ("attention", "qkv"): ("attn.c_attn", width, 3 * width),
        ("attention", "output"): ("attn.c_proj", width, width),
        ("mlp", "up"): ("mlp.c_fc", width, inner),
        ("mlp", "down"): ("mlp.c_proj", inner, width),
    }
    for path, (name, rows, columns) in matrices.items():
        shapes["layers", *path, "kernel"] = (f"h.{{}}.{name}.weight", (rows, columns))
        shapes["layers", *path, "bias"] = (f"h.{{}}.{name}.bias", (columns,))
    return [Tensor(path, name, shape, False) for path, (name, shape) in shapes.items()]


# All that the library knows of GPT-2. Put the file into `dwa_jax/backbones/families` and its
# `FAMILY` is found; from outside, register it: from then on `backbones.load`, a run's backbone
# and exports take a folder or hub id of GPT-2's.
FAMILY = backbones.Family(
    name="gpt2",
    title="GPT-2",
    module=Gpt2,
    prefix="transformer.",
    tensors=tensors,
    ignored=(r"h\.\d+\.attn\.(bias|masked_bias)", r"lm_head\..*", r"score\..*"),
    read=read,
    write=write,
    classifier=score_classifier("GPT2ForSequenceClassification"),
)
backbones.register(FAMILY)
