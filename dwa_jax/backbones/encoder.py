"""Encoders: bidirectional attention, learned positions, norms after each block.

Sources: Vaswani et al. 2017, "Attention Is All You Need"; Devlin et al. 2018, "BERT".

Axes: B batch, T tokens, D width.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dwa_jax.backbones.layers import MLP, Attention, Block, Embedding, LayerNorm, Trunk, at


def positions_from_pad(input_ids: jax.Array, pad_token_id: int) -> jax.Array:
    """Numbers the tokens that are not padding from `pad_token_id + 1` on.

    Args:
      input_ids: (B, T) integers.
      pad_token_id: the id that is skipped; padding itself gets this position.

    Returns:
      (B, T) integers.
    """
    real = (input_ids != pad_token_id).astype(jnp.int32)
    return jnp.cumsum(real, axis=1) * real + pad_token_id


class EncoderEmbeddings(Block):
    """The sum of word, position and, if any, token type embeddings, normalised."""

    @nn.compact
    def __call__(self, input_ids: jax.Array, deterministic: bool = True) -> jax.Array:
        c = self.config
        rows = c.max_positions + c.unused_positions
        if c.positions_from_pad:
            positions = positions_from_pad(input_ids, c.unused_positions - 1)
        else:
            positions = jnp.arange(input_ids.shape[1])[None]
        word = self.part(Embedding, c.vocab_size, name="word")(input_ids)
        x = word
        if c.type_vocab_size:
            # One text a row, so every token is of type 0.
            kinds = self.part(Embedding, c.type_vocab_size, name="token_type")
            x = x + jnp.broadcast_to(kinds(jnp.zeros((1, 1), int)), word.shape)
        place = self.part(Embedding, rows, name="position")(positions)
        x = x + jnp.broadcast_to(place, word.shape)
        x = self.part(LayerNorm, name="norm")(x)
        return self.dropout(x, c.hidden_dropout, deterministic)


class EncoderLayer(Block):
    """One layer: attention and feed-forward, each added to its input and normalised."""

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: Any,
        deterministic: bool = True,
        positions: jax.Array | None = None,
    ) -> tuple[jax.Array, None]:
        mask, lengths = context
        rate = self.config.hidden_dropout
        attend = self.part(Attention, name="attention")
        update = attend(x, mask, None, deterministic, positions, lengths)
        x = at(x, positions) + self.dropout(update, rate, deterministic)
        x = self.part(LayerNorm, name="attention_norm")(x)
        update = self.part(MLP, name="mlp")(x, deterministic)
        x = x + self.dropout(update, rate, deterministic)
        return self.part(LayerNorm, name="mlp_norm")(x), None


class Encoder(Trunk):
    """A trunk of such layers.

    Args:
      config: `BackboneConfig` of a family of encoders.
      dtype: what the trunk computes in.
      param_dtype: what its parameters are held in.
      lora_dropout: rate on the input of low-rank updates.
      platform: what its programs are for, as in `backbones.build`.
      unroll: layers a step of the scan, all of them at most; 0: all of up to 12 on a CPU
        (without remat), else 1.
      remat: whether the backward pass recomputes each layer.
      right_padded: as in `backbones.build`.
      single: a trunk of one layer whose parameters are not stacked, for `top`.

    `module.apply({"params": params}, input_ids, attention_mask, deterministic=True)`
    takes (B, T) integers and 0/1 and returns (B, T, D) last hidden states; with
    `deterministic=False` it needs `rngs={"dropout": key}`. Low-rank updates come in
    the collection "lora": {"u", "v"} under the path of a matrix.

    Raises:
      ValueError: more tokens than `config.max_positions`, or shapes that differ.
    """

    def setup(self) -> None:
        self.embeddings = self.part(EncoderEmbeddings)
        self.layers = self.stack(EncoderLayer)

    def embed(self, input_ids: jax.Array, deterministic: bool) -> jax.Array:
        return self.embeddings(input_ids, deterministic)

    def context(self, attention_mask: jax.Array) -> Any:
        return attention_mask[:, None, :], self.lengths(attention_mask)

    def finish(self, x: jax.Array) -> jax.Array:
        return x
