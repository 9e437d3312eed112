"""A sweep as data: methods x datasets x backbones x seeds -> runs with their command lines."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Sweep:
    """What is compared with what.

    Attributes:
      title: of the report.
      question: what the sweep is to answer, in a sentence or two.
      methods: name -> keys of the configuration that differ; the rows of the table.
      datasets: name -> keys; a text may hold {data}, the folder with the files, {streams},
        that of the files made here, and {seed}.
      backbones: name -> configuration file.
      seeds: of each cell; settles split, heads, order of rows and dropout.
      settings: keys shared by every run.
      baseline: the method that the others are compared with.
      axis: (label, {method: number}) where the methods are points of one scale.
      curves: whether the report shows how weights moved over the steps.
      streams: how files are made here from another one, its "source"; see `streams.write`,
        or, with the column "groups", `streams.write_groups`.
      candidates: method -> keys of which the validation split picks one, see `tuning`.
      shared: keys of which it picks one for all methods together, after that.
      tuning_seeds: of these choices; some of `seeds`.
      ends_of: method -> another one, where whose weights end it holds them constant.
      papers: the table or figure of the papers that this asks the question of, "table 2".
      papers_rows: method -> what that table calls it.
      full: the method whose time is 100 % of "time usage".
      chosen: (dataset, backbone, method) -> keys that `tuning` settled.
    """

    title: str
    question: str
    methods: Mapping[str, Mapping[str, Any]]
    datasets: Mapping[str, Mapping[str, Any]]
    backbones: Mapping[str, str]
    seeds: Sequence[int]
    settings: Mapping[str, Any] = field(default_factory=dict)
    baseline: str = ""
    axis: tuple[str, Mapping[str, float]] | None = None
    curves: bool = False
    streams: Mapping[str, Any] = field(default_factory=dict)
    candidates: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    shared: Sequence[Mapping[str, Any]] = ()
    tuning_seeds: Sequence[int] = ()
    ends_of: Mapping[str, str] = field(default_factory=dict)
    papers: str = ""
    papers_rows: Mapping[str, str] = field(default_factory=dict)
    full: str = ""
    chosen: Mapping[tuple[str, str, str], Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self):
        for name in ("methods", "datasets", "backbones", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"a sweep needs {name}; {self.title!r} has none")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={tuple(self.seeds)} has one twice")
        if not self.baseline:
            object.__setattr__(self, "baseline", next(iter(self.methods)))
        elif self.baseline not in self.methods:
            raise ValueError(
                f"baseline={self.baseline!r} is not one of the methods: {', '.join(self.methods)}"
            )
        if (self.candidates or self.shared or self.ends_of) and not self.tuning_seeds:
            raise ValueError(f"{self.title!r}: candidates, shared and ends_of need tuning_seeds")
        for method, other in self.ends_of.items():
            if other not in self.methods or other in self.ends_of:
                raise ValueError(f"ends_of: {method!r} cannot follow {other!r}")

    def runs(self) -> "list[Run]":
        """Returns every run that is settled, all methods of the first seed first."""
        return [
            self.run(dataset, backbone, method, seed)
            for seed in self.seeds
            for dataset in self.datasets
            for backbone in self.backbones
            for method in self.methods
            if self.is_settled(dataset, backbone, method)
        ]

    def is_settled(self, dataset: str, backbone: str, method: str) -> bool:
        """Says whether nothing has to be chosen any more before the method can run."""
        waits = self.shared or method in self.candidates or method in self.ends_of
        return not waits or (dataset, backbone, method) in self.chosen

    def run(self, dataset: str, backbone: str, method: str, seed: int) -> "Run":
        """Returns one run."""
        keys = {**self.settings, **self.datasets[dataset], **self.methods[method]}
        keys |= self.chosen.get((dataset, backbone, method), {})
        return Run(dataset, backbone, method, seed, keys, self.backbones[backbone])

    def narrowed(self, **choices: Sequence) -> "Sweep":
        """Returns the sweep with some of its datasets, backbones, methods or seeds only.

        Raises:
          ValueError: a name is not in the sweep.
        """
        kept: dict[str, Any] = {}
        for key, names in choices.items():
            if not names:
                continue
            own = getattr(self, key)
            if key == "seeds":
                kept[key] = tuple(names)
                continue
            wrong = [name for name in names if name not in own]
            if wrong:
                raise ValueError(f"--{key}: {wrong[0]!r} is not one of {', '.join(own)}")
            kept[key] = {name: own[name] for name in names}
        if "methods" in kept:
            # With what they are compared with, and what their weights come from.
            followed = {
                own: self.methods[own] for own in map(self.ends_of.get, kept["methods"]) if own
            }
            baseline = {self.baseline: self.methods[self.baseline]}
            kept["methods"] = baseline | followed | kept["methods"]
            for key in ("candidates", "ends_of", "papers_rows"):
                own = getattr(self, key)
                kept[key] = {name: own[name] for name in own if name in kept["methods"]}
        if "seeds" in kept:
            tuning = tuple(seed for seed in self.tuning_seeds if seed in kept["seeds"])
            kept["tuning_seeds"] = tuning or tuple(kept["seeds"][:1])
        return replace(self, **kept)

    def with_backbones(self, backbones: Mapping[str, str]) -> "Sweep":
        """Returns the sweep with other backbones: name -> configuration file."""
        return replace(self, backbones=backbones)


@dataclass(frozen=True, eq=False)
class Run:
    """One cell of a sweep; equal to another one where the same runs, whatever it is called.

    Attributes:
      dataset: its name.
      backbone: its name.
      method: its name.
      seed: its seed.
      keys: what differs from the backbone's configuration, beside the seed.
      config: that configuration's file.
    """

    dataset: str
    backbone: str
    method: str
    seed: int
    keys: Mapping[str, Any]
    config: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def id(self) -> str:
        """Its folder below the cells': by what runs, so that sweeps share what they share."""
        return f"{self.program}/seed{self.seed}"

    @property
    def title(self) -> str:
        """What a reader calls it."""
        return f"{self.dataset}, {self.backbone}, {self.method}, seed {self.seed}"

    @property
    def program(self) -> str:
        """What it is but for its seed, and so what it compiles: its folder's parent."""
        text = json.dumps([self.config, dict(self.keys)], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        return f"{slug(self.dataset)}/{slug(self.backbone)}/{digest}"

    def command(
        self, places: Mapping[str, str], weights: Mapping[str, str], folder: Path
    ) -> list[str]:
        """Returns the arguments after `python` that run it.

        Args:
          places: what {data} and the like in texts stand for.
          weights: folders with the weights of some backbones.
          folder: of the cells.
        """
        return [
            "-m",
            "experiments.main",
            f"--config={self.config}",
            f"--workdir={folder / self.id}",
            *(f"--config.{key}={value}" for key, value in self.placed(places, weights).items()),
        ]

    def placed(self, places: Mapping[str, str], weights: Mapping[str, str]) -> dict[str, Any]:
        """Returns its keys, the seed among them, with texts that name places of this machine.

        Args:
          places: what {data} and the like in texts stand for.
          weights: folders with the weights of some backbones.
        """
        places = {**places, "seed": str(self.seed)}
        keys = {**self.keys, "seed": self.seed}
        if self.backbone in weights:
            keys["backbone"] = weights[self.backbone]
        for key, value in keys.items():
            # Only texts that name a place: other braces are none of ours.
            for place, text in places.items() if isinstance(value, str) else ():
                value = value.replace("{" + place + "}", text)
            keys[key] = value
        return keys


def slug(name: str) -> str:
    """Returns a name as a folder can bear it."""
    kept = "".join(c if c.isalnum() or c in "._" else "-" for c in name.lower())
    return "-".join(part for part in kept.split("-") if part)
