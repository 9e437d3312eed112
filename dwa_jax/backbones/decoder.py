"""Decoders: causal attention, rotary positions, norms before each block.

Source: Touvron et al. 2023, "LLaMA".

Axes: B batch, T tokens, D width.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dwa_jax.backbones.layers import (
    MLP,
    Attention,
    Block,
    Embedding,
    RMSNorm,
    Trunk,
    at,
    rotary_angles,
)


class DecoderEmbeddings(Block):
    """Word embeddings; positions enter each layer's attention instead."""

    @nn.compact
    def __call__(self, input_ids: jax.Array) -> jax.Array:
        return self.part(Embedding, self.config.vocab_size, name="word")(input_ids)


class DecoderLayer(Block):
    """One layer: attention and feed-forward, each on a normalised copy of its input."""

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: Any,
        deterministic: bool = True,
        positions: jax.Array | None = None,
    ) -> tuple[jax.Array, None]:
        mask, angles, lengths = context
        normed = self.part(RMSNorm, name="attention_norm")(x)
        attend = self.part(Attention, name="attention")
        x = at(x, positions) + attend(normed, mask, angles, deterministic, positions, lengths)
        normed = self.part(RMSNorm, name="mlp_norm")(x)
        return x + self.part(MLP, gated=True, name="mlp")(normed, deterministic), None


class Decoder(Trunk):
    """A trunk of such layers; the hidden states are those after the final norm.

    Args:
      config: `BackboneConfig` of a family of decoders.
      dtype: what the trunk computes in.
      param_dtype: what its parameters are held in.
      lora_dropout: rate on the input of low-rank updates.
      platform: what its programs are for, as in `backbones.build`.
      unroll: layers a step of the scan, all of them at most; 0: all of up to 12 on a CPU
        (without remat), else 1.
      remat: whether the backward pass recomputes each layer.
      right_padded: as in `backbones.build`.
      single: a trunk of one layer whose parameters are not stacked, for `top`.

    Called as `Encoder` is. Rotary positions are relative, so padding on the left
    shifts nothing.

    Raises:
      ValueError: more tokens than `config.max_positions`, or shapes that differ.
    """

    def setup(self) -> None:
        self.embeddings = self.part(DecoderEmbeddings)
        self.layers = self.stack(DecoderLayer)
        self.final_norm = self.part(RMSNorm)

    def embed(self, input_ids: jax.Array, deterministic: bool) -> jax.Array:
        return self.embeddings(input_ids)

    def context(self, attention_mask: jax.Array) -> Any:
        c, tokens = self.config, attention_mask.shape[1]
        causal = jnp.tril(jnp.ones((tokens, tokens), bool))
        if c.window is not None:
            causal &= ~jnp.tril(jnp.ones((tokens, tokens), bool), -c.window)
        mask = causal[None] & attention_mask[:, None, :]
        angles = rotary_angles(tokens, c.head_dim, c.rope_theta, self.dtype, c.rope_scaling)
        return mask, angles, self.lengths(attention_mask, causal=True)

    def finish(self, x: jax.Array) -> jax.Array:
        return self.final_norm(x)
