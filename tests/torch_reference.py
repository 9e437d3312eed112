"""The method once more, in plain PyTorch: autograd, three backward passes, its own Adam.

Written from the equations, not from the library's code: full-precision loops over
parameters, no vjp, no Gramian, no optax. Only the trunk is Hugging Face's.
"""

import math

import torch
from torch import nn


class LowRankLinear(nn.Module):
    """x W^T + b + scale * (x U) V around a frozen linear layer."""

    def __init__(self, linear, u, v, scale):
        super().__init__()
        self.linear, self.scale = linear, scale
        self.u, self.v = nn.Parameter(u), nn.Parameter(v)

    def forward(self, x):
        return self.linear(x) + self.scale * (x @ self.u) @ self.v


class Adam:
    """AdamW as Loshchilov and Hutter print it, optionally after clipping the global norm."""

    def __init__(self, parameters, decay=0.0, decayed=(), clip=None):
        self.parameters, self.decay, self.clip = parameters, decay, clip
        self.decayed = set(decayed)
        self.m = [torch.zeros_like(p) for p in parameters]
        self.v = [torch.zeros_like(p) for p in parameters]
        self.t = 0

    def step(self, gradients, rate):
        self.t += 1
        if self.clip:
            norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
            gradients = [g * min(1.0, self.clip / norm) for g in gradients]
        with torch.no_grad():
            for i, (p, g) in enumerate(zip(self.parameters, gradients, strict=True)):
                self.m[i] = 0.9 * self.m[i] + 0.1 * g
                self.v[i] = 0.999 * self.v[i] + 0.001 * g**2
                m = self.m[i] / (1 - 0.9**self.t)
                v = self.v[i] / (1 - 0.999**self.t)
                update = m / (v.sqrt() + 1e-8)
                if i in self.decayed:
                    update = update + self.decay * p
                p -= rate * update


def cosine_with_warmup(step, peak, warmup, total):
    """Linear from 0 to the peak, then a half cosine down to 0."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * min((step - warmup) / (total - warmup), 1)))


def imbalance_loss(logits, category, mask, alpha, beta):
    """Equations 7 to 9, class by class."""
    rows = [i for i in range(len(category)) if mask[i] > 0]
    total = logits.new_zeros(())
    for k in range(logits.shape[1]):
        mine = [i for i in rows if category[i] == k]
        if not mine:
            continue
        p = len(mine) / len(rows)
        mean = sum(-torch.log_softmax(logits[i], 0)[k] for i in mine) / len(mine)
        total = total + p ** (-beta) * (p * mean - alpha * math.log(p))
    return total


def train(
    trunk,
    pool,
    heads,
    network,
    shared,
    shared_decayed,
    batches,
    *,
    rates,
    clip,
    decay,
    warmup,
    total,
    alpha,
    beta,
    alpha_max,
    beta_max,
):
    """Trains with DWA for one step a batch; returns one record a step.

    Args:
      trunk: module of (input_ids, attention_mask) -> last hidden states.
      pool: (hidden, attention_mask) -> (B, D).
      heads: {"regression", "classification"} modules of (B, D).
      network: {"w1", "b1", "w2", "b2"}: FC1 and FC2.
      shared: list of the shared trainable parameters.
      shared_decayed: indices of those that decay.
      batches: dicts of tensors.
      rates: peak learning rates of shared, heads and phi.
      clip: bound of the shared gradient's norm.
      decay: of the weights of shared and heads.
      warmup: steps.
      total: steps of the schedule.
      alpha: at the start.
      beta: at the start.
      alpha_max: its bound.
      beta_max: its bound.
    """
    head_parameters = [p for head in heads.values() for p in head.parameters()]
    decayed_heads = [i for i, p in enumerate(head_parameters) if p.ndim == 2]
    alpha = torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
    beta = torch.tensor(beta, dtype=torch.float64, requires_grad=True)
    phi = [alpha, beta, *network.values()]
    optimizers = [
        Adam(shared, decay, shared_decayed, clip),
        Adam(head_parameters, decay, decayed_heads),
        Adam(phi),
    ]
    records = []
    for step, batch in enumerate(batches):
        pooled = pool(trunk(batch["input_ids"], batch["attention_mask"]), batch["attention_mask"])
        prediction = heads["regression"](pooled)[:, 0]
        logits = heads["classification"](pooled)
        scored = batch["score_mask"] > 0
        loss_r = ((prediction - batch["score"]) ** 2)[scored].mean()
        loss_c = imbalance_loss(logits, batch["category"], batch["category_mask"], alpha, beta)

        def norm(loss):
            gradients = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
            return math.sqrt(sum(float((g**2).sum()) for g in gradients if g is not None))

        n_r, n_c = norm(loss_r), norm(loss_c)
        balance = torch.tensor([n_c, n_r], dtype=torch.float64) / (n_r + n_c)
        inputs = balance * torch.stack([loss_r, loss_c]).detach()
        hidden = torch.relu(inputs @ network["w1"] + network["b1"])
        weights = torch.softmax(hidden @ network["w2"] + network["b2"], 0)
        loss = balance[0] * weights[0] * loss_r + balance[1] * weights[1] * loss_c
        everything = [*shared, *head_parameters, *phi]
        gradients = torch.autograd.grad(loss, everything)
        records.append(
            {
                "loss_regression": loss_r.item(),
                "loss_imbalance": loss_c.item(),
                "gradient_norm_regression": n_r,
                "gradient_norm_classification": n_c,
                "lambda_regression": balance[0].item(),
                "lambda_classification": balance[1].item(),
                "weight_regression": weights[0].item(),
                "weight_classification": weights[1].item(),
                "alpha": alpha.item(),
                "beta": beta.item(),
            }
        )
        a, b = len(shared), len(shared) + len(head_parameters)
        parts = (gradients[:a], gradients[a:b], gradients[b:])
        for index, (optimizer, part) in enumerate(zip(optimizers, parts, strict=True)):
            rate = rates[index]
            if index < 2:
                rate = cosine_with_warmup(step, rate, warmup, total)
            optimizer.step(part, rate)
        with torch.no_grad():
            alpha.clamp_(0, alpha_max)
            beta.clamp_(0, beta_max)
    return records
