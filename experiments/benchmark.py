"""What a step costs, beside PyTorch's: ratios first, then milliseconds, compilation, memory.

python -m experiments.benchmark --suite=step     our methods and PyTorch's, small models
python -m experiments.benchmark --suite=lora     the same over LoRA ranks and lengths
python -m experiments.benchmark --suite=padding  buckets beside padding to 512 tokens
python -m experiments.benchmark --suite=sketch   what a sketch does to DWA's lambda
python -m experiments.benchmark --suite=compile  layers scanned; a warm cache
python -m experiments.benchmark --suite=memory   peaks, a process each
python -m experiments.benchmark --suite=full_size  one step of each of the papers' models
python -m experiments.benchmark --suite=gpu_plan   what steps need of a GPU that need not be there
python -m experiments.benchmark --suite=all      all of them but the last two

Models of the papers' size are timed where JAX has a GPU. Needs pip install -e ".[benchmark]",
gpu_plan pip install -e ".[gpu_plan]".
"""

import ast
import os
import sys
import tempfile
from pathlib import Path

from experiments.terminal import command, usage

SUITES = ("step", "lora", "padding", "sketch", "compile", "memory")
PEERS = {
    "all": lambda names, modes: [(name, mode) for mode in modes for name in names],
    "eager": lambda names, modes: [(name, "eager") for name in names],
    "none": lambda names, modes: [],
}


def parse(argv: list[str] | None = None):
    """Parses the command line; a mistake ends the program with one line and status 2."""
    parser = command.Parser(prog="python -m experiments.benchmark", description=__doc__)
    add = parser.add_argument
    add("--suite", default="step", choices=[*SUITES, "full_size", "gpu_plan", "all"])
    add("--rounds", type=int, default=11, help="interleaved rounds of each timing")
    add(
        "--peers",
        default="eager",
        choices=list(PEERS),
        help="PyTorch's steps: eager, all (compiled and in bfloat16 as well), or none",
    )
    add("--only", default="", help="rows whose title holds this, such as DWA or 'rank 128'")
    add("--train", default="", help="texts for padding and sketch; generated ones by default")
    add("--backbone", default="", help="folder or hub id of its model; the demo's by default")
    add(
        "--config", default="", help="of gpu_plan: configuration files, with commas; all by default"
    )
    add("--gpu", default="h200", help="of gpu_plan: h200, h100, a100, l40s, rtx4090, rtx3090ti")
    add("--tokens", type=int, default=512, help="of gpu_plan: a text's, as it is padded")
    add("--devices", type=int, default=1, help="of gpu_plan: cards of one machine, see key mesh")
    add(
        "--change",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of gpu_plan: another value of a configuration's key; may be given again",
    )
    add("--output", default="", help="JSON file for the numbers; pictures go beside it")
    add("--overwrite", action="store_true", help="replaces an output that is there")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error(f"--rounds={args.rounds} must be at least 1")
    if args.tokens < 1:
        parser.error(f"--tokens={args.tokens} must be at least 1")
    if args.devices < 1:
        parser.error(f"--devices={args.devices} must be at least 1")
    args.changes = dict(_change(parser, one) for one in args.change)
    return args


def _change(parser, given):
    key, equals, value = given.partition("=")
    if not equals:
        parser.error(f"--change={given} must be KEY=VALUE")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


if __name__ == "__main__":
    command.check_first(parse)

import jax
import jax.numpy as jnp

from configs import demo, minilm
from dwa_jax import atomic_files, host_memory, regular_files
from dwa_jax.finetune.run_folder import versions, write_json
from experiments.benchmarks import (
    accounts,
    cards,
    cost,
    gpu_plan,
    ours,
    padding,
    picture,
    spread,
    suites,
    worker,
)
from experiments.terminal.console import Terminal


def _timed(args, console, rows, methods):
    from_torch = []
    if args.peers != "none":
        from experiments.benchmarks import peers

        from_torch = [
            (name, mode)
            for name, mode in PEERS[args.peers](peers.METHODS, peers.MODES)
            if mode == "eager" or name not in peers.EAGER_ONLY
        ]
    rates, results = {}, []
    for row in rows:
        if args.only and args.only not in row.title:
            continue
        if row.dtype not in rates:
            rates[row.dtype] = cost.matrix_rate(jnp.dtype(row.dtype))
            console.note(f"matrix products, {row.dtype}: {rates[row.dtype] / 1e9:,.0f} GFLOP/s")
        result = suites.compare_contenders(
            row,
            methods,
            from_torch,
            args.rounds,
            rates[row.dtype],
            console.note,
            alone=not _on_gpu(),
        )
        results.append(result | {"matrix_rate": rates[row.dtype]})
        console.table(
            f"{row.title}: time over {next(iter(methods))}",
            {name: _describe(values) for name, values in result["contenders"].items()},
        )
        if result.get("thrown_away") or result.get("counted_busy"):
            console.note(
                f" {result['thrown_away']} rounds thrown away, in which other processes used 5 % "
                f"of the CPU or more; {result['counted_busy']} such rounds counted all the same"
            )
    return results


def _describe(values):
    parts = [
        f"{values['ratio']:.2f} x   {values['ms']:.0f} ms ({values['low_ms']:.0f} to "
        f"{values['high_ms']:.0f})",
        f"{values['tokens_per_second']:,.0f} tokens/s",
    ]
    if "utilisation" in values:
        parts.append(f"{values['utilisation']:.0%} of the matrix rate")
    if values["compile_seconds"] >= 1:
        parts.append(f"compiled in {values['compile_seconds']:.0f} s")
    return ", ".join(parts)


def _on_gpu():
    return jax.default_backend() == "gpu"


def _without_gpu(console):
    if not _on_gpu():
        console.note("qwen2-0.5b and roberta-large in bfloat16: not measured, JAX has no GPU here")


def step_suite(args, console) -> list[dict]:
    """Our methods and PyTorch's on small models, or the papers' on a GPU."""
    results = _timed(args, console, suites.step_rows(_on_gpu()), ours.METHODS)
    _without_gpu(console)
    return results


def lora_suite(args, console) -> list[dict]:
    """LoRA over ranks and lengths."""
    methods = ("constant", "dwa representation", "dwa trainable")
    results = _timed(args, console, suites.lora_rows(_on_gpu()), methods)
    _without_gpu(console)
    return results


def _config(args):
    config = minilm.get_config() if args.backbone else demo.get_config()
    if args.backbone:
        config.backbone = args.backbone
    config.train, config.batch_size = args.train, 8
    return config


def padding_suite(args, console) -> list[dict]:
    """Buckets beside padding to 512 tokens."""
    config = _config(args)
    if not args.backbone:
        config.scratch.max_positions = padding.PADDED_TO
    result = padding.measure_padding(config, min(args.rounds, 5))
    buckets = ", ".join(f"{length}: {count}" for length, count in result["buckets"].items())
    console.table(
        f"{args.train or 'generated headlines'}, batches of 8",
        {
            "tokens a text": f"{result['mean']:.1f} on average, at most {result['longest']}",
            "steps an epoch by length": buckets,
            "real / computed tokens": f"{result['fraction']:.3f}",
            "an epoch": f"{result['ratio']:.3f} x   {result['epoch_seconds']:.1f} s instead of "
            f"{result['padded_seconds']:.0f} s padded to {result['padded_to']}",
        },
    )
    return [result]


def sketch_suite(args, console) -> list[dict]:
    """The spread of lambda over draws of a sketch."""
    exact, sketch = _config(args), _config(args)
    exact.dropout = sketch.dropout = False
    exact.gradient_norms, sketch.gradient_norms = "exact", "sketch"
    result = spread.measure_spread(exact, sketch, 200)
    console.table(
        f"lambda of the regression, {args.train or 'generated headlines'}, "
        f"{result['tokens']} tokens",
        {
            "exact": f"{result['exact']:.4f}",
            "sketched / exact, mean": f"{result['mean']:.4f}, within {result['error']:.4f} "
            f"(standard error of {result['draws']} draws)",
            "standard deviation": f"{result['deviation']:.2%} with {result['columns']} columns",
        },
    )
    return [result]


def compile_suite(args, console) -> list[dict]:
    """Seconds of compilation: by depth, and with a warm cache."""
    request = {
        "kind": "compilation",
        "shape": "roberta-large",
        "rank": 128,
        "rows": 2,
        "tokens": 64,
        "method": "dwa trainable",
    }
    results = []
    for layers in (6, 24):
        result = worker.measure({**request, "layers": layers})
        results.append({**request, "layers": layers, "cache": "none", **result})
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("cold", "warm"):
            result = worker.measure({**request, "layers": 24}, folder)
            results.append({**request, "layers": 24, "cache": cache, **result})
    shallow, deep, cold, warm = (one["compile_seconds"] for one in results)
    console.table(
        "roberta-large, LoRA rank 128, DWA over trainable: compilation",
        {
            "24 layers / 6 layers": f"{deep / shallow:.2f} x   {deep:.1f} s, {shallow:.1f} s",
            "24 layers, warm cache / cold": f"{warm / cold:.2f} x   {warm:.1f} s, {cold:.1f} s",
            "tracing, 24 layers": f"{results[1]['trace_seconds']:.1f} s",
        },
    )
    return results


def memory_suite(args, console) -> list[dict]:
    """Peaks of memory, a process each."""
    methods = list(ours.METHODS)
    if args.peers != "none" and not _on_gpu():
        from experiments.benchmarks import peers

        methods += [f"PyTorch {name}" for name in peers.METHODS]
    results = []
    rows = suites.step_rows(_on_gpu())
    for row in rows:
        if args.only and args.only not in row.title:
            continue
        found = {}
        for method in methods:
            request = {"kind": "memory", "method": method, **row._asdict()}
            found[method] = worker.measure(request)
        results.append({"row": row._asdict(), "title": row.title, "methods": found})
        first = found[methods[0]]["peak_gib"]
        console.table(
            f"{row.title}: peak memory of the process over {methods[0]}",
            {
                name: f"{values['peak_gib'] / first:.2f} x   {values['peak_gib']:.2f} GiB"
                + (
                    f", the step's own {values['temporary_gib']:.2f} GiB"
                    if "temporary_gib" in values
                    else ""
                )
                for name, values in found.items()
            },
        )
    return results


def full_size_suite(args, console) -> list[dict]:
    """One step of each of the papers' models, with random weights."""
    results = []
    for shape in ("roberta-large", "qwen2-0.5b", "tinyllama-1.1b"):
        # A process each, so that one model's peak is not another's.
        result = worker.measure({"kind": "one_step", "shape": shape})
        results.append(result)
        console.note(
            f"{shape}: {result['parameters']:,} parameters, one DWA step in "
            f"{result['seconds']:.0f} s with compilation, peak {result['peak_gib']:.1f} GiB"
        )
    return results


def gpu_plan_suite(args, console) -> list[dict]:
    """What configurations' steps need of a GPU, by its compiler."""
    if args.gpu not in cards.CARDS:
        raise ValueError(f"--gpu={args.gpu} is not one of {', '.join(cards.CARDS)}")
    paths = args.config.split(",") if args.config else map(str, usage.configuration_files())
    chosen = [path for path in paths if Path(path).stem != "base"]
    for path in chosen:
        gpu_plan.load_config(path, args.changes)
    results = []
    for path in chosen:
        request = {"kind": "gpu_plan", "config": path, "gpu": args.gpu, "tokens": args.tokens}
        # The plugin asks a driver for its versions unless it is JAX's second choice.
        found = worker.measure(
            {**request, "changes": args.changes, "devices": args.devices},
            environment={"JAX_PLATFORMS": "cpu"},
        )
        results.append(found)
        console.note(f"{gpu_plan.title(found)}: compiled in {found['compile_seconds']:.0f} s")
    console.table(
        f"a step on {cards.CARDS[args.gpu].title}, by XLA's compiler",
        {gpu_plan.title(one): gpu_plan.words(one) for one in results},
    )
    return results


def picture_of(output: Path, suite: str) -> Path:
    """Returns the file of a suite's picture."""
    return output.with_name(f"{output.stem}_{suite}.png")


def main(argv: list[str]) -> None:
    """Runs suites and prints their tables.

    Raises:
      ValueError: a mistake of the user's, or something that is not installed.
      OSError: the output cannot be written.
    """
    args = parse(argv)
    host_memory.keep()
    console = Terminal()
    chosen = SUITES if args.suite == "all" else (args.suite,)
    output = Path(os.path.expanduser(args.output)) if args.output else None
    if output:
        # What cannot be written shows before hours of timing.
        for path in (output, *(picture_of(output, name) for name in (*chosen, "costs"))):
            atomic_files.check_file(path, overwrite=args.overwrite)
        with atomic_files.whole_file(output, overwrite=args.overwrite) as partial:
            partial.write_text("{}\n", "utf-8")
        written = regular_files.file_digest(output)
    device = jax.local_devices()[0]
    console.note(f"{accounts.processor()}; {os.cpu_count()} cores")
    found = {
        "device": f"{device.device_kind}, {os.cpu_count()} cores",
        "processor": accounts.processor(),
        "versions": versions(),
        "rounds": args.rounds,
        "suites": {},
    }
    for name in chosen:
        results = globals()[f"{name}_suite"](args, console)
        found["suites"][name] = results
        if output:
            if not args.overwrite and regular_files.file_digest(output) != written:
                raise ValueError(f"{output} was changed while this was running, and stays as it is")
            write_json(output, found)
            written = regular_files.file_digest(output)
            if name in ("step", "lora") and results:
                drawn = picture_of(output, name)
                with atomic_files.whole_file(drawn, overwrite=args.overwrite) as partial:
                    picture.draw_ratios(partial, results)
            if name == "step" and picture.lines(results):
                drawn = picture_of(output, "costs")
                with atomic_files.whole_file(drawn, overwrite=args.overwrite) as partial:
                    picture.draw_costs(partial, results)


if __name__ == "__main__":
    host_memory.begin()
    command.run(lambda: main(sys.argv[1:]))
