"""Headlines: the built-in data set, made-up currency news scored by its own grammar.

The score is how good the news is for the currency or pair named first. It is built
from the parts of the headline, so it has to be read and not just looked up::

    strength          "surges" is far up, "dips" is a little down
    degree            "slides sharply" is stronger, "slides slightly" weaker
    negation          "fails to rally" turns the sign and halves it
    hedge             "may rally" halves it
    order             in "rallies then tumbles" the end counts most, in "rallies after
                      tumbling" the start; "but" counts what follows it more, "though" less
    whose             "Euro gains as Dollar slides" is good, "Dollar slides as Euro gains" bad
    events, levels    "ahead of the ECB decision", "near 1.0850": no news about direction

The distribution has the shape of scored financial news: about half of the scores lie
within 0.2 of zero, extremes are rare, rises outnumber falls.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from dwa_jax.data.long_texts import pieces
from dwa_jax.data.rows import Rows
from dwa_jax.data.tokens import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

T = TypeVar("T")

NOISE = 0.04  # standard deviation of the label noise: two readers never agree exactly

# Pair or currency -> a usual level and its decimals; None where no level is quoted.
_PAIRS = {
    "EUR/USD": (1.085, 4),
    "GBP/USD": (1.262, 4),
    "USD/JPY": (149.5, 2),
    "AUD/USD": (0.657, 4),
    "NZD/USD": (0.612, 4),
    "USD/CAD": (1.354, 4),
    "USD/CHF": (0.884, 4),
    "EUR/GBP": (0.857, 4),
    "EUR/JPY": (162.3, 2),
    "GBP/JPY": (188.8, 2),
    "EUR/CHF": (0.958, 4),
    "USD/CNH": (7.215, 4),
    "USD/MXN": (17.05, 3),
}
_CURRENCIES = ("Euro", "Dollar", "Pound", "Yen", "Aussie", "Kiwi", "Loonie", "Swiss franc")


class _Move(NamedTuple):
    """A verb: third person, bare form, gerund; its score; how often; whether it takes a degree."""

    third: str
    bare: str
    gerund: str
    score: float
    weight: float
    takes_degree: bool


_MOVES = (
    _Move("skyrockets", "skyrocket", "skyrocketing", 0.95, 2, False),
    _Move("soars", "soar", "soaring", 0.88, 4, False),
    _Move("surges", "surge", "surging", 0.80, 6, False),
    _Move("rallies", "rally", "rallying", 0.68, 8, True),
    _Move("jumps", "jump", "jumping", 0.62, 6, False),
    _Move("rebounds", "rebound", "rebounding", 0.48, 6, True),
    _Move("climbs", "climb", "climbing", 0.44, 8, True),
    _Move("advances", "advance", "advancing", 0.40, 7, True),
    _Move("rises", "rise", "rising", 0.36, 8, True),
    _Move("strengthens", "strengthen", "strengthening", 0.38, 6, True),
    _Move("firms", "firm", "firming", 0.26, 6, True),
    _Move("edges up", "edge up", "edging up", 0.14, 8, False),
    _Move("inches higher", "inch higher", "inching higher", 0.11, 6, False),
    _Move("ticks up", "tick up", "ticking up", 0.09, 5, False),
    _Move("ticks down", "tick down", "ticking down", -0.09, 5, False),
    _Move("edges lower", "edge lower", "edging lower", -0.13, 7, False),
    _Move("dips", "dip", "dipping", -0.17, 6, True),
    _Move("eases", "ease", "easing", -0.20, 6, True),
    _Move("softens", "soften", "softening", -0.26, 5, True),
    _Move("weakens", "weaken", "weakening", -0.35, 6, True),
    _Move("retreats", "retreat", "retreating", -0.38, 5, True),
    _Move("falls", "fall", "falling", -0.41, 7, True),
    _Move("drops", "drop", "dropping", -0.46, 6, True),
    _Move("slides", "slide", "sliding", -0.50, 6, True),
    _Move("sinks", "sink", "sinking", -0.62, 4, True),
    _Move("tumbles", "tumble", "tumbling", -0.72, 5, False),
    _Move("plunges", "plunge", "plunging", -0.85, 4, False),
    _Move("collapses", "collapse", "collapsing", -0.95, 2, False),
)
_DEGREES = (
    ("sharply", 1.45), ("strongly", 1.3), ("further", 1.1),
    ("modestly", 0.6), ("slightly", 0.4), ("marginally", 0.3),
)  # fmt: skip
_NEGATIONS = ("fails to", "does not", "is unable to", "is yet to", "refuses to")
_NEGATION = -0.5
_HEDGES = (("may", 0.5), ("could", 0.55), ("might", 0.4), ("is set to", 0.8), ("is likely to", 0.7))
_HEDGED_NEGATIONS = (("may fail to", 0.5), ("is unlikely to", 0.7), ("might not", 0.4))
_VIEWS = (
    ("outlook brightens", 0.55), ("momentum builds", 0.45), ("bulls stay in control", 0.5),
    ("dip buyers return", 0.35), ("downside looks limited", 0.25), ("support holds firm", 0.2),
    ("resistance caps the move", -0.2), ("upside looks limited", -0.25),
    ("sellers lurk above", -0.3), ("momentum fades", -0.4), ("bears stay in control", -0.5),
    ("outlook dims", -0.55),
)  # fmt: skip
_MOODS = (
    ("improving risk appetite", 0.3), ("upbeat growth data", 0.35), ("a hawkish surprise", 0.4),
    ("souring risk appetite", -0.3), ("downbeat growth data", -0.35), ("a dovish surprise", -0.4),
)  # fmt: skip
_EVENTS = (
    "the ECB decision", "the Fed decision", "the BoE decision", "the BoJ meeting",
    "the RBA minutes", "US NFP", "US CPI", "Eurozone PMI data", "UK inflation data",
    "the GDP release", "Powell's testimony", "Lagarde's speech", "retail sales figures",
    "month-end flows",
)  # fmt: skip
_STILL = (
    "steady", "little changed", "flat", "range-bound", "in a tight range", "holds its ground",
    "consolidates", "treads water", "trades sideways",
)  # fmt: skip
_BANKS = ("ING", "Commerzbank", "Rabobank", "MUFG", "Danske", "Scotiabank", "UOB", "SocGen")


class _Draw:
    """Seeded choices, all from one stream of uniform numbers: the same on every platform."""

    def __init__(self, seed: int):
        self._uniform = np.random.default_rng(seed).random

    def chance(self, probability: float) -> bool:
        return self._uniform() < probability

    def one_of(self, items: Sequence[T]) -> T:
        return items[int(self._uniform() * len(items))]

    def weighted(self, items: Sequence[T], weights: Sequence[float]) -> T:
        bounds = np.cumsum(weights)
        found = np.searchsorted(bounds, self._uniform() * bounds[-1], side="right")
        return items[min(int(found), len(items) - 1)]

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self._uniform()

    def noise(self) -> float:
        # Twelve uniform numbers have variance 1 together, and no tails to clip. Not sum():
        # how it rounds depends on Python's version.
        total = -6.0
        for _ in range(12):
            total += self._uniform()
        return total


def _saturate(score: float) -> float:
    return max(-0.97, min(0.97, score))


def _move(draw: _Draw) -> _Move:
    return draw.weighted(_MOVES, [move.weight for move in _MOVES])


def _predicate(draw: _Draw) -> tuple[str, float]:
    """Returns what the subject does, and its score: degree, then negation, then hedge."""
    move = _move(draw)
    degree, factor = "", 1.0
    if move.takes_degree and draw.chance(0.35):
        word, factor = draw.one_of(_DEGREES)
        degree = " " + word
    score = _saturate(move.score * factor)
    mood = draw.weighted(("plain", "hedged", "negated", "both"), (62, 16, 16, 6))
    if mood == "hedged":
        word, factor = draw.one_of(_HEDGES)
        return f"{word} {move.bare}{degree}", score * factor
    if mood == "negated":
        return f"{draw.one_of(_NEGATIONS)} {move.bare}{degree}", score * _NEGATION
    if mood == "both":
        word, factor = draw.one_of(_HEDGED_NEGATIONS)
        return f"{word} {move.bare}{degree}", score * _NEGATION * factor
    return move.third + degree, score


def _level(draw: _Draw, subject: str) -> str:
    usual, decimals = _PAIRS[subject]
    return f"{usual * draw.between(0.97, 1.03):.{decimals}f}"


def _tail(draw: _Draw, subject: str) -> str:
    """Returns words without a direction: a level, an event."""
    level = ""
    if subject in _PAIRS and draw.chance(0.6):
        level = f" {draw.one_of(('near', 'around', 'at'))} {_level(draw, subject)}"
    event = ""
    if draw.chance(0.6):
        event = f" {draw.one_of(('ahead of', 'after', 'following'))} {draw.one_of(_EVENTS)}"
    return level + event


def _simple(draw: _Draw, subject: str) -> tuple[str, float]:
    words, score = _predicate(draw)
    return f"{subject} {words}{_tail(draw, subject)}", score


def _with_mood(draw: _Draw, subject: str) -> tuple[str, float]:
    words, score = _predicate(draw)
    mood, mood_score = draw.one_of(_MOODS)
    if score * mood_score > 0:
        word, share = draw.one_of((("on", 0.25), ("amid", 0.15)))
    else:
        word, share = "despite", 0.15
    return f"{subject} {words} {word} {mood}", _saturate(score + share * mood_score)


def _contrast(draw: _Draw, subject: str) -> tuple[str, float]:
    words, score = _predicate(draw)
    view, view_score = draw.one_of(_VIEWS)
    if score * view_score > 0:
        word, share = " and", 0.4
    else:
        word, share = draw.one_of(
            ((" but", 0.6), (", yet", 0.6), (" though", 0.35), (" even as", 0.25))
        )
    return f"{subject} {words}{word} {view}", (1 - share) * score + share * view_score


def _sequence(draw: _Draw, subject: str) -> tuple[str, float]:
    first = second = _move(draw)
    while second is first:
        second = _move(draw)
    form = draw.one_of(("then", "before", "after"))
    tail = f" {draw.one_of(('ahead of', 'following'))} {draw.one_of(_EVENTS)}"
    if form == "then":
        return (
            f"{subject} {first.third} then {second.third}{tail}",
            0.25 * first.score + 0.75 * second.score,
        )
    share = 0.7 if form == "before" else 0.25
    return (
        f"{subject} {first.third} {form} {second.gerund}{tail}",
        (1 - share) * first.score + share * second.score,
    )


def _against(draw: _Draw, subject: str) -> tuple[str, float]:
    words, score = _predicate(draw)
    first = draw.one_of(_CURRENCIES)
    other = draw.one_of([name for name in _CURRENCIES if name != first])
    rival = _move(draw)
    event = f" {draw.one_of(('ahead of', 'after'))} {draw.one_of(_EVENTS)}"
    text = f"{first} {words} as {other} {rival.third}{event if draw.chance(0.6) else ''}"
    return text, _saturate(score - 0.25 * rival.score)


def _opinion(draw: _Draw, subject: str) -> tuple[str, float]:
    move = _move(draw)
    target = f" to {_level(draw, subject)}" if subject in _PAIRS else ""
    word, factor = draw.one_of((("sees", 0.75), ("rules out", -0.6), ("no longer sees", -0.5)))
    return f"{draw.one_of(_BANKS)} {word} {subject} {move.gerund}{target}", move.score * factor


def _neutral(draw: _Draw, subject: str) -> tuple[str, float]:
    event = draw.one_of(_EVENTS)
    if subject in _PAIRS and draw.chance(0.7):
        level = f" {draw.one_of(('near', 'around', 'at'))} {_level(draw, subject)}"
    else:
        level = ""
    if draw.chance(0.75):
        when = draw.one_of(("ahead of", "after", "as traders await", "as markets digest"))
        return f"{subject} {draw.one_of(_STILL)}{level} {when} {event}", 0.0
    bank, what = draw.one_of(_BANKS), draw.one_of(("levels to watch", "what to expect", "preview"))
    return f"{subject}: {what} for {event}, by {bank}", 0.0


_Form = Callable[[_Draw, str], tuple[str, float]]
_FORMS: tuple[tuple[_Form, float], ...] = (
    (_simple, 31),
    (_with_mood, 12),
    (_contrast, 14),
    (_sequence, 9),
    (_against, 11),
    (_opinion, 7),
    (_neutral, 16),
)


def generate(num_rows: int, seed: int) -> Rows:
    """Generates scored headlines.

    Args:
        num_rows: N, at least 1.
        seed: non-negative integer; a longer run begins with the rows of a shorter one.

    Returns:
        N rows with a score and without a category; a few texts repeat.

    Raises:
        ValueError: `num_rows` is below 1 or `seed` is negative.
    """
    if num_rows < 1 or seed < 0:
        raise ValueError(f"num_rows >= 1 and seed >= 0 expected, got {num_rows} and {seed}")
    draw = _Draw(seed)
    subjects = (*_PAIRS, *_CURRENCIES)
    texts, scores = [], []
    for _ in range(num_rows):
        form = draw.weighted(*zip(*_FORMS, strict=True))
        text, score = form(draw, draw.one_of(subjects))
        texts.append(text)
        scores.append(round(max(-1.0, min(1.0, score + NOISE * draw.noise())), 4))
    return Rows(
        texts=texts,
        scores=np.asarray(scores, dtype=np.float64),
        categories=np.full(num_rows, -1, dtype=np.int32),
        origin=[("headlines", row) for row in range(1, num_rows + 1)],
    )


def tokenizer(texts: Sequence[str], vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """Trains a small tokenizer on the given texts, with RoBERTa's special tokens.

    Byte-level BPE: no text is out of vocabulary. The same texts give the same tokenizer.

    Args:
        texts: what to train on.
        vocab_size: most entries, at least 261 (256 bytes and 5 special tokens).

    Returns:
        A tokenizer that writes `<s> text </s>`, pads with id 1, and has `save_pretrained`.

    Raises:
        ValueError: `vocab_size` cannot hold the bytes and the special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # the first four at RoBERTa's ids
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(special) + len(alphabet):
        least = len(special) + len(alphabet)
        raise ValueError(f"vocab_size is at least {least}, got {vocab_size}")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    # The tokenizer's records of a text are dozens of times its size. Its words, which are all
    # that it counts, begin with the space before them, and so do pieces.
    bpe.train_from_iterator(
        itertools.chain.from_iterable(map(pieces, texts)),
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=special,
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return quiet_transformers().PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=512,
    )
