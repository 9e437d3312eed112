"""Word importance while others' texts are predicted: a few hidden words at a time."""

import itertools
from typing import NamedTuple

from dwa_jax.finetune.occlusion import hide_words, word_loss
from dwa_jax.finetune.predictor import Prediction
from dwa_jax.finetune.serving.batcher import Batcher
from dwa_jax.finetune.serving.waiting import predicted, predicted_when_there_is_room

# Words that are hidden at a time, so that others need not wait for a whole text's.
_AT_ONCE = 32


class Explanation(NamedTuple):
    """A prediction, and what it rests on.

    Attributes:
      prediction: of the text; None where it has no token.
      words: of the text, each as `occlusion.explain` has it.
    """

    prediction: Prediction | None
    words: list[dict]


async def explain_text(batcher: Batcher, text: str) -> Explanation:
    """Hides each word of a text, and tells what its prediction loses; see `occlusion.explain`.

    Args:
      batcher: of the model; one more prediction a word.
      text: that `data.cells.check_characters` takes.

    Raises:
      Busy: there is no room for the text; once it has begun, it waits for room.
      Ended: the end has begun.
    """
    (whole,) = await predicted(batcher, [text])
    if whole is None:
        return Explanation(None, [])
    words, hidden = hide_words(batcher.predictor.run, text)
    without: list[Prediction | None] = []
    while part := list(itertools.islice(hidden, _AT_ONCE)):
        without += await predicted_when_there_is_room(batcher, part)
    explained = [
        {"word": word} | word_loss(whole, found) for word, found in zip(words, without, strict=True)
    ]
    return Explanation(whole, explained)
