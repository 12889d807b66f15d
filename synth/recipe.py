"""The recipe of a dataset: the `[synth]` table of a TOML file, ranges and probabilities only."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from manifests import build_record, read_recipe_table

from .mixup import Boundary, Scenarios
from .views import LARGEST_SIDE

KINDS = ("clip", "freeze", "mixup", "cutmix_window", "cutmix_view")
MIXING_KINDS = ("mixup", "cutmix_window", "cutmix_view")
SHORTEST_MIX = 4  # frames; shorter clips have no room for the second scenario


@dataclass(frozen=True)
class FreezeRecipe:
    """Volume Freeze.

    Attributes:
        segments: Number of frozen intervals per sample (the paper's ablation has 2).
    """

    segments: int = 1

    def __post_init__(self) -> None:
        if self.segments < 1:
            raise ValueError(f"freeze.segments must be >= 1, got {self.segments}")


@dataclass(frozen=True)
class MixupRecipe:
    """How two clips overlap in time, for `mixup` and `cutmix_window`.

    Attributes:
        boundary: "smooth", or "hard" (ablation): half and half on the whole overlap. `mixup` only.
        scenarios: "first" (clip 1 -> clip 2), "second" (clip 1 -> clip 2 -> clip 1) or "both",
            with equal probability.
        min_overlap: Shortest overlap, as a share of the frames.
    """

    boundary: Boundary = "smooth"
    scenarios: Scenarios = "both"
    min_overlap: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.min_overlap <= 0.5:
            raise ValueError(f"mixup.min_overlap must be in [0, 0.5], got {self.min_overlap}")


@dataclass(frozen=True)
class CutmixRecipe:
    """Volume CutMix.

    Attributes:
        delta: Half-width of the spatial ramp, as a share of the frame's width.
    """

    delta: float = 1 / 16

    def __post_init__(self) -> None:
        if not 0 <= self.delta <= 0.5:
            raise ValueError(f"cutmix.delta must be in [0, 0.5], got {self.delta}")


@dataclass(frozen=True)
class Recipe:
    """What to draw.

    Attributes:
        kinds: Weight of each kind of sample; they need not add up to 1.
        frames: Frames `T` of a sample.
        frame_stride: Source frames between two sampled frames.
        short_side: Range in pixels, both ends included, from which the resize is drawn.
        crop: Side of the square crop in pixels, or `[height, width]`.
        flip: Probability of mirroring a source left and right.
        samples_per_video: Samples whose first source is a given video.
        samples_per_shard: Largest number of samples in a shard.
        group_videos: Videos among which mixing partners are drawn; each is decoded once a group.
        subset: Use only videos of this subset (all if absent).
        seed: Seed of every random number.
        freeze, mixup, cutmix: Settings of the kinds.
    """

    kinds: dict[str, float] = field(default_factory=lambda: {"clip": 1.0})
    frames: int = 16
    frame_stride: int = 5
    short_side: tuple[int, int] = (256, 320)
    crop: int | tuple[int, int] = 224
    flip: float = 0.5
    samples_per_video: int = 1
    samples_per_shard: int = 256
    group_videos: int = 8
    subset: str | None = None
    seed: int = 0
    freeze: FreezeRecipe = FreezeRecipe()
    mixup: MixupRecipe = MixupRecipe()
    cutmix: CutmixRecipe = CutmixRecipe()

    def __post_init__(self) -> None:
        for kind, weight in self.kinds.items():
            if kind not in KINDS:
                raise ValueError(f"kinds must be among {list(KINDS)}, got {kind!r}")
            if not 0 <= weight < math.inf:
                raise ValueError(f"kinds.{kind} must be >= 0 and finite, got {weight}")
        if not sum(self.kinds.values()) > 0:
            raise ValueError("kinds needs at least one weight above 0")
        for name in ("frames", "frame_stride", "samples_per_video", "samples_per_shard"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.group_videos < 2:
            raise ValueError(f"group_videos must be >= 2, got {self.group_videos}")
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip must be a probability, got {self.flip}")
        self._check_sizes()

    def _check_sizes(self) -> None:
        low, high = self.short_side
        if not 1 <= low <= high <= LARGEST_SIDE:
            raise ValueError(
                f"short_side must be [low, high] within 1..{LARGEST_SIDE}, got "
                f"{list(self.short_side)}"
            )
        if not 1 <= min(self.crop_size) <= max(self.crop_size) <= low:
            raise ValueError(f"crop must be in 1..short_side ({low}), got {self.crop}")
        if self.mixes and self.frames < SHORTEST_MIX:
            raise ValueError(f"mixing needs frames >= {SHORTEST_MIX}, got {self.frames}")
        if self.kinds.get("freeze", 0) > 0 and self.frames < 2 * self.freeze.segments:
            raise ValueError(
                f"frames must be >= 2 per frozen segment, got {self.frames} for "
                f"{self.freeze.segments}"
            )

    @property
    def crop_size(self) -> tuple[int, int]:
        """Height and width of the crop."""
        return self.crop if isinstance(self.crop, tuple) else (self.crop, self.crop)

    @property
    def mixes(self) -> bool:
        """Whether any kind needs a second video."""
        return any(self.kinds.get(kind, 0) > 0 for kind in MIXING_KINDS)

    @property
    def span(self) -> int:
        """Source frames from the first to the last sampled frame, both included."""
        return (self.frames - 1) * self.frame_stride + 1


def read_recipe(path: Path | str) -> Recipe:
    """Read the `[synth]` table of a recipe; UsageError in one sentence if anything is wrong."""
    return build_record(Recipe, read_recipe_table(path, "synth"), "synth", path)
