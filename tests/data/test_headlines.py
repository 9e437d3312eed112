"""The built-in headlines: the same everywhere, spread like real scores, and compositional."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dwa_jax.data import encode, headlines, load_tokenizer

CHECKSUM = "4ea7a5e6b2a79d4b"
PROGRAM = """
import hashlib
from dwa_jax.data import headlines
rows = headlines.generate(200, seed=42)
tokenizer = headlines.tokenizer(rows.texts, vocab_size=500)
lines = [f"{text}|{score:.4f}" for text, score in zip(rows.texts, rows.scores)]
print(hashlib.sha256("\\n".join(lines).encode()).hexdigest()[:16])
print(hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()[:16])
"""


@pytest.fixture(scope="module")
def rows():
    return headlines.generate(6000, seed=42)


def scores_where(rows, pattern):
    """Scores of the headlines that match all the way, their events and levels left aside."""
    tail = r"( (near|around|at) [\d.]+)?( (ahead of|after|following) (?!\w+ing )[\w' -]+)?"
    whole = re.compile(rf"[\w/]+( franc)? ({pattern}){tail}")
    return np.array([s for t, s in zip(rows.texts, rows.scores, strict=True) if whole.fullmatch(t)])


def test_the_first_rows_never_change():
    rows = headlines.generate(200, seed=42)
    lines = [f"{t}|{s:.4f}" for t, s in zip(rows.texts, rows.scores, strict=True)]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == CHECKSUM, (
        "the generator gives other headlines than it did: numbers published for the default"
        " data set no longer hold. If that is meant, say so and change the checksum."
    )


def test_another_process_gives_the_same_rows_and_tokenizer():
    outputs = set()
    for hash_seed in ("1", "2"):
        environment = os.environ | {
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": str(Path(headlines.__file__).parents[2]),
        }
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert outputs.pop().split()[0] == CHECKSUM


def test_a_longer_run_begins_with_the_shorter_and_seeds_differ(rows):
    shorter = headlines.generate(50, seed=42)
    assert shorter.texts == rows.texts[:50]
    np.testing.assert_array_equal(shorter.scores, rows.scores[:50])
    assert headlines.generate(50, seed=43).texts != shorter.texts


def test_rows_are_scored_and_have_no_category(rows):
    assert len(rows) == 6000
    assert np.all(np.abs(rows.scores) <= 1)
    assert np.all(rows.categories == -1)
    assert rows.origin[0] == ("headlines", 1) and rows.origin[-1] == ("headlines", 6000)
    assert all(text == " ".join(text.split()) for text in rows.texts)


def test_few_texts_repeat_and_scores_are_continuous(rows):
    assert len(set(rows.texts)) > 5500
    assert len(np.unique(rows.scores)) > 3000


def test_scores_are_spread_like_those_of_financial_news(rows):
    shares = np.histogram(rows.scores, bins=5, range=(-1, 1))[0] / len(rows)
    assert 0.45 < shares[2] < 0.55, "about half is neutral"
    assert np.all(shares[[0, 4]] > 0.03) and np.all(shares[[0, 4]] < 0.10), "extremes are rare"
    assert np.all(shares[[1, 3]] > 0.15)
    assert 0 < rows.scores.mean() < 0.06 and 0.3 < rows.scores.std() < 0.4
    tenths = np.histogram(rows.scores, bins=20, range=(-1, 1))[0]
    assert tenths.min() >= 30


UP, DOWN = "rally|rise|climb|advance|rebound", "fall|drop|slide|sink|retreat"
UPS, DOWNS = "rallies|rises|climbs|advances|rebounds", "falls|drops|slides|sinks|retreats"
NOT = "fails to|does not|is unable to|is yet to|refuses to"


def test_negation_flips_the_sign(rows):
    up, down = scores_where(rows, UPS), scores_where(rows, DOWNS)
    not_up, not_down = (
        scores_where(rows, f"({NOT}) ({UP})"),
        scores_where(rows, f"({NOT}) ({DOWN})"),
    )
    assert min(map(len, (up, down, not_up, not_down))) > 20
    assert up.min() > 0.15 and down.max() < -0.15
    assert not_up.max() < 0 and not_down.min() > 0
    # ... and takes half of it.
    assert not_up.mean() == pytest.approx(-up.mean() / 2, abs=0.04)
    assert not_down.mean() == pytest.approx(-down.mean() / 2, abs=0.04)


def test_hedges_shrink_and_degrees_scale(rows):
    plain = scores_where(rows, UPS).mean()
    assert 0.4 < scores_where(rows, f"(may|could|might) ({UP})").mean() / plain < 0.6
    assert scores_where(rows, f"({UPS}) (sharply|strongly)").mean() > 1.15 * plain
    assert scores_where(rows, f"({UPS}) (slightly|marginally)").mean() < 0.5 * plain


def test_events_and_levels_say_nothing_about_direction(rows):
    still = scores_where(rows, "steady|flat|little changed|trades sideways|treads water")
    assert len(still) > 50 and np.abs(still).max() < 0.25
    assert abs(still.mean()) < 0.02
    assert still.std() == pytest.approx(headlines.NOISE, rel=0.25)


def test_the_order_of_the_same_words_matters():
    rows = headlines.generate(20_000, seed=0)
    ups, downs = "surges|soars|rallies|jumps", "tumbles|plunges|sinks|slides"
    for then, sign in ((f"({ups}) then ({downs})", -1), (f"({downs}) then ({ups})", 1)):
        scores = scores_where(rows, then)
        assert len(scores) > 10 and np.all(np.sign(scores) == sign)
    # "Euro gains as Dollar slides": the news is about the one named first.
    first = scores_where(rows, rf"({ups}) as [\w ]+ ({downs})")
    second = scores_where(rows, rf"({downs}) as [\w ]+ ({ups})")
    assert len(first) > 10 and len(second) > 10
    assert first.min() > 0.4 and second.max() < -0.4


def test_a_bag_of_words_cannot_explain_the_scores(rows):
    words = sorted({word for text in rows.texts for word in re.findall("[a-z]+", text.lower())})
    index = {word: i for i, word in enumerate(words)}
    bags = np.zeros((len(rows), len(words) + 1))
    bags[:, -1] = 1
    for row, text in enumerate(rows.texts):
        for word in re.findall("[a-z]+", text.lower()):
            bags[row, index[word]] = 1
    fit, test = slice(0, 5000), slice(5000, None)
    gram = bags[fit].T @ bags[fit] + np.eye(bags.shape[1])
    predicted = bags[test] @ np.linalg.solve(gram, bags[fit].T @ rows.scores[fit])
    variance = rows.scores[test].var()
    explained = 1 - np.mean((rows.scores[test] - predicted) ** 2) / variance
    # It learns something, and leaves most of what noise leaves possible to a reader.
    assert 0.3 < explained < 0.6
    assert 1 - headlines.NOISE**2 / variance > 0.98


@pytest.mark.parametrize(("num_rows", "seed"), [(0, 0), (1, -1)])
def test_generate_refuses_nonsense(num_rows, seed):
    with pytest.raises(ValueError, match=r"num_rows >= 1 and seed >= 0"):
        headlines.generate(num_rows, seed)


# The tokenizer


def test_the_tokenizer_is_laid_out_like_robertas_and_loses_nothing(rows):
    tokenizer = headlines.tokenizer(rows.texts[:1000], vocab_size=600)
    assert len(tokenizer) <= 600
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    assert tokenizer.convert_tokens_to_ids(specials) == [0, 1, 2, 3]
    assert tokenizer.pad_token_id == 1 and tokenizer.mask_token == "<mask>"
    for text in (*rows.texts[:50], "Ünïcödé 円 🙂 never seen"):
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == 0 and ids[-1] == 2 and 3 not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_tokenizer_survives_its_folder(tmp_path, rows):
    tokenizer = headlines.tokenizer(rows.texts[:1000], vocab_size=600)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.pad_token_id == 1 and loaded.model_max_length == 512
    before, after = encode(tokenizer, rows.texts[:500], 12), encode(loaded, rows.texts[:500], 12)
    assert before.num_truncated == after.num_truncated > 0
    for one, other in zip(before.ids, after.ids, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_vocabulary_holds_at_least_every_byte():
    with pytest.raises(ValueError, match="vocab_size is at least 261, got 260"):
        headlines.tokenizer(["x"], vocab_size=260)
