"""The files of decoders laid out as the first open one was: configuration and tensors' names.

No arrays, so no axis letters.
"""

from collections.abc import Callable, Mapping

from dwa_jax.backbones import fields, names
from dwa_jax.backbones.config import BackboneConfig, BackboneError
from dwa_jax.backbones.rotary import Interpolation, Scaling
from dwa_jax.messages import shown

MATRICES = {
    ("attention", "query"): ("self_attn.q_proj", "query", "hidden"),
    ("attention", "key"): ("self_attn.k_proj", "key", "hidden"),
    ("attention", "value"): ("self_attn.v_proj", "key", "hidden"),
    ("attention", "output"): ("self_attn.o_proj", "hidden", "query"),
    ("mlp", "gate"): ("mlp.gate_proj", "inner", "hidden"),
    ("mlp", "up"): ("mlp.up_proj", "inner", "hidden"),
    ("mlp", "down"): ("mlp.down_proj", "hidden", "inner"),
}
NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
QK_NORMS = {"query_norm": "self_attn.q_norm", "key_norm": "self_attn.k_norm"}

# Whole names of tensors that are no part of a trunk.
REST = (
    r"lm_head\..*",
    r"score\..*",
    r"qa_outputs\..*",
    r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",
)

ScalingReader = Callable[[dict], Scaling]


def linear_rope(source: dict) -> Scaling:
    """Reads the rope type "linear"."""
    return Interpolation("linear", float(fields.number(source, "factor", 1.0)))


def read(
    source: dict,
    *,
    head_dim: int | None = None,
    qkv_bias: bool = False,
    output_bias: bool = False,
    mlp_bias: bool = False,
    qk_norm: bool = False,
    window: int | None = None,
    rope_types: Mapping[str, ScalingReader] | None = None,
) -> BackboneConfig:
    """Reads what these families' files have in common; see `BackboneConfig.from_huggingface`.

    Args:
      source: the parsed file.
      head_dim: where the file has none; None: what the heads share of the width.
      qkv_bias: as in `BackboneConfig`, and so the other biases, `qk_norm` and `window`.
      output_bias: likewise.
      mlp_bias: likewise.
      qk_norm: likewise.
      window: likewise.
      rope_types: rope type in the file -> reader of its parameters, beside "default".
    """
    hidden_size = fields.size(source, "hidden_size")
    num_heads = fields.size(source, "num_attention_heads")
    # Older files leave these two out, or null, where they follow from the others.
    derived = {
        "num_key_value_heads": num_heads,
        "head_dim": head_dim or max(1, hidden_size // num_heads),
    }
    derived |= {field: source[field] for field in derived if source.get(field) is not None}
    theta, scaling = read_rope(
        source, {"linear": linear_rope} if rope_types is None else rope_types
    )
    return BackboneConfig(
        family=source["model_type"],
        vocab_size=fields.size(source, "vocab_size"),
        hidden_size=hidden_size,
        num_layers=fields.size(source, "num_hidden_layers", most=fields.MAX_LAYERS),
        num_heads=num_heads,
        num_kv_heads=fields.size(derived, "num_key_value_heads"),
        head_dim=fields.size(derived, "head_dim"),
        intermediate_size=fields.size(source, "intermediate_size"),
        max_positions=fields.size(source, "max_position_embeddings"),
        norm_eps=fields.number(source, "rms_norm_eps", 1e-6),
        activation=source.get("hidden_act", "silu"),
        attention_dropout=fields.rate(source, "attention_dropout", 0.0),
        pad_token_id=fields.pad_token(source, None),
        rope_theta=theta,
        rope_scaling=scaling,
        window=window,
        qk_norm=qk_norm,
        qkv_bias=qkv_bias,
        output_bias=output_bias,
        mlp_bias=mlp_bias,
        initializer_range=fields.number(source, "initializer_range", 0.02),
        tie_word_embeddings=fields.flag(source, "tie_word_embeddings", False),
    )


def read_rope(source: dict, types: Mapping[str, ScalingReader]) -> tuple[float, Scaling | None]:
    """Reads the rotary embedding's base and its scaling, wherever a version writes them.

    Args:
      source: the parsed file.
      types: as `rope_types` of `read`.

    Returns:
      (theta, scaling or None).
    """
    # transformers 5 writes rope_parameters; 4 wrote rope_theta and rope_scaling.
    scaling = None
    for field in ("rope_parameters", "rope_scaling"):
        parameters = source.get(field) or {}
        if not isinstance(parameters, dict):
            raise BackboneError(f"{field} must be an object, got {shown(parameters)}")
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        if kind not in ["default", *types]:
            known = ", ".join(map(repr, ["default", *types]))
            raise BackboneError(
                f"{field}: rope type {shown(kind)!r} is not supported; one of {known}"
            )
        if parameters.get("partial_rotary_factor", 1.0) != 1.0:
            raise BackboneError(f"{field}: partial_rotary_factor other than 1 is not supported")
        if kind != "default":
            try:
                scaling = types[kind](parameters)
            except BackboneError as error:
                raise BackboneError(f"{field}: {error}") from None
    fields.refuse(source, "partial_rotary_factor", (None, 1.0))
    parameters = source.get("rope_parameters") or {}
    written = parameters if "rope_theta" in parameters else source
    return float(fields.number(written, "rope_theta", 10000.0)), scaling


def refuse_windowed_layers(source: dict) -> None:
    """Raises where some layers, but not all, would see a window alone."""
    kinds = source.get("layer_types") or ["full_attention"]
    if not isinstance(kinds, list):
        raise BackboneError(f"layer_types must be a list, got {shown(kinds)}")
    other = next((kind for kind in kinds if kind != "full_attention"), None)
    if other is not None:
        raise BackboneError(f"layer_types holds {shown(other)}; only full_attention")
    in_use = source.get("use_sliding_window") and source.get("sliding_window") is not None
    # Without layer_types, the layers from max_window_layers on are the windowed ones.
    first = source.get("max_window_layers", 28)
    if isinstance(first, bool) or not isinstance(first, int):
        raise BackboneError(f"max_window_layers must be an integer, got {shown(first)}")
    num_layers = fields.size(source, "num_hidden_layers", most=fields.MAX_LAYERS)
    if in_use and not source.get("layer_types") and first < num_layers:
        raise BackboneError(
            f"use_sliding_window with sliding_window = {shown(source['sliding_window'])} "
            "is not supported; only full attention"
        )


def write(config: BackboneConfig) -> dict:
    """Inverts `read`, but for what a family's own fields say."""
    scaling = config.rope_scaling
    rope = scaling.written() if scaling else {"rope_type": "default"}
    return {
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.intermediate_size,
        "hidden_act": config.activation,
        "pad_token_id": config.pad_token_id,
        "initializer_range": config.initializer_range,
        "tie_word_embeddings": config.tie_word_embeddings,
        "num_key_value_heads": config.num_kv_heads,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "attention_dropout": config.attention_dropout,
        # transformers 4 reads rope_theta and rope_scaling, transformers 5 rope_parameters.
        "rope_theta": config.rope_theta,
        **({"rope_scaling": rope} if scaling else {}),
        "rope_parameters": {"rope_theta": config.rope_theta, **rope},
        "head_dim": config.head_dim,
    }


def tensors(config: BackboneConfig) -> list[names.Tensor]:
    """Lists the trunk's tensors.

    Args:
      config: the trunk's configuration.

    Returns:
      One `Tensor` a leaf of the parameter tree.
    """
    width = config.hidden_size
    found = [names.table(("embeddings", "word"), "embed_tokens", config.vocab_size, width)]
    found += names.matrices(config, "layers.{}", MATRICES)
    for ours, module in NORMS.items():
        found += names.norm(("layers", ours), f"layers.{{}}.{module}", width, bias=False)
    if config.qk_norm:
        for ours, module in QK_NORMS.items():
            path, name = ("layers", "attention", ours), f"layers.{{}}.{module}"
            found += names.norm(path, name, config.head_dim, bias=False)
    return found + names.norm(("final_norm",), "norm", width, bias=False)
