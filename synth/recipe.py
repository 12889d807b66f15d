"""The recipe of a dataset: the `[synth]` table of a TOML file, ranges and probabilities only."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from manifests import build_record, read_recipe_table

from .augment import AugmentRecipe
from .boundary import BOUNDARY_CLASSES, FASTEST, LONGEST_TAU, longest_speed
from .mixup import Boundary, Scenarios
from .views import LARGEST_SIDE

CLIP_KINDS = ("clip", "freeze", "mixup", "cutmix_window", "cutmix_view", "joint", "boundary")
PAIR_KINDS = ("pal", "clip_pair")
KINDS = (*CLIP_KINDS, *PAIR_KINDS, "annotated")
MIXING_KINDS = ("mixup", "cutmix_window", "cutmix_view", "joint")
SHORTEST_MIX = 4  # frames; shorter clips have no room for the second scenario
MOST_SOURCES = 4  # videos of a joint sample
MOST_CLIPS = 1024  # of a composed video
OWN_RATE = (3 / 4, 5 / 4)  # low <= gamma < high shows two frames after a late t as gamma 1 does


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
class JointRecipe:
    """Freeze, mixup and cutmix on one sample, in this order.

    Attributes:
        probability: Of each of the three, by itself.
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"joint.probability must be in [0, 1], got {self.probability}")


@dataclass(frozen=True)
class BoundaryRecipe:
    """Boundary-sensitive synthesis; a sample has `frames = 2 tau` frames.

    Attributes:
        classes: Weight of each boundary class; all are equal if empty.
        eps: Range, both ends included, of the half-length of a diff-class transition; all that is
            possible, 1 to `tau - 1`, if absent.
        gammas: Speeds of diff-speed, as factors below 3/4 or from 5/4 up: between them a sample may
            show the very frames of same-speed.
    """

    classes: dict[str, float] = field(default_factory=dict)
    eps: tuple[int, int] | None = None
    gammas: tuple[float, ...] = (0.25, 0.5, 2.0, 4.0)

    def __post_init__(self) -> None:
        for name, weight in self.classes.items():
            if name not in BOUNDARY_CLASSES:
                raise ValueError(
                    f"boundary.classes must be among {list(BOUNDARY_CLASSES)}, got {name!r}"
                )
            if not 0 <= weight < math.inf:
                raise ValueError(f"boundary.classes.{name} must be >= 0 and finite, got {weight}")
        if self.classes and not sum(self.classes.values()) > 0:
            raise ValueError("boundary.classes needs at least one weight above 0")
        if not self.gammas or not all(0 < gamma <= FASTEST for gamma in self.gammas):
            raise ValueError(
                f"boundary.gammas must be > 0 and at most {FASTEST}, got {list(self.gammas)}"
            )
        low, high = OWN_RATE
        if any(low <= gamma < high for gamma in self.gammas):
            raise ValueError(
                f"boundary.gammas must be below {low:g} or at least {high:g}, because nearer to 1 "
                f"diff_speed may show the very frames of same_speed, got {list(self.gammas)}"
            )

    def weight(self, name: str) -> float:
        """Return the weight of a boundary class."""
        return self.classes.get(name, 0.0) if self.classes else 1.0


@dataclass(frozen=True)
class PalRecipe:
    """Pseudo action localization; a view has `frames = num_clips * clip_len` frames.

    Attributes:
        num_clips: Clips `J` of a composed video.
        strides: Strides inside the clips of a region, drawn with equal probability.
        beta: Range of the share of the action in a pasted frame.
        background: "different" videos behind query and key, or the "same" one (ablation).
    """

    num_clips: int = 8
    strides: tuple[int, ...] = (1, 2, 3, 4)
    beta: tuple[float, float] = (0.6, 1.0)
    background: Literal["different", "same"] = "different"

    def __post_init__(self) -> None:
        if not 3 <= self.num_clips <= MOST_CLIPS:
            raise ValueError(f"pal.num_clips must be in 3..{MOST_CLIPS}, got {self.num_clips}")
        if not self.strides or min(self.strides) < 1:
            raise ValueError(f"pal.strides must be >= 1, got {list(self.strides)}")
        if not 0 <= self.beta[0] <= self.beta[1] <= 1:
            raise ValueError(f"pal.beta must be [low, high] within 0..1, got {list(self.beta)}")
        if any(round(beta, 2) != beta for beta in self.beta):  # drawn, and blended, in hundredths
            raise ValueError(f"pal.beta must be whole hundredths, got {list(self.beta)}")


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
        freeze, mixup, cutmix, joint, boundary, pal: Settings of the kinds.
        augment: Spatial augmentation of the pairs (`pal`, `clip_pair`) instead of `short_side` and
            `flip`.
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
    joint: JointRecipe = JointRecipe()
    boundary: BoundaryRecipe = field(default_factory=BoundaryRecipe)
    pal: PalRecipe = PalRecipe()
    augment: AugmentRecipe = field(default_factory=AugmentRecipe)

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
        self._check_kinds()

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
        if self.has("freeze", "joint") and self.frames < 2 * self.freeze.segments:
            raise ValueError(
                f"frames must be >= 2 per frozen segment, got {self.frames} for "
                f"{self.freeze.segments}"
            )

    def _check_kinds(self) -> None:
        if self.has("annotated") and any(self.has(kind) for kind in KINDS if kind != "annotated"):
            raise ValueError("kind 'annotated' shows untrimmed videos and needs a plan of its own")
        if self.has("boundary"):
            if self.frames % 2 or not 4 <= self.frames <= 2 * LONGEST_TAU:
                raise ValueError(
                    f"boundary samples have 2 tau frames: frames must be even and in "
                    f"4..{2 * LONGEST_TAU}, got {self.frames}"
                )
            low, high = self.eps_range
            if not 1 <= low <= high < self.frames // 2:
                raise ValueError(
                    f"boundary.eps must be [low, high] within 1..{self.frames // 2 - 1}, got "
                    f"{[low, high]}"
                )
        if self.has("pal") and self.frames % self.pal.num_clips:
            raise ValueError(
                f"frames must be a multiple of pal.num_clips, got {self.frames} for "
                f"{self.pal.num_clips}"
            )

    def has(self, *kinds: str) -> bool:
        """Return whether any of these kinds is drawn."""
        return any(self.kinds.get(kind, 0) > 0 for kind in kinds)

    def has_boundary(self, name: str) -> bool:
        """Return whether this boundary class is drawn."""
        return self.has("boundary") and self.boundary.weight(name) > 0

    @property
    def eps_range(self) -> tuple[int, int]:
        """Least and largest half-length of a diff-class transition."""
        return self.boundary.eps or (1, self.frames // 2 - 1)

    @property
    def clip_len(self) -> int:
        """Frames of one of the clips that a PAL sample consists of."""
        return self.frames // self.pal.num_clips

    @cached_property
    def crop_size(self) -> tuple[int, int]:
        """Height and width of the crop."""
        return self.crop if isinstance(self.crop, tuple) else (self.crop, self.crop)

    @property
    def mixes(self) -> bool:
        """Whether any kind joins videos of different classes."""
        return self.has(*MIXING_KINDS) or self.has_boundary("diff_class")

    @property
    def num_videos(self) -> int:
        """Different videos that a sample may need."""
        if self.has("joint"):
            return MOST_SOURCES
        if self.has("pal"):
            return 1 + self.num_backgrounds
        return 2 if self.mixes or self.has_boundary("same_class") else 1

    @property
    def num_backgrounds(self) -> int:
        """Background videos behind the two views of a PAL sample."""
        return 1 if self.pal.background == "same" else 2

    @property
    def needs_labels(self) -> bool:
        """Whether any kind reads the labels of its videos."""
        return self.has(*CLIP_KINDS)

    @cached_property
    def window_span(self) -> int:
        """Source frames of a row's window, from its first to its last frame, both included."""
        return self._span(self.frames) if self.has(*CLIP_KINDS, "clip_pair", "annotated") else 1

    @property
    def span(self) -> int:
        """Frames that a video must have for every kind that is drawn."""
        spans = [self.window_span]
        if self.has_boundary("diff_speed"):
            spans.append(self._span(longest_speed(self.frames // 2, self.boundary.gammas)))
        if self.has("pal"):
            spans.append(self.clip_len)  # one clip at stride 1
        return max(spans)

    def _span(self, num_frames: int) -> int:
        return (num_frames - 1) * self.frame_stride + 1


def read_recipe(path: Path | str) -> Recipe:
    """Read the `[synth]` table of a recipe; UsageError in one sentence if anything is wrong."""
    return build_record(Recipe, read_recipe_table(path, "synth"), "synth", path)
