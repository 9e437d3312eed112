"""The definitive test: twenty steps beside an independent PyTorch implementation.

Both in float64, because Adam blows up rounding noise where a gradient is truly zero.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from torch import nn

from dwa_jax import backbones, lora, losses, training, trunk, weighting
from tests import torch_reference

pytestmark = pytest.mark.slow

K, STEPS, WIDTH = 5, 20, 32
RATES = (1e-3, 2e-3, 1e-3)
ALPHA, BETA = 0.3, 0.7


def _batches(rng, vocab):
    batches = []
    for _ in range(STEPS):
        lengths = rng.integers(3, 11, 6)
        mask = (np.arange(10) < lengths[:, None]).astype(np.int32)
        ids = np.where(mask, rng.integers(3, vocab, mask.shape), 1).astype(np.int32)
        category = rng.integers(0, K, 6).astype(np.int32)
        # Some steps lack classes, some rows a label.
        category[: rng.integers(0, 6)] = 2
        batches.append(
            {
                "input_ids": ids,
                "attention_mask": mask,
                "score": rng.uniform(-1, 1, 6),
                "score_mask": (rng.random(6) < 0.8).astype(float),
                "category": category,
                "category_mask": (rng.random(6) < 0.8).astype(float),
            }
        )
        batches[-1]["score_mask"][0] = batches[-1]["category_mask"][1] = 1
    return batches


def _folder(path, family):
    torch.manual_seed(0)
    shape = {
        "vocab_size": 64,
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 20,
    }
    if family == "roberta":
        config = transformers.RobertaConfig(
            **shape, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=1
        )
        model = transformers.RobertaModel(config, add_pooling_layer=False)
    else:
        config = transformers.Qwen2Config(**shape, num_key_value_heads=2, pad_token_id=1)
        model = transformers.Qwen2Model(config)
    model.save_pretrained(path)
    return model.double()


class _Head(nn.Module):
    def __init__(self, parameters):
        super().__init__()
        self.layers = nn.ModuleList()
        for name in ("dense", "out_proj", "score"):
            if name in parameters:
                kernel = torch.tensor(np.asarray(parameters[name]["kernel"]))
                bias = parameters[name].get("bias")
                layer = nn.Linear(*kernel.shape, bias=bias is not None).double()
                layer.weight.data = kernel.T.clone()
                if bias is not None:
                    layer.bias.data = torch.tensor(np.asarray(bias))
                self.layers.append(layer)

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        return self.layers[-1](x)


_TORCH_NAMES = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def _add_low_rank(model, factors, scale):
    """Wraps every target layer; returns [(factor's path, layer index, parameter)]."""
    found = []
    for block, modules in factors["layers"].items():
        for module, pair in modules.items():
            for index, layer in enumerate(model.layers):
                parent = layer.get_submodule(_TORCH_NAMES[module].split(".")[0])
                child = _TORCH_NAMES[module].split(".")[1]
                u, v = (torch.tensor(np.asarray(pair[name][index])) for name in "uv")
                wrapped = torch_reference.LowRankLinear(getattr(parent, child), u, v, scale)
                setattr(parent, child, wrapped)
                path = ("layers", block, module)
                found += [((*path, "u"), index, wrapped.u), ((*path, "v"), index, wrapped.v)]
    return found


@pytest.mark.parametrize("family", ["roberta", "qwen2"])
def test_twenty_steps_agree_with_pytorch(family, tmp_path):
    model = _folder(tmp_path, family)
    batches = _batches(np.random.default_rng(1), 64)
    with jax.enable_x64(True):
        module, params = backbones.load(tmp_path, dtype=jnp.float64, param_dtype=jnp.float64)
        adapter = None
        if family == "qwen2":
            adapter = lora.init(jax.random.key(1), params, rank=4, alpha=6, dtype=jnp.float64)
            # A V of zeros would leave U without a gradient for the first step.
            adapter = lora.replace_factors(
                adapter, jax.tree.map(lambda x: x + 0.01, adapter.factors)
            )
        theta, frozen = trunk.split_parameters(params, adapter)
        tasks = [
            training.Task("regression", 1, losses.mse_loss(), "score_mask"),
            training.Task(
                "classification", K, losses.imbalance_loss(alpha=ALPHA, beta=BETA), "category_mask"
            ),
        ]
        method = weighting.get("dwa", 2)
        optimizers = training.make_optimizers(
            total_steps=50,
            learning_rate=RATES[0],
            head_learning_rate=RATES[1],
            phi_learning_rate=RATES[2],
            warmup_steps=4,
        )
        state = training.init_state(
            jax.random.key(2),
            theta,
            frozen,
            family=family,
            width=WIDTH,
            tasks=tasks,
            weighting=method,
            optimizers=optimizers,
            num_classes=K,
        )
        first = jax.device_get(state._replace(key=None))
        step = training.make_step(
            module,
            tasks,
            method,
            optimizers,
            training.StepOptions(
                num_classes=K,
                pooling="first" if family == "roberta" else "last",
                lora_scale=1.0 if adapter is None else adapter.scale,
            ),
        )
        records = []
        for batch in batches:
            state, values = step(state, batch)
            records.append(jax.device_get(values))
        last = jax.device_get(state._replace(key=None))

    variables = first.phi["weighting"]
    network = {
        name: torch.tensor(np.asarray(variables[layer][kind]), requires_grad=True)
        for name, layer, kind in (
            ("w1", "fc1", "kernel"),
            ("b1", "fc1", "bias"),
            ("w2", "fc2", "kernel"),
            ("b2", "fc2", "bias"),
        )
    }
    heads = {name: _Head(first.psi[name]) for name in ("regression", "classification")}
    if adapter is None:
        names, shared = zip(*model.named_parameters(), strict=True)
        decayed = [i for i, p in enumerate(shared) if p.ndim == 2]
        pool = lambda hidden, mask: hidden[:, 0]  # noqa: E731
    else:
        model.requires_grad_(False)
        places = _add_low_rank(model, first.theta["lora"], adapter.scale)
        shared = [parameter for _, _, parameter in places]
        decayed = range(len(shared))
        pool = lambda hidden, mask: hidden[torch.arange(len(mask)), mask.sum(1) - 1]  # noqa: E731
    expected = torch_reference.train(
        lambda ids, mask: model(input_ids=ids, attention_mask=mask).last_hidden_state,
        pool,
        heads,
        network,
        list(shared),
        decayed,
        [
            {
                name: torch.tensor(value).long() if value.dtype == np.int32 else torch.tensor(value)
                for name, value in batch.items()
            }
            for batch in batches
        ],
        rates=RATES,
        clip=1.0,
        decay=0.01,
        warmup=4,
        total=50,
        alpha=ALPHA,
        beta=BETA,
        alpha_max=2.0,
        beta_max=2.0,
    )

    for ours, theirs in zip(records, expected, strict=True):
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[name], value, rtol=1e-6, err_msg=name)

    def close(ours, theirs, name):
        theirs = theirs.detach().numpy()
        difference = np.linalg.norm(np.asarray(ours) - theirs)
        # Key biases never move, their gradient being truly zero: rounding noise on both sides.
        assert difference <= 1e-6 * np.linalg.norm(theirs) + 1e-14, name

    if adapter is None:
        ours = backbones.to_huggingface(module.config, last.theta["params"])
        for name, parameter in zip(names, shared, strict=True):
            close(ours[name], parameter, name)
        assert set(ours) == set(names)
    else:
        for path, index, parameter in places:
            leaf = last.theta["lora"]
            for key in path:
                leaf = leaf[key]
            close(leaf[index], parameter, "/".join(path))
        # Frozen leaves are bit for bit what was loaded.
        for before, after in zip(
            jax.tree.leaves(first.frozen), jax.tree.leaves(last.frozen), strict=True
        ):
            np.testing.assert_array_equal(before, after)
    for task, head in heads.items():
        for layer, kept in zip(head.layers, last.psi[task].values(), strict=True):
            close(kept["kernel"].T, layer.weight, task)
            if "bias" in kept:
                close(kept["bias"], layer.bias, task)
    fc = last.phi["weighting"]
    for name, leaf in (("w1", fc["fc1"]["kernel"]), ("w2", fc["fc2"]["kernel"])):
        close(leaf, network[name], name)
