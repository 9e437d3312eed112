"""Sweeps: `get_sweep()` returns the fields of `experiments.sweeps.plan.Sweep`."""
