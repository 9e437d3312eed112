"""The families, one file each: a file in this folder with a `FAMILY` is all that one takes.

No arrays, so no axis letters.
"""

import importlib
import pkgutil

from dwa_jax.backbones.family import register

for _module in sorted(found.name for found in pkgutil.iter_modules(__path__)):
    register(importlib.import_module(f"{__name__}.{_module}").FAMILY)
