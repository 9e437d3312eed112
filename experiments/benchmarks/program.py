"""What a program compiled for a GPU does, read from its text: kernels, products, bytes, copies.

XLA's own `cost_analysis` counts a loop's body once and no library call, so it cannot say this.
"""

import collections
import itertools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple


class Kernel(NamedTuple):
    """One kernel, or one call of a library.

    Attributes:
      kind: what it is; "move" of what computes nothing: copies, slices, stacks of slices.
      times: how often it runs in one call of the program.
      flops: floating-point operations of its matrix products, once.
      dtype: of their operands; "" where it has none.
      read: bytes, once; of slices alone where it takes slices.
      written: bytes, once.
      integers: operations on integers, once: random bits.
      source: of the line of Python that it came from, as far as XLA keeps it.
    """

    kind: str
    times: int
    flops: float
    dtype: str
    read: int
    written: int
    integers: int
    source: str


class Program(NamedTuple):
    """A whole program.

    Attributes:
      kernels: its kernels.
      notes: what the host has a part in -> how often.
    """

    kernels: list[Kernel]
    notes: dict[str, int]


class Instruction(NamedTuple):
    """A line of the text."""

    result: str
    opcode: str
    operands: list[str]
    line: str


_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.\-]+) = (.+?) ([\w\-]+)\((.*)$")
_SHAPE = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
_BYTES = {
    **dict.fromkeys(("f64", "s64", "u64", "c64"), 8),
    **dict.fromkeys(("bf16", "f16", "s16", "u16"), 2),
    **dict.fromkeys(("pred", "s8", "u8"), 1),
}
# Take no time by themselves.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("opt-barrier", "partition-id", "replica-id"),
}
# What moves numbers between devices.
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# What moves numbers and computes none; in a fusion, beside indices.
_MOVES = {
    *_FREE,
    *("copy", "slice", "dynamic-slice", "dynamic-update-slice", "concatenate", "pad"),
    *("transpose", "reshape", "broadcast", "reverse", "iota"),
}
_WHOLE = ("s32", "u32", "s64", "u64", "pred", "s8", "u8", "s16", "u16")


def read_program(text: str) -> Program:
    """Reads the text of a compiled program, `compiled.as_text()`."""
    computations, entry = _parse(text)
    notes: collections.Counter = collections.Counter()
    return Program(list(_walk(computations, entry, 1, notes)), dict(notes))


def _parse(text):
    computations: dict[str, dict[str, Instruction]] = {}
    entry = current = ""
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = head[2]
            computations[current] = {}
            entry = current if head[1] else entry
        elif line.startswith("}"):
            current = ""
        elif current and (found := _INSTRUCTION.match(line)):
            name, result, opcode, rest = found.groups()
            computations[current][name] = Instruction(result, opcode, _names(rest), line)
    return computations, entry


def _names(rest):
    # Up to the bracket that closes the operands'.
    depth = itertools.accumulate(({"(": 1, ")": -1}.get(letter, 0) for letter in rest), initial=1)
    end = next((place for place, open_ in enumerate(depth) if not open_), len(rest))
    return re.findall(r"%([\w.\-]+)", rest[:end])


def _shapes(text):
    return [(dtype, [int(n) for n in dims.split(",") if n]) for dtype, dims in _SHAPE.findall(text)]


def _size(text):
    return sum(_BYTES.get(dtype, 4) * math.prod(dims) for dtype, dims in _shapes(text))


def _walk(computations, name, times, notes) -> Iterator[Kernel]:
    instructions = computations[name]
    for own, one in instructions.items():
        if one.opcode in _FREE or one.opcode.endswith(("-done", "-update")):
            continue
        called = re.findall(r"(?:calls|to_apply|body)=%?([\w.\-]+)", one.line)
        if one.opcode == "while":
            trips = re.search(r'known_trip_count":\{"n":"(\d+)"', one.line)
            if not trips:
                notes["a loop whose end the host waits for"] += times
            yield from _walk(
                computations, called[0], times * (int(trips[1]) if trips else 1), notes
            )
        elif one.opcode == "conditional":
            notes["a branch that the host waits for"] += times
            for branch in re.findall(r"%([\w.\-]+)", one.line.partition("computation")[2]):
                if branch in computations:
                    yield from _walk(computations, branch, times, notes)
        elif one.opcode in ("call", "async-start") and called:
            yield from _walk(computations, called[0], times, notes)
        else:
            if "S(5)" in one.line:
                notes["memory of the host"] += times
            yield _kernel(computations, instructions, own, called)._replace(times=times)


def _kernel(computations, instructions, own, called):
    one = instructions[own]
    read = sum(_size(instructions[name].result) for name in one.operands if name in instructions)
    written, flops, dtype, integers = _size(one.result), 0.0, "", 0
    kind = "move" if one.opcode in _MOVES else one.opcode
    if one.opcode == "fusion":
        inner = computations[called[0]]
        kind = "move" if _only_moves(inner) else "fusion"
        read, written = _fusion_bytes(inner)
        integers = _integer_operations(inner)
        for each in (name for name, part in inner.items() if part.opcode == "dot"):
            found, dtype = _product(inner, each)
            flops, kind = flops + found, "product"
    elif one.opcode == "custom-call":
        target = re.search(r'custom_call_target="([^"]+)"', one.line)
        kind = target[1] if target else "custom-call"
        if "cublas" in kind:
            flops, dtype = _product(instructions, own)
            kind = "product"
        elif "fmha" in kind:
            flops, dtype = _attention(instructions, one, "Backward" in kind)
            kind = "fused attention"
    elif one.opcode == "dot":
        flops, dtype = _product(instructions, own)
        kind = "product"
    elif one.opcode.removesuffix("-start") in COLLECTIVES:
        kind = one.opcode.removesuffix("-start")
        # What begins one has its operand among its results.
        written -= read if kind == "all-gather" and one.opcode != kind else 0
    place = re.search(r'op_name="([^"]*)"', one.line)
    return Kernel(kind, 1, flops, dtype, read, written, integers, place[1] if place else "")


def _only_moves(inner):
    return all(one.opcode in _MOVES or _finds_place(one) for one in inner.values())


def _finds_place(one):
    # Arithmetic on a few whole numbers; on many it is random bits.
    return all(dtype in _WHOLE and math.prod(dims) <= 8 for dtype, dims in _shapes(one.result))


def _dims(line, key):
    found = re.search(rf'{key}"?[=:]\s*[\{{\[]([\d,"\s]*)[\}}\]]', line)
    return [int(n) for n in re.findall(r"\d+", found[1])] if found else []


def _product(instructions, name):
    one = instructions[name]
    left = _shapes(instructions[one.operands[0]].result)[0]
    outputs = _shapes(one.result)[0][1]
    summed = _dims(one.line, "lhs_contracting_dim(?:ension)?s")
    return 2.0 * math.prod(outputs) * math.prod(left[1][d] for d in summed), left[0]


def _attention(instructions, one, backward):
    # Scores and their mixture; backward the scores again and four gradients.
    (dtype, query), (_, key) = (_shapes(instructions[name].result)[0] for name in one.operands[:2])
    # Of (B, T, heads, width) each.
    return (5 if backward else 2) * 2.0 * math.prod(query) * key[1], dtype


def _integer_operations(inner):
    # A rotation is two shifts and an "or" here, and one instruction of the GPU.
    return sum(
        math.prod(dims) * (2 if dtype.endswith("64") else 1)
        for one in inner.values()
        if one.opcode in ("add", "subtract", "xor", "or", "multiply")
        for dtype, dims in _shapes(one.result)
        if dtype in ("u32", "s32", "u64", "s64")
    )


def _fusion_bytes(inner):
    users = collections.defaultdict(list)
    for own, one in inner.items():
        for position, name in enumerate(one.operands):
            users[name].append((own, position))
    read = sum(
        _read_of(inner, users, name) for name, one in inner.items() if one.opcode == "parameter"
    )
    root = next(name for name, one in inner.items() if one.line.lstrip().startswith("ROOT"))
    tops = inner[root].operands if inner[root].opcode == "tuple" else [root]
    return read, sum(_written_of(inner, top) for top in tops if top in inner)


def _read_of(inner, users, name):
    todo, parts, whole = [name], 0, _size(inner[name].result)
    while todo:
        for user, position in users[todo.pop()]:
            kind = inner[user].opcode
            if kind == "bitcast":
                todo.append(user)
            elif kind in ("dynamic-slice", "slice", "gather") and position == 0:
                parts += _size(inner[user].result)
            elif not (kind in ("dynamic-update-slice", "scatter") and position == 0):
                return whole
    return min(parts, whole)


def _written_of(inner, top):
    place = top
    while inner[place].opcode in ("bitcast", "convert", "copy") and inner[place].operands:
        place = inner[place].operands[0]
    # An update in place writes the slice alone.
    chosen = inner[place].operands[1] if inner[place].opcode == "dynamic-update-slice" else top
    return _size(inner[chosen].result) if chosen in inner else 0
