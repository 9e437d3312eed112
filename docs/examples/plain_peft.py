"""A run's regression again, by torch, transformers and PEFT alone: what the run is to be held to.

    PYTHONPATH=. python docs/examples/plain_peft.py runs/mine

The same rows, splits, order of batches, first factors (U V = 0), rates, schedule, clipping and
choice of the best epoch as the run's; one loss, the mean squared error, and no weighting. Prints
the first step's loss and the metrics of validation and test. Needs the extra `benchmark`.
"""

import json
import math
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import peft
import torch
import transformers

from dwa_jax import backbones, metrics
from dwa_jax.finetune import run, run_folder
from dwa_jax.finetune.config import Config
from dwa_jax.finetune.corpus import read_corpus


def build(config: Config, prepared, rank: int) -> torch.nn.Module:
    """Makes the classifier with one output, zero at first, and the run's own first factors."""
    model, _, setup, _ = prepared
    settings = model.module.config
    whole = transformers.AutoModelForSequenceClassification.from_pretrained(
        config.backbone, num_labels=1, pad_token_id=model.tokenizer.pad_token_id
    )
    factors = jax.tree.map(np.asarray, setup.state.theta["lora"])
    wanted = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=rank,
        lora_alpha=round(rank * model.lora_scale),
        lora_dropout=config.lora_dropout if config.dropout else 0.0,
        target_modules=backbones.peft.target_modules(settings, factors),
        modules_to_save=["score"],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of what PEFT calls in transformers
        wrapped = peft.get_peft_model(whole, wanted)
    named = backbones.peft.to_peft(settings, factors)
    named["base_model.model.score.weight"] = np.zeros((1, settings.hidden_size), np.float32)
    found = peft.set_peft_model_state_dict(
        wrapped, {name: torch.tensor(value) for name, value in named.items()}
    )
    assert not found.unexpected_keys, found.unexpected_keys
    return wrapped


def train(folder: Path) -> dict:
    """Trains as the run of a folder did, and returns what came of it."""
    path = folder / "config.json"
    config = run_folder.stored_config(path, run_folder.read_object(path)["config"])
    corpus = read_corpus(config)
    prepared = run.prepare(config, corpus)
    batches = prepared[1]
    torch.manual_seed(config.seed)
    model = build(config, prepared, config.lora_rank)
    parts = {"head": [], "factors": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parts["head" if ".score." in name else "factors"].append(parameter)
    rates = {"head": config.head_learning_rate, "factors": config.learning_rate}
    optimizer = torch.optim.AdamW(
        [{"params": parts[name], "lr": rates[name]} for name in parts],
        weight_decay=config.weight_decay,
    )
    total = len(batches["train"]) * config.epochs
    warmup = min(config.warmup_steps, max(total // 10, 1))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            (step + 1) / warmup
            if step < warmup
            else (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1))) / 2
        ),
    )
    first, best = None, None
    for epoch in range(config.epochs):
        model.train()
        for batch in batches["train"].epoch(epoch):
            score, mask = torch.tensor(batch["score"]), torch.tensor(batch["score_mask"])
            loss = ((_scores(model, batch) - score) ** 2 * mask).sum() / mask.sum()
            first = loss.item() if first is None else first
            optimizer.zero_grad()
            loss.backward()
            if config.clip_norm:
                torch.nn.utils.clip_grad_norm_(parts["factors"], config.clip_norm)
            optimizer.step()
            schedule.step()
        found = {
            split: _evaluate(model, corpus, batches, split) for split in ("validation", "test")
        }
        print(json.dumps({"epoch": epoch + 1, **found}), flush=True)
        if best is None or found["validation"]["mse"] < best["validation"]["mse"]:
            best = {"best_epoch": epoch + 1, **found}
    return {"first_loss": first, **best}


def _scores(model, batch):
    return model(
        input_ids=torch.tensor(batch["input_ids"], dtype=torch.long),
        attention_mask=torch.tensor(batch["attention_mask"], dtype=torch.long),
    ).logits[:, 0]


@torch.no_grad()
def _evaluate(model, corpus, batches, split):
    model.eval()
    scores = corpus.rows[split].scores
    predicted = np.zeros_like(scores)
    for batch in batches[split].sequential():
        real = batch["row"] >= 0
        predicted[batch["row"][real]] = _scores(model, batch).numpy()[real]
    nothing = np.zeros(len(scores), int)
    found = metrics.evaluate(scores, predicted, nothing, nothing, 1)
    return {name: found[name] for name in ("mse", "r2", "pearson")}


if __name__ == "__main__":
    print(json.dumps(train(Path(sys.argv[1]))))
