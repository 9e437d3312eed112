"""Which words a prediction rests on: what it loses when each of them is hidden in turn.

Source: Li, Monroe and Jurafsky 2016, "Understanding neural networks through
representation erasure".
"""

from collections.abc import Iterator, Sequence

import numpy as np

from dwa_jax import data
from dwa_jax.finetune.predictor import Prediction, Predictions, Predictor
from dwa_jax.finetune.saved import Trained


def explain(predictor: Predictor, texts: Sequence[str], whole: Predictions) -> list[list[dict]]:
    """Hides each word of each text, and tells what the prediction loses.

    A word is what stands between white space. Hidden, it is replaced by the tokenizer's mask
    token where it has one (most encoders), and left out where it has none (most decoders). A
    text costs one more prediction a word. Words beyond the number of tokens that the run
    allows are not tried.

    Args:
      predictor: of the run.
      texts: N texts.
      whole: their predictions.

    Returns:
      For each text its words in order, each as {"word", "score", "probability"}: by how much
      the score's absolute value, and the probability of the category that the whole text has,
      are smaller without it (so a negative number is a word that held them down). A key is
      absent where the run has no such task; both are None where nothing is left of the text.
    """
    place: dict[tuple[int, int], int] = {}
    ids: list[np.ndarray] = []
    explained: list[list[dict]] = []
    for row, text in enumerate(texts):
        words, hidden = hide_words(predictor.run, text)
        explained.append([{"word": word} for word in words])
        for i, rest in enumerate(hidden):
            # One by one: each may be as long as the text.
            encoded = predictor.tokens([rest], allow_wordless=True)
            if not encoded.wordless[0]:
                place[row, i] = len(ids)
                ids += list(encoded.ids)
    without = predictor.each(predictor.predict_ids(ids))
    for row, found in enumerate(predictor.each(whole)):
        for i, entry in enumerate(explained[row]):
            at = place.get((row, i))
            entry |= word_loss(found, None if at is None else without[at])
    return explained


def hide_words(run: Trained, text: str) -> tuple[list[str], Iterator[str]]:
    """Returns the words of a text that are tried, and for each the text in which it is hidden.

    Args:
      run: what was trained.
      text: any.
    """
    mask = run.tokenizer.mask_token
    # Not all words of a text of megabytes: the last of these is what is left of it.
    words = text.split(maxsplit=run.max_tokens)
    tried, left = words[: run.max_tokens], words[run.max_tokens :]
    if run.config.normalize_tweets:
        tried = [data.normalize_tweet(word) for word in tried]
    instead = [mask] if mask else []
    hidden = (" ".join([*tried[:i], *instead, *tried[i + 1 :], *left]) for i in range(len(tried)))
    return tried, hidden


def word_loss(whole: Prediction, without: Prediction | None) -> dict[str, float | None]:
    """Returns what a prediction loses without a word; see `explain`.

    Args:
      whole: of the whole text.
      without: of the text without the word; None where nothing is left of it.
    """
    lost: dict[str, float | None] = {}
    if whole.score is not None:
        score = None if without is None else without.score
        lost["score"] = None if score is None else _rounded(abs(whole.score) - abs(score))
    if whole.probabilities is not None:
        odds = None if without is None else without.probabilities
        before = whole.probabilities[whole.category]
        lost["probability"] = None if odds is None else _rounded(before - odds[whole.category])
    return lost


def _rounded(number):
    return round(float(number), 6) if np.isfinite(number) else None
