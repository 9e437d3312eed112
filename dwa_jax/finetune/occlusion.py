"""Which words a prediction rests on: what it loses when each of them is hidden in turn.

Source: Li, Monroe and Jurafsky 2016, "Understanding neural networks through
representation erasure".
"""

from collections.abc import Sequence

import numpy as np

from dwa_jax import data
from dwa_jax.finetune.predictor import Predictions, Predictor


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
    run, mask = predictor.run, predictor.run.tokenizer.mask_token
    hidden, owners, explained = [], [], []
    for row, text in enumerate(texts):
        # Not all words of a text of megabytes: the last of these is what is left of it.
        words = text.split(maxsplit=run.max_tokens)
        tried, left = words[: run.max_tokens], words[run.max_tokens :]
        if run.config.normalize_tweets:
            tried = [data.normalize_tweet(word) for word in tried]
        explained.append([{"word": word} for word in tried])
        for i in range(len(tried)):
            rest = [*tried[:i], *([mask] if mask else []), *tried[i + 1 :], *left]
            owners.append((row, i))
            hidden.append(rest)
    place: dict[int, int] = {}
    ids: list[np.ndarray] = []
    for i, rest in enumerate(hidden):
        # One by one, and tokenized at once: each may be as long as the text.
        encoded = predictor.tokens([" ".join(rest)], allow_wordless=True)
        if not encoded.wordless[0]:
            place[i] = len(ids)
            ids += encoded.ids
    without = predictor.predict_ids(ids)
    for i, (row, word) in enumerate(owners):
        entry, at = explained[row][word], place.get(i)
        if whole.score is not None and without.score is not None:
            lost = None if at is None else abs(whole.score[row]) - abs(without.score[at])
            entry["score"] = _rounded(lost)
        if whole.probabilities is not None and without.probabilities is not None:
            category = whole.category[row]
            lost = None
            if at is not None:
                lost = whole.probabilities[row, category] - without.probabilities[at, category]
            entry["probability"] = _rounded(lost)
    return explained


def _rounded(number):
    return None if number is None or not np.isfinite(number) else round(float(number), 6)
