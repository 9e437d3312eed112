"""What a batcher makes of texts, for those who wait for it without a thread of their own."""

import asyncio
from collections.abc import Sequence

from dwa_jax.finetune.predictor import Prediction
from dwa_jax.finetune.serving.batcher import Batcher, Busy


async def predicted(batcher: Batcher, texts: Sequence[str]) -> list[Prediction | None]:
    """Waits for predictions; see `Batcher.submit`.

    Raises:
      Busy: there is no room for as many.
      Ended: the end has begun.
    """
    return await asyncio.wrap_future(batcher.submit(texts))


async def predicted_when_there_is_room(
    batcher: Batcher, texts: Sequence[str]
) -> list[Prediction | None]:
    """Waits for room, and then for predictions.

    Raises:
      Ended: the end has begun.
    """
    while True:
        try:
            return await predicted(batcher, texts)
        except Busy as busy:
            await asyncio.sleep(min(1.0, max(0.01, busy.seconds / 2)))
