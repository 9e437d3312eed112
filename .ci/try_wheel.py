"""What a user of the wheel does, in a folder that has a `configs.py` and an `experiments/`."""

import importlib.metadata
import sys
from pathlib import Path

top_level = {
    path.parts[0]
    for path in importlib.metadata.files("dwa_jax")
    if not path.parts[0].endswith(".dist-info")
}
assert top_level == {"dwa_jax"}, top_level

import configs  # noqa: E402
import experiments  # noqa: E402

assert configs.WHOSE == experiments.WHOSE == "the user's"

import dwa_jax  # noqa: E402

assert Path(dwa_jax.__file__).is_relative_to(sys.prefix), dwa_jax.__file__
rows = dwa_jax.data.headlines.generate(200, seed=0)
model = dwa_jax.train(list(rows.texts), list(rows.scores), epochs=1, max_length=32)
(found,) = model(["EUR/USD jumps after ECB"])
assert -1.5 < found.score < 1.5 and found.category in range(5) and len(found.probabilities) == 5
model.save("kept")
assert dwa_jax.load("kept")(["EUR/USD jumps after ECB"]) == [found]
model.export("out")
assert Path("out/regression/config.json").is_file()
print("wheel: trained on two lists, predicted, saved, loaded and exported")
