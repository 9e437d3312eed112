"""The table of families: empty here, filled by `dwa_jax.backbones.families`.

It lies below everything that looks a family up, and knows nothing of any of them.

No arrays, so no axis letters.
"""

from typing import Any

# model_type -> the `Family` of that name.
FAMILIES: dict[str, Any] = {}
