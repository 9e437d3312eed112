"""onnx: both tasks in one `model.onnx`, and in `model_int8.onnx` with 8-bit weights; for servers.

The graph is traced by PyTorch from the model of `transformers` and our head, LoRA merged. It takes
input_ids and attention_mask, (N, T) int64, padded on the right, and gives "score" (N,), "logits"
and "probabilities" (N, K), of the tasks that there are.

Axes: N texts, T tokens, D width, K categories.
"""

import contextlib
import functools
import inspect
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dwa_jax import backbones, lora
from dwa_jax.finetune.exports import pieces
from dwa_jax.finetune.exports.form import ExportForm
from dwa_jax.finetune.saved import Trained

FLOAT, QUANTIZED = "model.onnx", "model_int8.onnx"
# Every version of onnxruntime that its extra allows reads it, and it has all that a trunk needs.
_OPSET = 18
# A graph's file holds less than 2 GiB; PyTorch puts larger weights beside it.
_ONE_FILE = 2**30
_OUTPUTS = {"regression": ("score",), "classification": ("logits", "probabilities")}


def refusal(run: Trained) -> str:
    """Says why it cannot hold a run: it can hold any."""
    return ""


def write(run: Trained, folder: Path) -> None:
    """Writes both graphs and the tokenizer.

    Raises:
      ValueError: what makes the graph is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401, by which PyTorch translates
        import torch
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise ValueError(
            f"format='onnx' needs {error.name}: pip install \"dwa_jax[onnx]\"; nothing is written"
        ) from None
    pieces.save_tokenizer(run, folder)
    rows = torch.arange(6).reshape(2, 3) + 3
    with _quietly(), torch.no_grad():
        program = torch.onnx.export(
            _module(run).eval(),
            (rows, torch.ones_like(rows)),
            input_names=["input_ids", "attention_mask"],
            output_names=_names(run),
            dynamic_shapes=({0: "texts", 1: "tokens"}, {0: "texts", 1: "tokens"}),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
        program.save(folder / FLOAT)
        onnx.checker.check_model(folder / FLOAT)
        # Of float32, whatever the run computes in.
        large = 4 * lora.count((run.theta, run.frozen)) > _ONE_FILE
        quantize_dynamic(
            folder / FLOAT,
            folder / QUANTIZED,
            weight_type=QuantType.QInt8,
            per_channel=True,
            # 7 bits of weights: processors without VNNI add pairs of 8-bit products in 16 bits, and
            # cut off what is beyond them.
            reduce_range=True,
            use_external_data_format=large,
        )


def _names(run):
    return [name for task in run.tasks for name in _OUTPUTS[task.name]]


def _module(run):
    """Returns the trunk of `transformers` with our pooling and heads behind it."""
    import torch
    import transformers
    from torch import nn

    settings = run.module.config
    config = transformers.AutoConfig.for_model(**settings.to_huggingface())
    config._attn_implementation = "eager"
    of = transformers.MODEL_MAPPING[type(config)]
    pooler = "add_pooling_layer" in inspect.signature(of.__init__).parameters
    trunk = of(config, **({"add_pooling_layer": False} if pooler else {}))
    named = backbones.to_huggingface(settings, run.trunk_parameters(merged=True))
    found = trunk.load_state_dict({k: torch.tensor(v) for k, v in named.items()}, strict=False)
    if found.unexpected_keys:
        raise ValueError(f"transformers has no {found.unexpected_keys[0]} in this trunk")

    def tensors(task):
        head = pieces.head(run, task)
        return jax.tree.map(lambda leaf: nn.Parameter(torch.tensor(leaf)), head)

    activation = {"tanh": torch.tanh, "relu": torch.relu, "gelu": nn.functional.gelu}[
        pieces.family(run).classifier.activation
    ]

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk

        def forward(self, input_ids, attention_mask):
            hidden = self.trunk(input_ids=input_ids, attention_mask=attention_mask)
            pooled = _pooled(hidden.last_hidden_state, attention_mask, run.pooling)
            given = []
            for task in run.tasks:
                x = pooled
                head = tensors(task)
                if "dense" in head:
                    x = activation(_linear(head["dense"], x))
                if "norm" in head:
                    scale = head["norm"]["scale"]
                    x = nn.functional.layer_norm(x, scale.shape, scale, eps=settings.norm_eps)
                x = _linear(head["out_proj"] if "out_proj" in head else head["score"], x)
                given += [x[:, 0]] if task.name == "regression" else [x, x.softmax(-1)]
            return tuple(given)

    return Whole()


def _linear(params, x):
    product = x @ params["kernel"]
    return product + params["bias"] if "bias" in params else product


def _pooled(hidden, mask, how):
    # As `heads.pool` has it.
    if how == "first":
        return hidden[:, 0]
    if how == "last":
        last = (mask.sum(1) - 1).clamp(min=0)
        return hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[2]))[:, 0]
    weights = mask[:, :, None].to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


@contextlib.contextmanager
def _quietly():
    # What PyTorch and onnxruntime say of their own inner ways; the result is compared.
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def outputs(
    run: Trained, folder: Path, texts: Sequence[str], file: str = FLOAT
) -> dict[str, np.ndarray]:
    """Opens a graph with onnxruntime and applies it to texts."""
    import onnxruntime
    from transformers import AutoTokenizer

    session = onnxruntime.InferenceSession(folder / file, providers=["CPUExecutionProvider"])
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    inputs = tokenizer(list(texts), padding=True, truncation=True, return_tensors="np")
    names = ("input_ids", "attention_mask")
    given: dict[str, Any] = {name: inputs[name].astype(np.int64) for name in names}
    found = dict(zip(_names(run), session.run(_names(run), given), strict=True))
    return {
        task.name: found["score"][:, None] if task.name == "regression" else found["logits"]
        for task in run.tasks
    }


def opening(run: Trained) -> list[str]:
    """Writes the card's lines on how to open it."""
    names = _names(run)
    variables = ", ".join("scores" if name == "score" else name for name in names)
    variables += "," if len(names) == 1 else ""
    return [
        "In this folder:",
        "",
        "```python",
        "import numpy as np",
        "import onnxruntime",
        "from tokenizers import Tokenizer",
        "",
        f'session = onnxruntime.InferenceSession("{FLOAT}")',
        'tokenizer = Tokenizer.from_file("tokenizer.json")',
        f"tokenizer.enable_truncation({run.max_tokens})",
        f"tokenizer.enable_padding(pad_id={run.tokenizer.pad_token_id})",
        "",
        'texts = ["EUR/USD jumps after ECB", "Pound slips"]',
        "encoded = tokenizer.encode_batch(texts)",
        "inputs = {",
        '    "input_ids": np.array([one.ids for one in encoded]),',
        '    "attention_mask": np.array([one.attention_mask for one in encoded]),',
        "}",
        f"{variables} = session.run({names!r}, inputs)",
        "```",
        "",
        f"`{QUANTIZED}` is opened the same way: its matrices are of 8 bits (dynamic quantization), "
        "a quarter of the size, and its numbers are near those of the other file, not the same.",
    ]


FORM = ExportForm(
    ("onnxruntime",),
    refusal,
    write,
    outputs,
    opening,
    (QUANTIZED, functools.partial(outputs, file=QUANTIZED)),
)
