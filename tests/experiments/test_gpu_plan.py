"""What a plan counts in a compiled program; of a real one where the compiler is installed."""

import importlib.util
import re
import types

import pytest

from experiments import benchmark
from experiments.benchmarks import cards, gpu_plan, program, worker
from experiments.benchmarks.configured import abstract_batch, configured_run

# A loop of 3 layers: a slice out of a stack, a product in half precision, a fusion; then a
# product in float32 and a copy to the host.
TEXT = """\
HloModule jit_step

%slice (p.0: bf16[3,64,32], p.1: s32[]) -> bf16[1,64,32] {
  %p.0 = bf16[3,64,32]{2,1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %ds = bf16[1,64,32]{2,1,0} dynamic-slice(%p.0, %p.1, %zero, %zero), dynamic_slice_sizes={1,64,32}
}

%add (p.2: bf16[16,32]) -> bf16[16,32] {
  %p.2 = bf16[16,32]{1,0} parameter(0)
  ROOT %sum = bf16[16,32]{1,0} add(%p.2, %p.2)
}

%body (s: (s32[], bf16[16,64], bf16[3,64,32])) -> (s32[], bf16[16,64], bf16[3,64,32]) {
  %s = (s32[], bf16[16,64], bf16[3,64,32]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = bf16[16,64]{1,0} get-tuple-element(%s), index=1
  %w = bf16[3,64,32]{2,1,0} get-tuple-element(%s), index=2
  %one = bf16[1,64,32]{2,1,0} fusion(%w, %i), kind=kLoop, calls=%slice
  %kernel = bf16[64,32]{1,0} bitcast(%one)
  %y = (bf16[16,32]{1,0}, s8[1024]{0}) custom-call(%x, %kernel), custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  %out = bf16[16,32]{1,0} get-tuple-element(%y), index=0
  %more = bf16[16,32]{1,0} fusion(%out), kind=kLoop, calls=%add
  ROOT %t = (s32[], bf16[16,64], bf16[3,64,32]) tuple(%i, %x, %w)
}

%condition (c: (s32[], bf16[16,64], bf16[3,64,32])) -> pred[] {
  %c = (s32[], bf16[16,64], bf16[3,64,32]) parameter(0)
  ROOT %go = pred[] constant(true)
}

ENTRY %main (a: f32[8,4], b: f32[4,2]) -> f32[8,2] {
  %a = f32[8,4]{1,0} parameter(0)
  %b = f32[4,2]{1,0} parameter(1)
  %state = (s32[], bf16[16,64], bf16[3,64,32]) tuple(%a, %b, %a)
  %loop = (s32[], bf16[16,64], bf16[3,64,32]) while(%state), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %h = f32[8,2]{1,0:S(5)} copy(%b)
  ROOT %d = f32[8,2]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(step)/head/dot"}
}
"""  # noqa: E501


def test_kernels_are_counted_as_often_as_they_run():
    found = program.read_program(TEXT)
    kinds = {k.kind: k for k in found.kernels if not (k.kind == "product" and k.dtype == "f32")}
    product = kinds["product"]
    assert (product.times, product.flops, product.dtype) == (3, 2 * 16 * 64 * 32, "bf16")
    slice_ = next(k for k in found.kernels if k.times == 3 and k.kind == "move")
    # Of the stack the slice alone is read; and a place.
    assert (slice_.read, slice_.written) == (64 * 32 * 2 + 4, 64 * 32 * 2)
    assert (kinds["fusion"].times, kinds["fusion"].read) == (3, 16 * 32 * 2)
    last = found.kernels[-1]
    assert (last.dtype, last.flops, last.source) == ("f32", 2 * 8 * 4 * 2, "jit(step)/head/dot")
    assert found.notes == {"memory of the host": 1}


def test_a_plan_names_what_is_not_in_half_precision_and_what_copies():
    memory = types.SimpleNamespace(
        argument_size_in_bytes=10 * 2**30,
        output_size_in_bytes=10 * 2**30 + 100,
        alias_size_in_bytes=10 * 2**30,
        temp_size_in_bytes=9 * 2**30,
    )
    card = cards.CARDS["h200"]
    found = gpu_plan.plan_of(TEXT, memory, card)
    assert found["memory_gib"] == pytest.approx(19) and found["donated"]
    # More than three quarters of 24 GiB.
    assert "rtx3090ti" not in found["fits"] and "l40s" in found["fits"]
    assert list(found["not_half"]) == ["jit(step)/head/dot"]
    # 4 moves of 11 small kernels, which take as long as starting them does.
    assert found["kernels"] == 11 and found["copies"] == pytest.approx(4 / 11)
    memory.alias_size_in_bytes = 0
    assert not gpu_plan.plan_of(TEXT, memory, card)["donated"]
    assert "at least" in gpu_plan.words(found) and "memory of the host: 1" in gpu_plan.words(found)


def test_a_kernel_takes_as_long_as_what_it_has_most_of():
    card = cards.CARDS["h200"]
    one = program.Kernel("fusion", 1, 0.0, "", 0, 0, 0, "")
    assert gpu_plan.least_seconds(one._replace(read=48 * 10**9), card) == pytest.approx(0.01)
    half, full = (one._replace(flops=9.89e12, dtype=dtype) for dtype in ("bf16", "f32"))
    assert gpu_plan.least_seconds(half, card) == pytest.approx(0.01)
    assert gpu_plan.least_seconds(full, card) == pytest.approx(0.02, rel=0.01)
    assert gpu_plan.least_seconds(one._replace(integers=167 * 10**9), card) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--change=dtype"], "--change=dtype must be KEY=VALUE"),
        (["--tokens=0"], "--tokens=0 must be at least 1"),
        (["--devices=0"], "--devices=0 must be at least 1"),
    ],
)
def test_mistakes_on_the_command_line_end_in_a_line(given, said, capsys):
    with pytest.raises(SystemExit):
        benchmark.parse(["--suite=gpu_plan", *given])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--gpu=tpu"], "--gpu=tpu is not one of h200, h100"),
        (["--config=configs/none.py"], "--config=configs/none.py: no such file"),
        (["--config=configs/demo.py", "--change=dtyp=1"], "no key 'dtyp'; the nearest is 'dtype'"),
    ],
)
def test_what_cannot_be_planned_is_said_before_anything_is_compiled(given, said, monkeypatch):
    monkeypatch.setattr(worker, "measure", lambda *_, **__: pytest.fail("compiled"))
    with pytest.raises(ValueError, match=said):
        benchmark.main(["--suite=gpu_plan", *given])


def test_the_table_is_of_every_configuration_asked_for(monkeypatch, capsys):
    asked = []

    def measure(request, environment):
        asked.append(request)
        assert environment == {"JAX_PLATFORMS": "cpu"}
        names = ("argument", "output", "alias", "temp")
        sizes = {f"{name}_size_in_bytes": 2**30 for name in names}
        found = gpu_plan.plan_of(TEXT, types.SimpleNamespace(**sizes), cards.CARDS["a100"])
        return {**request, **found, "rows": 8, "compile_seconds": 1.0}

    monkeypatch.setattr(worker, "measure", measure)
    benchmark.main(
        [
            "--suite=gpu_plan",
            "--gpu=a100",
            "--config=configs/demo.py,configs/qwen.py",
            "--tokens=64",
        ]
    )
    assert [one["config"] for one in asked] == ["configs/demo.py", "configs/qwen.py"]
    shown = capsys.readouterr().out
    assert "A100" in shown and "8 x 64 tokens" in shown and "2.0 GiB" in shown


@pytest.mark.slow
def test_in_half_precision_heads_and_losses_alone_multiply_in_single_and_in_all_digits():
    shape = {"vocab_size": 50, "width": 16, "layers": 3, "heads": 2, "feed_forward": 24}
    changes = {"dtype": "bfloat16", "dropout": True, "scratch": shape}
    run = configured_run(gpu_plan.load_config("configs/demo.py", changes), "gpu")
    lowered = run.step.trace(run.state, abstract_batch(8, 6)).lower(lowering_platforms=("cuda",))
    text = lowered.as_text()
    products = re.findall(r"dot_general .*precision = \[(\w+).*: \((.*)\) ->", text)
    wide = [(precision, given) for precision, given in products if "bf16" not in given]
    assert len(products) > 2 * len(wide) > 0
    assert {precision for precision, _ in wide} == {"HIGHEST"}
    # Nothing of the trunk, whose products have the feed-forward block's side, or the tokens.
    sizes = {int(n) for _, given in wide for n in re.findall(r"(\d+)x", given)}
    assert not sizes & {24, 6, 8 * 6}
    # Dropout's bits are the GPU's own.
    assert "rng_bit_generator" in text


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda13_plugin") is None,
    reason="compiling for a GPU needs NVIDIA's wheels, gigabytes: pip install -e '.[gpu_plan]'",
)
def test_the_plan_of_a_small_decoder(monkeypatch):
    from experiments.benchmarks import shapes

    shape = shapes._decoder("qwen2", 500, 64, 3, 4, 2, 96)
    monkeypatch.setitem(shapes._PUBLISHED, "small", shape)
    changes = {"backbone": "small", "dtype": "bfloat16"}
    found = gpu_plan.measure_plan("configs/qwen_dwa.py", "h200", 64, changes)
    assert found["donated"] and found["host"] == {}
    # Forward once and backward once a task, in all layers but the last.
    assert found["fused_attention"] == 2 * 3
    # Heads, losses and the Gramian alone.
    assert found["products"].get("f32", 0) < 0.01 * found["products"]["bf16"]


def test_what_is_exchanged_is_counted_as_often_as_its_loop_turns():
    text = """HloModule step

%body (p: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %p = (s32[], bf16[8,4]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = bf16[8,4]{1,0} get-tuple-element(%p), index=1
  %begun = (bf16[8,4]{1,0}, bf16[32,4]{1,0}) all-gather-start(%x), dimensions={0}
  %whole = bf16[32,4]{1,0} all-gather-done(%begun)
  ROOT %out = (s32[], bf16[8,4]) tuple(%i, %x)
}

ENTRY %main (a: (s32[], bf16[8,4]), g: f32[32,4], n: f32[]) -> f32[8,4] {
  %a = (s32[], bf16[8,4]) parameter(0)
  %g = f32[32,4]{1,0} parameter(1)
  %n = f32[] parameter(2)
  %loop = (s32[], bf16[8,4]) while(%a), condition=%c, body=%body, TURNS
  %sum = f32[] all-reduce(%n), to_apply=%add
  ROOT %part = f32[8,4]{1,0} reduce-scatter(%g), dimensions={0}, to_apply=%add
}
"""
    text = text.replace("TURNS", 'backend_config={"known_trip_count":{"n":"3"}}')
    memory = types.SimpleNamespace(
        argument_size_in_bytes=0,
        output_size_in_bytes=0,
        alias_size_in_bytes=0,
        temp_size_in_bytes=0,
    )
    found = gpu_plan.plan_of(text, memory, cards.CARDS["h100"])
    exchanged = 3 * 2 * 32 * 4 + 2 * 4 + 4 * 32 * 4
    assert found["exchanged_gib"] == pytest.approx(exchanged / 2**30)
    assert found["exchange_milliseconds"] == pytest.approx(1000 * exchanged / 450e9)
    assert "exchanges" in gpu_plan.words(found)
