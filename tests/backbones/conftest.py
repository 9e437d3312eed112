"""Small random checkpoints, written by transformers and read by us.

Axes: B batch, T tokens, D width.
"""

import functools
import types

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from dwa_jax import backbones  # noqa: E402

VOCAB, LAYERS, POSITIONS, TOKENS = 61, 3, 24, 11
ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert")
DECODERS = ("llama", "llama_biased", "llama_scaled", "qwen2", "qwen3", "mistral")
ALL = (*ENCODERS, *DECODERS, "modernbert")
ROPE = {"rope_type": "default", "rope_theta": 700.0}
# Of the four waves in a head one is kept, one stretched in part, two wholly.
SCALED = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED |= {"rope_theta": 700.0, "original_max_position_embeddings": 64}


def torch_config(name):
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "max_position_embeddings": POSITIONS,
        "attn_implementation": "eager",
    }
    if name == "distilbert":
        theirs = {"num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"}
        theirs |= {"hidden_size": "dim", "intermediate_size": "hidden_dim"}
        sizes = {theirs.get(field, field): value for field, value in sizes.items()}
    if name in ("roberta", "xlm-roberta", "camembert"):
        # Two rows more: the pad id's and the one below it are no token's.
        sizes["max_position_embeddings"] += 2
    if name in DECODERS:
        sizes |= {"num_key_value_heads": 2, "rope_parameters": ROPE}
    options = {
        "llama_biased": {
            "attention_bias": True,
            "mlp_bias": True,
            "head_dim": 6,
            "num_key_value_heads": 1,
            "rope_parameters": ROPE | {"rope_type": "linear", "factor": 2.0},
        },
        "llama_scaled": {"rope_parameters": SCALED},
        "qwen2": {"tie_word_embeddings": True},
        "qwen3": {"head_dim": 6},
        "mistral": {"sliding_window": 5},
        # Global and local in turn; a window of 5 of the 11 tokens.
        "modernbert": {
            "num_hidden_layers": 4,
            "local_attention": 4,
            "layer_types": ["full_attention", "sliding_attention"] * 2,
            "pad_token_id": 0,
            "rope_parameters": {
                "full_attention": ROPE,
                "sliding_attention": ROPE | {"rope_theta": 90.0},
            },
        },
    }.get(name, {})
    return transformers.AutoConfig.for_model(name.partition("_")[0], **sizes | options)


def _randomise(model):
    """Moves every parameter off its special start: biases off 0, norms off 1."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in model.parameters():
            value += 0.15 * torch.randn(value.shape, generator=generator)


def _batch(pad):
    generator = np.random.default_rng(3)
    ids = generator.integers(3, VOCAB, (4, TOKENS))
    mask = np.ones((4, TOKENS), np.int32)
    mask[1, 7:] = 0  # padding on the right
    mask[2, :4] = 0  # on the left
    ids = np.where(mask == 1, ids, pad).astype(np.int32)
    mask[3, [2, 5, 6]] = 0  # holes, where real tokens are
    return ids, mask


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """name -> folder, torch trunk, our module and params, and a batch with ragged masks."""
    cache = {}

    def get(name):
        if name not in cache:
            # With one kind of head or the other, which loading must leave out.
            config, kind = torch_config(name), "ForSequenceClassification"
            if name in ("llama", "qwen2", "distilbert"):
                kind = "ForMaskedLM" if name in ENCODERS else "ForCausalLM"
            family = type(config).__name__.removesuffix("Config")
            model = getattr(transformers, family + kind)(config).eval()
            _randomise(model)
            folder = tmp_path_factory.mktemp(name)
            model.save_pretrained(folder)
            module, params = backbones.load(folder)
            ids, mask = _batch(model.config.pad_token_id or 0)
            cache[name] = types.SimpleNamespace(
                name=name,
                folder=folder,
                whole=model,
                trunk=model.base_model,
                module=module,
                params=params,
                ids=ids,
                mask=mask,
            )
            # One compilation serves every test that keeps to the batch's shape.
            cache[name].apply = functools.partial(jax.jit(module.apply), {"params": params})
            cache[name].hidden = np.asarray(cache[name].apply(ids, mask))
        return cache[name]

    return get


@pytest.fixture(params=ALL)
def trunk(request, checkpoint):
    return checkpoint(request.param)


@pytest.fixture(params=ENCODERS)
def encoder(request, checkpoint):
    return checkpoint(request.param)


@pytest.fixture(params=DECODERS)
def decoder(request, checkpoint):
    return checkpoint(request.param)


@pytest.fixture(params=(*DECODERS, "modernbert"))
def relative(request, checkpoint):
    """Trunks whose positions are relative."""
    return checkpoint(request.param)


@pytest.fixture(params=("bert", "qwen3", "modernbert"))
def one_of_each(request, checkpoint):
    return checkpoint(request.param)


@pytest.fixture(scope="session")
def lora():
    """trunk, blocks -> a "lora" tree of random factors for all matrices of those blocks."""

    def make(trunk, blocks, rank=3):
        generator = np.random.default_rng(5)
        tree = {}
        for block in blocks:
            for name, leaves in trunk.params["layers"][block].items():
                if "kernel" not in leaves:
                    continue
                kernel = leaves["kernel"]
                layers, into, out = kernel.shape
                tree.setdefault(block, {})[name] = {
                    "u": 0.2 * generator.normal(size=(layers, into, rank)).astype(np.float32),
                    "v": 0.2 * generator.normal(size=(layers, rank, out)).astype(np.float32),
                }
        return {"layers": tree}

    return make
