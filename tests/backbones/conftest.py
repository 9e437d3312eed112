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
ENCODERS, DECODERS = ("bert", "roberta"), ("llama", "llama_biased", "qwen2")
ALL = (*ENCODERS, *DECODERS)


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
    rope = {"rope_type": "default", "rope_theta": 700.0}
    if name == "bert":
        return transformers.BertConfig(**sizes)
    if name == "roberta":
        # Two rows more: the pad id's and the one below it are no token's.
        sizes["max_position_embeddings"] += 2
        return transformers.RobertaConfig(**sizes)
    if name == "llama":
        return transformers.LlamaConfig(**sizes, num_key_value_heads=2, rope_parameters=rope)
    if name == "llama_biased":
        options = {"attention_bias": True, "mlp_bias": True, "head_dim": 6}
        return transformers.LlamaConfig(**sizes, num_key_value_heads=1, **options)
    return transformers.Qwen2Config(
        **sizes, num_key_value_heads=2, rope_parameters=rope, tie_word_embeddings=True
    )


TORCH_CLASSES = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "llama": "LlamaForCausalLM",
    "llama_biased": "LlamaForSequenceClassification",
    "qwen2": "Qwen2ForCausalLM",
}


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
            model = getattr(transformers, TORCH_CLASSES[name])(torch_config(name)).eval()
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


@pytest.fixture(params=("bert", "qwen2"))
def one_of_each(request, checkpoint):
    return checkpoint(request.param)


@pytest.fixture(scope="session")
def lora():
    """trunk, targets -> a "lora" tree of random factors for those matrices."""

    def make(trunk, targets, rank=3):
        generator = np.random.default_rng(5)
        tree = {}
        for block, names in targets.items():
            for name in names:
                kernel = trunk.params["layers"][block][name]["kernel"]
                layers, into, out = kernel.shape
                tree.setdefault(block, {})[name] = {
                    "u": 0.2 * generator.normal(size=(layers, into, rank)).astype(np.float32),
                    "v": 0.2 * generator.normal(size=(layers, rank, out)).astype(np.float32),
                }
        return {"layers": tree}

    return make
