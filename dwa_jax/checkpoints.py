"""Checkpoints through Orbax: the best and the latest, whole or not at all.

Frozen parameters are not saved: they come from where they came from the first time.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from dwa_jax.training import TrainState


def _saved_part(state: TrainState) -> dict[str, Any]:
    # Orbax knows numbers only: keys, of which a weighting may hold one too, go as theirs.
    tree = state._asdict()
    del tree["frozen"]
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def _describe(state):
    # Path -> type and shape of every array, as plain text.
    leaves = jax.tree.leaves_with_path(_saved_part(state))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in leaves
    }


def _is_key(x):
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


# Key of the description of the arrays, beside the progress.
_ARRAYS = "_arrays"


class Checkpoints:
    """A folder of checkpoints, each a train state and a small dict of progress.

    The latest one and the best one are kept. "Best" is the highest "merit" among those
    that carry one, so keeping it can never delete the latest.
    """

    def __init__(self, folder: str | Path):
        """Opens or makes the folder.

        Args:
          folder: where the checkpoints are.
        """

        def merit(metrics):
            return metrics["merit"]

        best = BestN(get_metric_fn=merit, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            # The policy decides what stays; without best_fn no metrics would be written.
            best_fn=merit,
            preservation_policy=AnyPreservationPolicy([LatestN(1), best]),
            cleanup_tmp_directories=True,
            enable_async_checkpointing=False,
        )
        self._manager = ocp.CheckpointManager(Path(folder).absolute(), options=options)

    def save(self, state: TrainState, progress: dict, *, merit: float | None = None) -> None:
        """Saves a state at its step, if it is not there yet; returns once it is on disk.

        Args:
          state: what to save, but for `frozen`.
          progress: JSON values that belong to it.
          merit: what makes one checkpoint better than another; None: not a candidate.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_saved_part(state)),
                progress=ocp.args.JsonSave({**progress, _ARRAYS: _describe(state)}),
            ),
            metrics=None if merit is None else {"merit": float(merit)},
            force=True,
        )
        self._manager.wait_until_finished()

    def latest(self) -> int | None:
        """Returns the latest step saved, or None."""
        return self._manager.latest_step()

    def restore(self, state: TrainState, step: int) -> tuple[TrainState, dict]:
        """Restores a step.

        Args:
          state: of the same shapes; gives `frozen` and where arrays live.
          step: one that was saved.

        Returns:
          (state, progress).

        Raises:
          ValueError: the checkpoint does not fit the state (lists the differences), or is
            damaged.
        """
        try:
            progress = dict(self._read(step, progress=ocp.args.JsonRestore()).progress)
            self._check(step, progress.pop(_ARRAYS), _describe(state))
            target = jax.tree.map(ocp.utils.to_shape_dtype_struct, _saved_part(state))
            restored = self._read(step, state=ocp.args.StandardRestore(target)).state
        except (KeyError, TypeError, OSError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"the checkpoint of step {step} in {self._manager.directory} is damaged: {reason}"
            ) from error
        like = state._asdict()
        del like["frozen"]
        tree = jax.tree.map(
            lambda x, old: (
                jax.random.wrap_key_data(x, impl=jax.random.key_impl(old)) if _is_key(old) else x
            ),
            dict(restored),
            like,
        )
        return TrainState(**tree, frozen=state.frozen), progress

    def _read(self, step, **items):
        return self._manager.restore(step, args=ocp.args.Composite(**items))

    def _check(self, step, there, here):
        # Before the arrays are read: Orbax's own message does not say what differs.
        paths = sorted(path for path in {**there, **here} if there.get(path) != here.get(path))
        if paths:
            changes = [f"{p}: {there.get(p)} there, {here.get(p)} here" for p in paths[:5]]
            more = [f"and {len(paths) - 5} more"] if len(paths) > 5 else []
            raise ValueError(
                f"the checkpoint of step {step} in {self._manager.directory} does not fit this "
                f"run: {'; '.join(changes + more)}"
            )

    def close(self) -> None:
        """Releases the folder."""
        self._manager.close()
