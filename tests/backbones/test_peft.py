"""LoRA factors through PEFT's files: read as PEFT reads them, refused where it does more."""

import json
import re
import warnings

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

import safetensors.numpy  # noqa: E402

from configs import base  # noqa: E402
from dwa_jax import backbones, lora  # noqa: E402
from dwa_jax.finetune.model import load_model  # noqa: E402

pytestmark = pytest.mark.slow

RANK, ALPHA = 3, 5.0
TARGETS = {
    "bert": ["query", "value", "attention.output.dense", "intermediate.dense"],
    "roberta": ["query", "key", "value", "dense"],
    "distilbert": ["q_lin", "out_lin", "lin2"],
    "llama": ["q_proj", "v_proj", "down_proj"],
    "qwen2": "all-linear",
    "qwen3": "all-linear",
    "mistral": ["q_proj", "up_proj"],
    "modernbert": ["Wqkv", "Wo", "Wi"],
}


@pytest.fixture(scope="module")
def adapted(checkpoint, tmp_path_factory):
    """family -> the checkpoint, a PEFT model on it with random factors, its saved adapter."""
    cache = {}

    def get(family):
        if family not in cache:
            source = checkpoint(family)
            torch.manual_seed(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                opened = transformers.AutoModelForSequenceClassification.from_pretrained
                model = opened(source.folder)
                options = {"use_rslora": True} if family == "llama" else {}
                config = peft.LoraConfig(
                    task_type="SEQ_CLS",
                    r=RANK,
                    lora_alpha=ALPHA,
                    target_modules=TARGETS[family],
                    exclude_modules=r".*(pooler|classifier|score|head).*",
                    **options,
                )
                model = peft.get_peft_model(model, config).eval()
            with torch.no_grad():
                for name, value in model.named_parameters():
                    if "lora_" in name:
                        value.copy_(0.3 * torch.randn(value.shape))
            folder = tmp_path_factory.mktemp(f"{family}_adapter")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.save_pretrained(folder)
            cache[family] = source, model, folder
        return cache[family]

    return get


@pytest.mark.parametrize("family", TARGETS)
@pytest.mark.filterwarnings("ignore:.*backbone=")  # which has other heads
def test_an_adapter_as_the_start_computes_what_peft_computes(adapted, family):
    source, model, folder = adapted(family)
    config = base.get_config()
    config.update({"backbone": str(source.folder), "lora_adapter": str(folder)})
    with pytest.warns(UserWarning, match=rf"LoRA starts from .*: rank {RANK}, scale"):
        ours = load_model(config, None, jax.random.key(0), tokenizer="not needed")
    variables = {"params": ours.params, "lora": lora.variables(ours.adapter)}
    mask = np.ones_like(source.mask)
    mask[1, 7:] = 0  # padding on the right, as plain transformers has it
    ids = np.where(source.ids == (source.whole.config.pad_token_id or 0), 5, source.ids)
    pad = source.whole.config.pad_token_id or 0
    ids = np.where(mask == 1, ids, pad)
    hidden = np.asarray(jax.jit(ours.module.apply)(variables, ids, mask))
    with torch.no_grad():
        wanted = model.base_model.model.base_model(
            input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)
        ).last_hidden_state.numpy()
    np.testing.assert_allclose(hidden[mask == 1], wanted[mask == 1], atol=1e-4)
    with torch.no_grad(), model.disable_adapter():
        plain = model.base_model.model.base_model(
            input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)
        ).last_hidden_state.numpy()
    assert np.abs(plain - hidden)[mask == 1].max() > 0.1  # the factors do something
    scale = ALPHA / np.sqrt(RANK) if family == "llama" else ALPHA / RANK
    assert ours.lora_scale == pytest.approx(scale)


@pytest.mark.parametrize("family", TARGETS)
def test_writing_inverts_reading(adapted, family):
    source, _, folder = adapted(family)
    settings = source.module.config
    adapter = backbones.peft.load(folder, settings)
    there = safetensors.numpy.load_file(folder / backbones.peft.WEIGHTS)
    there = {name: value for name, value in there.items() if "lora_" in name}
    ours = backbones.peft.to_peft(settings, adapter.factors)
    assert set(ours) == set(there)
    for name, value in there.items():
        np.testing.assert_array_equal(ours[name], value)


def test_the_regular_expression_names_exactly_the_adapted_modules(adapted):
    source, model, folder = adapted("bert")  # two of whose modules end in output.dense
    settings = source.module.config
    pattern = backbones.peft.target_modules(settings, backbones.peft.load(folder, settings).factors)
    base_model = model.base_model.model
    adapted_modules = {
        name for name, module in base_model.named_modules() if hasattr(module, "lora_A")
    }
    every = {name for name, _ in base_model.named_modules() if "lora_" not in name}
    every = {name.removesuffix(".base_layer") for name in every}
    assert {name for name in every if re.fullmatch(pattern, name)} == adapted_modules
    assert len(adapted_modules) == 4 * settings.num_layers


WRONG = [
    ({"peft_type": "IA3"}, "peft_type IA3 is not LORA"),
    ({"use_dora": True}, "use_dora = True is not supported"),
    ({"bias": "all"}, "bias = all is not supported"),
    ({"rank_pattern": {"query": 8}}, "rank_pattern = .* is not supported"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights = pissa is not supported"),
    ({"r": 0}, "r must be a positive integer"),
    ({"r": RANK + 1}, r"lora_A\.weight is \(3, 32\), not \(4, 32\)"),
]


@pytest.fixture
def copied(adapted, tmp_path):
    """A copy of RoBERTa's adapter: its trunk, the folder, and its parsed files."""
    source, _, folder = adapted("roberta")
    about = json.loads((folder / backbones.peft.CONFIG).read_text())
    tensors = safetensors.numpy.load_file(folder / backbones.peft.WEIGHTS)

    def write(about=about, tensors=tensors):
        (tmp_path / backbones.peft.CONFIG).write_text(json.dumps(about))
        safetensors.numpy.save_file(tensors, tmp_path / backbones.peft.WEIGHTS)
        return tmp_path

    return source, about, tensors, write


@pytest.mark.parametrize("change, message", WRONG)
def test_what_would_change_the_numbers_is_refused(copied, change, message):
    source, about, _, write = copied
    with pytest.raises(backbones.BackboneError, match=message):
        backbones.peft.load(write(about=about | change), source.module.config)


def test_tensors_must_have_a_place_and_none_may_miss(copied):
    source, _, tensors, write = copied
    names = sorted(name for name in tensors if "lora_A" in name)
    others = {name: value for name, value in tensors.items() if name != names[0]}
    with pytest.raises(backbones.BackboneError, match=r"missing encoder\.layer\.0"):
        backbones.peft.load(write(tensors=others), source.module.config)
    more = tensors | {
        "base_model.model.roberta.embeddings.word_embeddings.weight": tensors[names[0]]
    }
    with pytest.raises(backbones.BackboneError, match="unexpected .*word_embeddings"):
        backbones.peft.load(write(tensors=more), source.module.config)
    heads = {name: value for name, value in tensors.items() if "classifier" in name}
    assert sorted(backbones.peft.load(write(), source.module.config).left) == sorted(heads)
    with pytest.raises(backbones.BackboneError, match="holds no LoRA factor"):
        backbones.peft.load(write(tensors=heads), source.module.config)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"lora_rank": 8}, "lora_rank=8 contradicts lora_adapter=.*has rank 3"),
        ({"lora_alpha": 1.0}, "lora_alpha=1.0 contradicts .*has alpha 5"),
        ({"lora_rank_stabilized": True}, "lora_rank_stabilized=True contradicts"),
        ({"lora_targets": ("query",)}, "lora_targets=.* contradicts"),
        ({"lora_adapter": "/nowhere"}, "adapter_config.json does not exist"),
    ],
)
def test_keys_that_contradict_the_adapter_are_an_error(adapted, change, message):
    source, _, folder = adapted("roberta")
    config = base.get_config()
    config.update({"backbone": str(source.folder), "lora_adapter": str(folder)} | change)
    with pytest.raises(ValueError, match=message):
        load_model(config, None, jax.random.key(0), tokenizer="not needed")
