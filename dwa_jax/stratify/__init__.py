"""Stratifiers: from continuous scores to the thresholds of K ordered categories.

`fit` chooses thresholds by a stratifier's name, `categorize` applies them. `das` is dynamic
adaptive stratification, the others are its rivals.

Axes: N scores, K categories.
"""

from dwa_jax.stratify.adaptive import das as das
from dwa_jax.stratify.descent import default_bandwidth as default_bandwidth
from dwa_jax.stratify.descent import descend as descend
from dwa_jax.stratify.descent import kernel_density as kernel_density
from dwa_jax.stratify.descent import project as project
from dwa_jax.stratify.descent import threshold_gradient as threshold_gradient
from dwa_jax.stratify.exact import default_candidates as default_candidates
from dwa_jax.stratify.objective import Balance as Balance
from dwa_jax.stratify.objective import balance as balance
from dwa_jax.stratify.objective import categorize as categorize
from dwa_jax.stratify.objective import das_objective as das_objective
from dwa_jax.stratify.objective import quantile_thresholds as quantile_thresholds
from dwa_jax.stratify.objective import stratum_counts as stratum_counts
from dwa_jax.stratify.stratifiers import STRATIFIERS as STRATIFIERS
from dwa_jax.stratify.stratifiers import fit as fit
from dwa_jax.stratify.stratifiers import names as names
