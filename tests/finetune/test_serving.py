"""Texts of many callers, predicted together."""

import asyncio
import contextlib
import itertools
import threading
import time

import numpy as np
import pytest

from dwa_jax.finetune import occlusion
from dwa_jax.finetune.serving.batcher import Batcher, Busy, Ended
from dwa_jax.finetune.serving.explanation import explain_text
from dwa_jax.finetune.serving.warm_shapes import choose_batch, overhead_in_tokens, warm_shapes
from tests.costless import Costless, score_of


@contextlib.contextmanager
def running(model, **options):
    batcher = Batcher(model, **options)
    batcher.warm_up()
    thread = threading.Thread(target=batcher.run)
    thread.start()
    try:
        yield batcher
    finally:
        model.go_on.set()
        batcher.close()
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize(("tokens", "steps"), [(16, 4), (64, 2)])
@pytest.mark.parametrize(("longest", "size", "multiple"), [(512, 32, 1), (20, 8, 2), (7, 1, 1)])
def test_every_text_fits_a_warm_shape_and_they_are_few(longest, size, multiple, tokens, steps):
    shapes = warm_shapes(longest, size, size * tokens, steps, multiple)
    assert max(length for _, length in shapes) == longest
    assert (multiple, longest) in shapes and len(set(shapes)) == len(shapes) <= 40
    assert all(rows % multiple == 0 and rows <= max(size, multiple) for rows, _ in shapes)
    assert all(rows == multiple or rows * length <= size * tokens for rows, length in shapes)


@pytest.mark.parametrize("seed", range(5))
def test_the_next_batch_is_the_fullest_that_holds_the_oldest(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 13, 7).tolist()
    shapes, overhead = [(1, 12), (2, 6), (4, 4), (4, 12)], 3.0

    def share(chosen, shape):
        rows, tokens = shape
        fits = len(chosen) <= rows and all(lengths[i] <= tokens for i in chosen)
        return sum(lengths[i] for i in chosen) / (rows * tokens + overhead) if fits else -1

    every = (
        share((0, *rest), shape)
        for count in range(4)
        for rest in itertools.combinations(range(1, 7), count)
        for shape in shapes
    )
    chosen = choose_batch(lengths, shapes, overhead)
    assert 0 in chosen and len(set(chosen)) == len(chosen)
    assert max(share(chosen, shape) for shape in shapes) == pytest.approx(max(every))


def test_the_overhead_is_where_the_line_begins():
    seconds = {(r, t): 1e-3 + 2e-5 * r * t for r, t in [(1, 8), (4, 16), (8, 64)]}
    assert overhead_in_tokens(seconds) == pytest.approx(50)
    assert overhead_in_tokens({(1, 8): 1.0}) == 0


def test_callers_share_batches_and_each_has_its_own_in_order():
    model = Costless()
    with running(model) as batcher:
        model.go_on.clear()
        first = batcher.submit(["held"])
        while not model.computed and batcher.waiting == 1 and batcher._rows:
            time.sleep(0.001)
        time.sleep(0.05)
        wanted = [[f"text {i} of {j}" for j in range(i + 1)] for i in range(6)]
        futures = [batcher.submit(texts) for texts in wanted]
        model.go_on.set()
        for texts, future in zip(wanted, futures, strict=True):
            assert [one.score for one in future.result(5)] == list(map(score_of, texts))
        assert first.result()[0].score == score_of("held")
    sizes = [len(texts) for texts in model.computed]
    assert sum(sizes) == 22 and len(sizes) < 8 and max(sizes) == 8


def test_a_text_without_a_token_keeps_its_place_and_no_texts_are_none():
    with running(Costless()) as batcher:
        found = batcher.submit(["a", "?", "b"]).result(5)
        assert [one and one.score for one in found] == [score_of("a"), None, score_of("b")]
        assert batcher.submit([]).result(5) == []
        assert batcher.waiting == 0


def test_what_fails_one_caller_leaves_the_others():
    with running(Costless()) as batcher:
        with pytest.raises(RuntimeError, match="a secret"):
            batcher.submit(["fail"]).result(5)
        assert batcher.submit(["well"]).result(5)[0].score == score_of("well")
        assert batcher.waiting == 0


def test_room_is_bounded_and_comes_back():
    model = Costless()
    with running(model, most_waiting=3) as batcher:
        model.go_on.clear()
        held = batcher.submit(["a", "b", "c"])
        with pytest.raises(Busy, match="the queue is full"):
            batcher.submit(["d"])
        model.go_on.set()
        held.result(5)
        assert batcher.submit(["d"]).result(5)[0].score == score_of("d")


def test_the_end_answers_what_was_taken_and_takes_no_more():
    model = Costless()
    model.go_on.clear()
    with running(model) as batcher:
        taken = [batcher.submit([f"text {i}"]) for i in range(20)]
        batcher.close()
        with pytest.raises(Ended):
            batcher.submit(["late"])
        model.go_on.set()
        assert [future.result(5)[0].score for future in taken] == [
            score_of(f"text {i}") for i in range(20)
        ]


def test_nobody_waits_for_a_model_that_died(monkeypatch):
    model = Costless()
    batcher = Batcher(model)
    batcher.warm_up()
    future = batcher.submit(["a"])

    def die(*given, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "predict_tokens", die)
    with pytest.raises(KeyboardInterrupt):
        batcher.run()
    with pytest.raises(Ended):
        future.result(1)
    with pytest.raises(Ended):
        batcher.submit(["b"])


def test_words_are_explained_between_others_texts():
    model, text = Costless(), " ".join(f"word{i}" for i in range(16))
    with running(model, most_waiting=40) as batcher:
        found = asyncio.run(explain_text(batcher, text))
        assert asyncio.run(explain_text(batcher, "?")).prediction is None
    assert found.prediction.score == score_of(text)
    words, hidden = occlusion.hide_words(model.run, text)
    losses = [abs(score_of(text)) - abs(score_of(rest)) for rest in hidden]
    assert [word["word"] for word in found.words] == words
    assert [word["score"] for word in found.words] == pytest.approx(losses, abs=1e-6)
