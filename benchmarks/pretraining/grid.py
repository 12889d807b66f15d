"""The recipe of the experiment: data, one budget for all, and the methods that share it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from manifests import UsageError, build_record, read_recipe_table

from .comparisons import BASELINE

FAMILIES = ("ssdet", "bsp", "pal")
PAIRS = ("pal", "clip_pair")  # kinds whose samples are two views
CONTRASTIVE = ("pal", "moco")  # objectives with a queue of keys


@dataclass(frozen=True)
class Videos:
    """Arguments of `make_demo_videos`: trimmed clips to pretrain on, long videos to probe with.

    Attributes:
        seed: Of every video.
        num_train_per_class: Trimmed clips of each of the eight classes.
        num_untrimmed: Long videos: every other one is for training heads, the others for scoring.
        untrimmed_seconds: Length of each of them.
        trimmed_frames: Least and largest length of a trimmed clip.
    """

    seed: int
    num_train_per_class: int
    num_untrimmed: int
    untrimmed_seconds: float
    trimmed_frames: tuple[int, int]


@dataclass(frozen=True)
class Budget:
    """What every method may spend, whatever its samples look like.

    Attributes:
        steps: Gradient steps.
        frames_per_step: Frames that the encoder sees per step; with the frames of a sample it gives
            the batch size.
        frames_per_video: Rendered frames per trimmed clip; gives the number of samples.
        start_steps: Steps of classification that lead to the encoder from which methods start.
        score_at: Shares of the steps after which encoders are scored, ascending, the last 1.
    """

    steps: int
    frames_per_step: int
    frames_per_video: int
    start_steps: int
    score_at: tuple[float, ...] = (0.25, 0.5, 1.0)

    def __post_init__(self) -> None:
        if list(self.score_at) != sorted(set(self.score_at)) or self.score_at[-1:] != (1.0,):
            raise ValueError(f"score_at must ascend to 1, got {list(self.score_at)}")
        if self.start_steps < 1:
            raise ValueError(f"start_steps must be >= 1, got {self.start_steps}")
        if len({0, *self.steps_scored}) <= len(self.score_at):
            raise ValueError(f"score_at must be different steps, got {list(self.steps_scored)}")

    @property
    def steps_scored(self) -> tuple[int, ...]:
        """Steps after which encoders are scored."""
        return tuple(round(share * self.steps) for share in self.score_at)


@dataclass(frozen=True)
class Snippets:
    """How features are extracted from the long videos.

    Attributes:
        fps: Frames per second, as "15" or "15/2".
        snippet_len: Frames of a snippet.
        snippet_stride: Frames between snippets.
        batch: Snippets per forward pass.
    """

    fps: str
    snippet_len: int
    snippet_stride: int
    batch: int = 16

    @property
    def rate(self) -> Fraction:
        """Frames per second."""
        return Fraction(self.fps)


@dataclass(frozen=True)
class Method:
    """A way to pretrain an encoder, or to put pretrained ones together.

    Attributes:
        name: Unique.
        families: Tables in which it stands.
        seeds: Number of independent runs.
        control: Method that it is compared with besides the baseline; "" for none.
        synth: Keys of `[synth]` that differ from the grid's.
        train: Keys of `[train]` that differ from the grid's. With `steps` of its own it spends no
            budget, and is scored once.
        is_from_start: Its encoder starts as that of its seed's first classification, as SSDet's
            starts as a public one; else from nothing.
        teachers: Methods whose runs, of the same seed, are the teachers.
        concat: Methods whose features, of the same seed, lie side by side; nothing else is trained.
            One that is named again is trained again: from the same start, of other samples.
        average: Methods whose heads' probabilities are averaged; likewise.
    """

    name: str
    families: tuple[str, ...]
    seeds: int
    control: str = ""
    synth: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    is_from_start: bool = True
    teachers: tuple[str, ...] = ()
    concat: tuple[str, ...] = ()
    average: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.families or not set(self.families) <= set(FAMILIES):
            raise ValueError(f"families must be among {list(FAMILIES)}, got {list(self.families)}")
        if self.seeds < 1:
            raise ValueError(f"seeds must be >= 1, got {self.seeds}")
        if self.parts and (self.synth or self.train or self.teachers):
            raise ValueError(f"{self.name!r} puts others together and trains nothing of its own")
        if self.concat and self.average:
            raise ValueError(f"{self.name!r} either concatenates others or averages them, not both")
        if not self.parts and not ("kinds" in self.synth and "objective" in self.train):
            raise ValueError(f"{self.name!r} needs kinds in synth and an objective in train")

    @property
    def parts(self) -> tuple[str, ...]:
        """Methods that it puts together."""
        return self.concat or self.average

    @property
    def needs(self) -> tuple[str, ...]:
        """Methods whose runs of the same seed it uses."""
        return self.parts or self.teachers


@dataclass(frozen=True)
class Downstream:
    """What is done with the finished encoders of each family; all get the linear probe.

    Attributes:
        ssdet, bsp, pal: Names of `tasks.TASKS`.
        heads: Task -> settings of its head, as `features.probe` takes them; the papers' if none.
        finetune: `[train]` of the end-to-end fine-tuning ("frames"), beyond the grid's.
        finetune_synth: `[synth]` of its shards, beyond the grid's.
    """

    ssdet: tuple[str, ...] = ()
    bsp: tuple[str, ...] = ()
    pal: tuple[str, ...] = ()
    heads: dict[str, dict[str, Any]] = field(default_factory=dict)
    finetune: dict[str, Any] = field(default_factory=dict)
    finetune_synth: dict[str, Any] = field(default_factory=dict)

    def of(self, families: tuple[str, ...]) -> tuple[str, ...]:
        """Return the tasks of all these families, each once."""
        return tuple(dict.fromkeys(task for name in families for task in getattr(self, name)))


@dataclass(frozen=True)
class Grid:
    """The whole experiment.

    Attributes:
        videos, budget, snippets, downstream: See there.
        synth: `[synth]` of every method.
        train: `[train]` of every method.
        methods: In the order of the tables; the first is the baseline of all differences.
    """

    videos: Videos
    budget: Budget
    snippets: Snippets
    downstream: Downstream
    synth: dict[str, Any]
    train: dict[str, Any]
    methods: tuple[Method, ...]

    def __post_init__(self) -> None:
        if not self.methods or self.methods[0].name != BASELINE:
            raise ValueError(f"the first method must be {BASELINE!r}: others are compared with it")
        before: dict[str, int] = {}
        families = {method.name: set(method.families) for method in self.methods}
        for method in self.methods:
            if method.control and not families.get(method.control, set()) & {*method.families}:
                raise ValueError(
                    f"the control of {method.name!r} must be a method of its family, "
                    f"got {method.control!r}"
                )
            for name in method.needs:
                if before.get(name, 0) < method.seeds:
                    raise ValueError(
                        f"{method.name!r} needs {method.seeds} trained seeds of {name!r}, before "
                        f"it in the list, got {before.get(name, 0)}"
                    )
            if not method.parts:
                before[method.name] = method.seeds

    def synth_of(self, method: Method, seed: int) -> dict[str, Any]:
        """Return the `[synth]` table of a method: as many frames per clip as all others have."""
        table = merge(self.synth, method.synth)
        frames = frames_of_sample(table)
        samples = self.budget.frames_per_video / frames
        if samples != int(samples):
            raise UsageError(
                f"budget.frames_per_video must be a multiple of the {frames} frames of a sample of "
                f"{method.name!r}, got {self.budget.frames_per_video}"
            )
        return table | {"samples_per_video": int(samples), "seed": seed}

    def train_of(self, method: Method, seed: int) -> dict[str, Any]:
        """Return the `[train]` table of a method: as many steps and frames as all others have.

        A queue of keys is as long as a batch: in short runs old keys mislead.
        """
        return self._train(method, seed, self.steps_of(method))

    def steps_of(self, method: Method) -> tuple[int, ...]:
        """Return the steps after which the models of a method's run are kept, the last its end."""
        own = method.train.get("steps")
        return self.budget.steps_scored if own is None else (own,)

    def train_of_start(self, seed: int) -> dict[str, Any]:
        """Return the `[train]` table of the classification that methods start from."""
        return self._train(self.methods[0], seed, (self.budget.start_steps,))

    def _train(self, method: Method, seed: int, steps: Sequence[int]) -> dict[str, Any]:
        frames = frames_of_sample(merge(self.synth, method.synth))
        if self.budget.frames_per_step % frames:
            raise UsageError(
                f"budget.frames_per_step must be a multiple of the {frames} frames of a sample of "
                f"{method.name!r}, got {self.budget.frames_per_step}"
            )
        batch_size = self.budget.frames_per_step // frames
        own: dict[str, Any] = {
            "batch_size": batch_size,
            "steps": steps[-1],
            "keep_at": list(steps[:-1]),
            "seed": seed,
        }
        table = merge(self.train, method.train)
        if table["objective"] in CONTRASTIVE:
            own["objective_arguments"] = {"queue": batch_size}
        return merge(table, own)


def frames_of_sample(synth: Mapping[str, Any]) -> int:
    """Return the frames of a sample of a `[synth]` table; a pair has two views of so many."""
    return synth["frames"] * (2 if set(synth["kinds"]) & set(PAIRS) else 1)


def merge(table: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with the keys of another put over it; `kinds` is replaced as a whole."""
    merged = dict(table)
    for key, value in over.items():
        inner = merged.get(key)
        is_table = isinstance(value, dict) and isinstance(inner, dict) and key != "kinds"
        merged[key] = merge(inner, value) if is_table else value  # type: ignore[arg-type]
    return merged


PARTS: dict[str, type[Any]] = {
    "videos": Videos,
    "budget": Budget,
    "snippets": Snippets,
    "downstream": Downstream,
}


def read_grid(path: Path) -> Grid:
    """Read the recipe of an experiment, and the methods of the file beside it that it names.

    Raises:
        UsageError: No such file or table, an unknown key, a value of a wrong type or out of range.
    """
    table = read_recipe_table(path, "grid")
    keys = {*PARTS, "synth", "train", "methods"}
    for key in sorted(table.keys() ^ keys):
        state = "unknown" if key in table else "missing"
        raise UsageError(f"key {key!r} is {state} in [grid] (recipe {str(path)!r})")
    parts = {
        name: build_record(cls, table[name], f"grid.{name}", path) for name, cls in PARTS.items()
    }
    methods_path = path.with_name(str(table["methods"]))
    methods = tuple(
        build_record(Method, {"name": name} | entry, f"methods.{name}", methods_path)
        for name, entry in read_recipe_table(methods_path, "methods").items()
    )
    try:
        return Grid(**parts, synth=table["synth"], train=table["train"], methods=methods)
    except ValueError as err:
        raise UsageError(f"{err} ({str(methods_path)!r})") from err
