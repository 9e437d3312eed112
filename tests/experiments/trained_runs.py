"""Small trained runs of each family, made without training: random weights, factors, heads."""

from pathlib import Path

import jax
import numpy as np

from dwa_jax import backbones, data, heads, lora
from dwa_jax.finetune import saved
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.model import load_model
from dwa_jax.finetune.setup import make_tasks

FAMILIES = tuple(backbones.FAMILIES)
TEXTS = [
    "EUR/USD jumps after ECB",
    "the dollar falls",
    "pound",
    "yen slides against the dollar as traders weigh what the central bank may do next, again",
    "franc steady, and little else",
]
OF_THEIR_OWN = {
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 20},
    "mistral": {"sliding_window": 6},
    "modernbert": {"layer_types": ["full_attention", "sliding_attention"], "local_attention": 6},
}
THRESHOLDS = [-0.4, 0.25]


def tokenizer():
    return data.headlines.tokenizer(TEXTS, 280)


def backbone(family: str, folder: Path, layers: int = 2) -> Path:
    """Writes a random model with transformers, its tokenizer beside it."""
    import torch
    import transformers

    words = tokenizer()
    finds_last = backbones.FAMILIES[family].classifier.needs_pad_id
    sizes = {
        "vocab_size": len(words),
        "hidden_size": 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 20,
        "max_position_embeddings": 66,
        # Published decoders mostly have none.
        "pad_token_id": None if finds_last else words.pad_token_id,
    }
    if finds_last:
        sizes |= {"num_key_value_heads": 2, "head_dim": 4}
    sizes |= OF_THEIR_OWN.get(family, {})
    torch.manual_seed(3)
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(family, **sizes))
    with torch.no_grad():
        for value in model.parameters():
            value += 0.1 * torch.randn(value.shape)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def make(family: str, folder: Path, *, tasks=("regression", "classification"), rank=3, **changes):
    """Makes a run of that backbone; without a rank the trunk itself is what trained."""
    config = Config.of(
        {"backbone": str(folder), "num_classes": 3, "tasks": tasks, "eval_batch_size": 4}
        | {"lora_rank": rank, "lora_alpha": 2.0 * rank, "max_length": 32}
        # As what opens an export gives them.
        | {"clip_scores": False}
        | changes
    )
    model = load_model(config, None, jax.random.key(0))
    draw = np.random.default_rng(1)

    def random(tree, spread):
        return jax.tree.map(lambda x: spread * draw.normal(size=x.shape).astype(np.float32), tree)

    made = make_tasks(config)
    settings = model.module.config
    psi = {
        task.name: random(
            heads.init(jax.random.key(0), family, settings.hidden_size, task.outputs), 0.3
        )
        for task in made
    }
    if model.adapter is not None:
        adapter = lora.replace_factors(model.adapter, random(model.adapter.factors, 0.3))
        theta, frozen = {"lora": adapter.factors}, {"params": model.params}
    else:
        theta, frozen = {"params": model.params}, {}
    return saved.Trained(
        config=config,
        module=model.module,
        tokenizer=model.tokenizer,
        pooling=model.pooling,
        lora_scale=model.lora_scale,
        theta=theta,
        frozen=frozen,
        psi=psi,
        tasks=made,
        thresholds=THRESHOLDS,
        predictions=None,
        summary={
            "thresholds": THRESHOLDS,
            "predictions": "validation",
            "validation": {
                "mse": 0.25,
                "accuracy": 0.5,
                "accuracy_by_class": [0.5, None, 0.1],
                "confusion": [[1, 0, 1], [0, 0, 0], [1, 2, 1]],
            },
            "test": None,
            "best_epoch": 1,
            "epochs": 2,
            "monitor": "mse",
        },
        metrics=[
            {"kind": "step", "step": step, "weight_regression": 0.5 + step / 1000}
            for step in range(1, 101)
        ],
        folder=folder,
        digests=model.digests,
    )
