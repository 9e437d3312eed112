"""A model that costs nothing, for tests of what is built around one."""

import threading
import zlib
from types import SimpleNamespace

import numpy as np

from dwa_jax.data import Encoded
from dwa_jax.finetune.predictor import Predictions, Predictor


def score_of(text):
    """What the model below says of a text."""
    return zlib.crc32(" ".join(text.split()).encode()) / 2**31 - 1


class Costless:
    """A model whose scores are its texts' checksums; "?" is no token of it, "fail" fails it."""

    names = ("down", "still", "up")
    thresholds = np.array([-0.3, 0.3])
    batch_size = 8
    coverage, intervals = 0.9, "marginal"
    each = Predictor.each

    def __init__(self):
        self.config = SimpleNamespace(
            tasks=("regression", "classification"),
            num_classes=3,
            score_range=None,
            normalize_tweets=False,
        )
        tokenizer = SimpleNamespace(mask_token="[MASK]")
        self.run = SimpleNamespace(max_tokens=16, tokenizer=tokenizer, config=self.config)
        self.computed = []
        self.go_on = threading.Event()
        self.go_on.set()

    def warm_up(self, shapes):
        return {shape: 1e-6 * (50 + shape[0] * shape[1]) for shape in shapes}

    def tokens(self, texts, *, allow_wordless):
        ids = [np.frombuffer(" ".join(text.split()).encode(), np.uint8) for text in texts]
        long = np.array([len(text.split()) > 16 for text in texts])
        # A token a word, at most; what is computed is of the bytes.
        rows = [Counted(row[:], len(text.split())) for row, text in zip(ids, texts, strict=True)]
        wordless = np.array([text == "?" for text in texts])
        return Encoded(rows, long, wordless, np.zeros(len(texts), int))

    def predict_tokens(self, encoded, *, abstain=None):
        self.go_on.wait(10)
        texts = [row.bytes.tobytes().decode() for row in encoded.ids]
        self.computed.append(texts)
        if "fail" in texts:
            raise RuntimeError("a secret of the text")
        scores = np.array([score_of(text) for text in texts])
        odds = np.stack([(1 - scores) / 2, np.zeros(len(texts)), (1 + scores) / 2], 1)
        return Predictions(scores, odds.argmax(1), odds, None, encoded.truncated)


class Counted:
    """Bytes of a text that count as fewer tokens."""

    def __init__(self, values, count):
        self.bytes, self._count = values, max(1, min(16, count))

    def __len__(self):
        return self._count
