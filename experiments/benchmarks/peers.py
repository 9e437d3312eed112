"""The same step in PyTorch, as its users would write it and no slower than it must be.

Hugging Face's trunk with fused attention, PEFT's LoRA, fused AdamW; the same weights and
batches as ours. Needs `pip install -e ".[benchmark]"`.
"""

import inspect
import math
import re
import warnings
from collections.abc import Callable

import jax
import numpy as np

from dwa_jax import backbones, heads
from experiments.benchmarks.ours import TOTAL_STEPS, WARMUP_STEPS, BenchmarkModel

try:
    import peft
    import torch
    import torchjd.aggregation
    import torchjd.autogram
    import torchjd.autojac
    import transformers
    from torch import nn
except ImportError as error:
    raise ValueError(
        f'the PyTorch peers need {error.name}: pip install -e ".[benchmark]", or --peers=none'
    ) from None

# What a step is taken by, and how many times the trunk runs backward for it.
METHODS = ("constant", "dwa three passes", "dwa two passes", "dwa mtl_backward", "dwa autogram")
# How PyTorch computes it: as written; trunk, heads and losses through `torch.compile`; the trunk
# under autocast to bfloat16, which is another precision than ours in float32.
MODES = ("eager", "compiled", "bfloat16")
# Those of TorchJD map over the backward pass, which a compiled trunk does not allow.
EAGER_ONLY = ("dwa mtl_backward", "dwa autogram")


def device() -> torch.device:
    """Returns where JAX computes, as PyTorch calls it.

    Raises:
      ValueError: JAX has a GPU and PyTorch has none, so that nothing can be compared.
    """
    if jax.default_backend() == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError(
            f"JAX computes on {jax.default_backend()} and this PyTorch has no CUDA GPU; install "
            "one that has, or set JAX_PLATFORMS=cpu, or --peers=none"
        )
    return torch.device("cuda")


def _tensor(array, dtype=None):
    # bfloat16 has no counterpart in numpy that torch reads.
    value = torch.tensor(np.asarray(array, np.float32) if dtype else np.asarray(array))
    return value.to(dtype) if dtype else value


class Head(nn.Module):
    """A family's own classification head, on pooled hidden states in float32."""

    def __init__(self, family: str, params: dict):
        super().__init__()
        classifier = backbones.FAMILIES[family].classifier
        self.activation = {"tanh": torch.tanh, "relu": torch.relu}[classifier.activation]
        self.layers = nn.ModuleList()
        for leaves in params.values():
            weight = _tensor(leaves["kernel"]).T.contiguous()
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in leaves)
            layer.weight.data = weight
            if layer.bias is not None:
                layer.bias.data = _tensor(leaves["bias"])
            self.layers.append(layer)

    def forward(self, pooled):
        pooled = pooled.float()
        for layer in self.layers[:-1]:
            pooled = self.activation(layer(pooled))
        return self.layers[-1](pooled)


class Network(nn.Module):
    """DWA's network (equations 13 to 15): two weighted losses to two weights."""

    def __init__(self, params: dict):
        super().__init__()
        layers = []
        for name in ("fc1", "fc2"):
            kernel = _tensor(params[name]["kernel"])
            layer = nn.Linear(*kernel.shape)
            layer.weight.data, layer.bias.data = kernel.T.clone(), _tensor(params[name]["bias"])
            layers += [layer, nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1], nn.Softmax(dim=0))

    def forward(self, losses):
        return self.layers(losses)


class ImbalanceLoss(nn.Module):
    """Equations 7 to 9 with learned alpha and beta."""

    def __init__(self, alpha: float, beta: float):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(alpha))
        self.beta = nn.Parameter(torch.tensor(beta))

    def forward(self, logits, category):
        counts = torch.bincount(category, minlength=logits.shape[1]).to(logits.dtype)
        p = counts / len(category)
        present = counts > 0
        each = nn.functional.cross_entropy(logits, category, reduction="none")
        sums = torch.zeros_like(p).index_add(0, category, each)
        log_p = torch.log(torch.where(present, p, 1.0))
        terms = sums / len(category) - self.alpha * log_p
        return torch.where(present, torch.exp(-self.beta * log_p) * terms, 0.0).sum()


class _DwaAggregation(torchjd.aggregation.Weighting):
    """lambda * w from the Gramian, for TorchJD."""

    def __init__(self, weigh):
        super().__init__()
        self.weigh = weigh

    def forward(self, gramian):
        return self.weigh(torch.sqrt(torch.diagonal(gramian)))


def _trunk(model: BenchmarkModel, where: torch.device) -> nn.Module:
    config = transformers.AutoConfig.for_model(**model.config.to_huggingface())
    config._attn_implementation = "sdpa"
    of = transformers.MODEL_MAPPING[type(config)]
    pooled = "add_pooling_layer" in inspect.signature(of.__init__).parameters
    with torch.device(where):
        trunk = of(config, **({"add_pooling_layer": False} if pooled else {}))
    dtype = torch.bfloat16 if jax.numpy.dtype(model.dtype).itemsize == 2 else torch.float32
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), model.params)
    named = backbones.to_huggingface(model.config, params)
    missing = trunk.load_state_dict({k: _tensor(v) for k, v in named.items()}, strict=False)
    if missing.unexpected_keys:
        raise ValueError(f"transformers has no {missing.unexpected_keys[0]} in this trunk")
    if model.adapter is None:
        return trunk
    # Frozen weights in half precision, factors in float32: what autocast expects.
    trunk = trunk.to(dtype)
    factors = jax.tree.map(np.asarray, model.adapter.factors)
    prefix = backbones.FAMILIES[model.config.family].prefix
    targets = backbones.peft.target_modules(model.config, factors)
    settings = peft.LoraConfig(
        r=model.rank,
        lora_alpha=round(model.rank * model.adapter.scale),
        lora_dropout=0.0,
        # The trunk stands alone here, without its classifier's prefix.
        target_modules=targets.removeprefix(re.escape(prefix)),
    )
    with warnings.catch_warnings():
        # Of what PEFT calls in transformers.
        warnings.simplefilter("ignore", FutureWarning)
        wrapped = peft.get_peft_model(trunk, settings)
    state = {
        name.replace(f"base_model.model.{prefix}", "base_model.model.", 1): _tensor(value)
        for name, value in backbones.peft.to_peft(model.config, factors).items()
    }
    peft.set_peft_model_state_dict(wrapped, state)
    for name, parameter in wrapped.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
        assert parameter.requires_grad == ("lora_" in name)
    return wrapped


def _warm_up_and_cosine(step):
    # As `optimizers.make_optimizers` has it: the first update's rate is not 0.
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return (1 + math.cos(math.pi * (step - WARMUP_STEPS) / (TOTAL_STEPS - WARMUP_STEPS))) / 2


class Peer:
    """A PyTorch model that is stepped on with one batch.

    Args:
      model: weights to start from.
      state: our first state, whose heads, losses and network are taken over.
      batch: numpy arrays, as ours.
      method: one of `METHODS`.
      mode: one of `MODES`.
    """

    count = 1

    def __init__(self, model: BenchmarkModel, state, batch: dict, method: str, mode: str = "eager"):
        where = device()
        family = model.config.family
        self.takes_first = heads.default_pooling(model.config) == "first"
        self.trunk = _trunk(model, where).to(where)
        # No dropout, as in the shapes; PEFT keeps its factors trainable all the same.
        self.trunk.eval()
        self.forward: Callable = self._forward
        if mode == "compiled":
            # Otherwise what is compiled cannot run backward twice.
            torch._functorch.config.donated_buffer = False
            self.forward = torch.compile(self._forward)
        self.half = mode == "bfloat16" or (
            where.type == "cuda" and jax.numpy.dtype(model.dtype).itemsize == 2
        )
        self.heads = nn.ModuleList(
            [Head(family, state.psi[name]) for name in ("regression", "classification")]
        ).to(where)
        loss = state.phi["loss"]["classification"]
        self.imbalance = ImbalanceLoss(float(loss["alpha"]), float(loss["beta"])).to(where)
        phi = list(self.imbalance.parameters())
        if method != "constant":
            self.network = Network(state.phi["weighting"]).to(where)
            phi += list(self.network.parameters())
        self.shared = [p for p in self.trunk.parameters() if p.requires_grad]
        decayed = [p for p in self.shared if p.ndim > 1]
        others = [p for p in self.shared if p.ndim < 2]
        self.optimizers = [
            torch.optim.AdamW(
                [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0}],
                lr=1e-5,
                fused=True,
            ),
            torch.optim.AdamW(self.heads.parameters(), lr=1e-4, weight_decay=0.01, fused=True),
            torch.optim.Adam(phi, lr=1e-3, fused=True),
        ]
        self.schedules = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_up_and_cosine)
            for optimizer in self.optimizers[:2]
        ]
        self.phi = phi
        self.batch = {
            "input_ids": torch.tensor(batch["input_ids"], dtype=torch.long),
            "attention_mask": torch.tensor(batch["attention_mask"], dtype=torch.long),
            "score": torch.tensor(batch["score"]),
            "category": torch.tensor(batch["category"], dtype=torch.long),
        }
        self.batch = {name: value.to(where) for name, value in self.batch.items()}
        backward: dict[str, Callable] = {
            "constant": self._constant,
            "dwa three passes": self._three,
            "dwa two passes": self._two,
            "dwa mtl_backward": self._mtl,
            "dwa autogram": self._autogram,
        }
        if method == "dwa autogram":
            self.engine = torchjd.autogram.Engine(self.trunk, batch_dim=None)
        self.backward = backward[method]

    def _forward(self):
        batch = self.batch
        with torch.autocast(batch["score"].device.type, torch.bfloat16, enabled=self.half):
            hidden = self.trunk(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).last_hidden_state
        pooled = hidden[:, 0 if self.takes_first else -1]
        score = self.heads[0](pooled)[:, 0]
        regression = nn.functional.mse_loss(score, batch["score"])
        classification = self.imbalance(self.heads[1](pooled), batch["category"])
        return pooled, regression, classification

    def _weights(self, norms, losses):
        # Equation 6, then the network on the weighted losses; lambda is not differentiated.
        balance = norms.flip(0) / norms.sum()
        return balance, self.network(balance * losses.detach())

    def step(self) -> None:
        """Takes one step without waiting for it."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        pooled, regression, classification = self.forward()
        losses = torch.stack([regression, classification])
        self.backward(pooled, losses)
        torch.nn.utils.clip_grad_norm_(self.shared, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        for schedule in self.schedules:
            schedule.step()
        with torch.no_grad():
            self.imbalance.alpha.clamp_(0, 2)
            self.imbalance.beta.clamp_(0, 2)
        self.losses = losses.detach()

    def _constant(self, pooled, losses):
        (0.5 * losses.sum()).backward()

    def _three(self, pooled, losses):
        norms = []
        for loss in losses:
            gradients = torch.autograd.grad(loss, self.shared, retain_graph=True)
            norms.append(torch.nn.utils.get_total_norm(gradients))
        balance, weights = self._weights(torch.stack(norms), losses)
        (balance * weights * losses).sum().backward()

    def _two(self, pooled, losses):
        tasks = [torch.autograd.grad(loss, self.shared, retain_graph=True) for loss in losses]
        norms = torch.stack([torch.nn.utils.get_total_norm(gradients) for gradients in tasks])
        balance, weights = self._weights(norms, losses)
        coefficients = (balance * weights).detach()
        mixed = torch._foreach_mul(list(tasks[0]), coefficients[0])
        torch._foreach_add_(mixed, torch._foreach_mul(list(tasks[1]), coefficients[1]))
        for parameter, gradient in zip(self.shared, mixed, strict=True):
            parameter.grad = gradient
        rest = [*self.heads.parameters(), *self.phi]
        total = (balance * weights * losses).sum()
        for parameter, gradient in zip(rest, torch.autograd.grad(total, rest), strict=True):
            parameter.grad = gradient

    def _mtl(self, pooled, losses):
        kept = {}

        def weigh(norms):
            kept["balance"], kept["weights"] = self._weights(norms, losses)
            return (kept["balance"] * kept["weights"]).detach()

        aggregator = torchjd.aggregation.GramianWeightedAggregator(_DwaAggregation(weigh))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torchjd.autojac.mtl_backward(
                list(losses),
                pooled,
                shared_params=self.shared,
                retain_graph=True,
                tasks_params=[
                    list(self.heads[0].parameters()),
                    [*self.heads[1].parameters(), *self.imbalance.parameters()],
                ],
            )
            torchjd.autojac.jac_to_grad(self.shared, aggregator, optimize_gramian_computation=True)
        # Each head's gradient was that of its bare loss.
        coefficients = (kept["balance"] * kept["weights"]).detach()
        parts = (
            self.heads[0].parameters(),
            [*self.heads[1].parameters(), *self.imbalance.parameters()],
        )
        for coefficient, part in zip(coefficients, parts, strict=True):
            for parameter in part:
                parameter.grad *= coefficient
        objective = (kept["balance"] * kept["weights"] * losses.detach()).sum()
        objective.backward()

    def _autogram(self, pooled, losses):
        with warnings.catch_warnings():
            # Of mapping over fused attention, which PyTorch does in a loop.
            warnings.simplefilter("ignore")
            gramian = self.engine.compute_gramian(losses)
        balance, weights = self._weights(gramian.diagonal().sqrt(), losses)
        (balance * weights * losses).sum().backward()

    def run(self) -> None:
        """Takes one step and waits for it."""
        self.step()
        if self.losses.is_cuda:
            torch.cuda.synchronize()
