"""Find what to point at in a clip - a change point, a pasted region, the parts it consists of - and
draw it over and under the film strip.

Frames are counted from 0 here, and ranges of them are half-open.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from .boundary import BOUNDARY_CLASSES, change_point, diff_class_overlap
from .captions import name_node
from .tree import LabelledSize, evaluate_labels

Node = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """Frames `start..stop` of a clip and what they are; `is_region` if they were pasted."""

    start: int
    stop: int
    name: str
    is_region: bool = False


@dataclass(frozen=True)
class Marks:
    """What to point at in a clip of `num_frames` frames.

    Attributes:
        num_frames: Frames of the clip.
        parts: What it consists of in time, if that is to be told.
        change_point: Between which frames something changes, counted from 1 (8.5: after frame 8).
        clip_len: Frames of one of the clips that a composed video consists of.
    """

    num_frames: int
    parts: tuple[Part, ...] = ()
    change_point: float | None = None
    clip_len: int | None = None

    @property
    def change_frame(self) -> int | None:
        """The first frame after the change."""
        return None if self.change_point is None else int(self.change_point)

    @property
    def num_clips(self) -> int:
        """Clips that a composed video consists of; 1 of others."""
        return max(1, self.num_frames // (self.clip_len or self.num_frames))


def mark_tree(tree: Node, num_frames: int, sources: Sequence[LabelledSize]) -> Marks:
    """Return what to point at in the clip that a tree makes.

    Raises:
        ValueError: Numbers that are missing or senseless.
        KeyError, TypeError: The same, of a tree that is none.
    """
    op = tree.get("op")
    if op in BOUNDARY_CLASSES:
        return Marks(num_frames, _boundary_parts(tree, num_frames), change_point(op, tree))
    if op != "paste":
        return Marks(num_frames)
    s, e, beta = int(tree["s"]), int(tree["e"]), tree["beta"]
    num_action = evaluate_labels(tree["inputs"][1], sources).track.num_frames
    if not 1 <= s <= e <= num_action:
        raise ValueError(f"a region must be clips 1 <= s <= e, got {s} and {e}")
    clip_len = num_action // (e - s + 1)
    parts = (
        Part(0, (s - 1) * clip_len, "background"),
        Part((s - 1) * clip_len, e * clip_len, f"action, beta {beta:.2f}", is_region=True),
        Part(e * clip_len, num_frames, "background"),
    )
    return Marks(num_frames, parts, clip_len=clip_len)


def _boundary_parts(tree: Node, num_frames: int) -> tuple[Part, ...]:
    op, names = tree["op"], [name_node(child) for child in tree["inputs"]]
    if op == "same_speed":
        return (Part(0, num_frames, "own rate"),)
    if op == "diff_speed":
        t = int(tree["t"])
        return (
            Part(0, t, "own rate"),
            Part(t, num_frames, f"{tree['gamma']:g} times the rate"),
        )
    tau = int(tree["tau"])
    if op == "same_class":
        return Part(0, tau, names[0]), Part(tau, num_frames, names[1])
    overlap = diff_class_overlap(tau, int(tree["eps"]))
    start, stop = overlap.r, overlap.n1 - 1
    return (
        Part(0, start, names[0]),
        Part(start, stop, "both"),
        Part(stop, num_frames, names[1]),
    )


def draw_over_strip(marks: Marks, positions: Sequence[int]) -> str:
    """Return what lies over a film strip: gaps between clips, the framed region, the change point.

    Args:
        marks: What to point at.
        positions: The frames that the strip shows; a mark stands between two of them.
    """

    def place(frame: int) -> float:
        return 100 * sum(position < frame for position in positions) / len(positions)

    drawn = []
    if marks.clip_len:
        starts = range(marks.clip_len, marks.num_frames, marks.clip_len)
        drawn = [f'<i class="gap" style="left:{place(t):.2f}%"></i>' for t in starts]
    for part in marks.parts:
        if part.is_region:
            left, right = place(part.start), place(part.stop)
            box = f"left:{left:.2f}%;width:{right - left:.2f}%"
            drawn.append(f'<i class="region" style="{box}"></i>')
    if marks.change_frame is not None:
        drawn.append(_mark(place(marks.change_frame), f"change point {marks.change_point:g}"))
    return "".join(drawn)


def draw_change(marks: Marks) -> str:
    """Return the change point under the strip, where it lies to the frame."""
    if marks.change_frame is None:
        return ""
    return _mark(_share(marks.change_frame, marks))


def _mark(left: float, flag: str = "") -> str:
    side = " left" if left > 50 else ""  # a flag never leaves the strip
    flag = f'<b class="flag{side}">{escape(flag)}</b>' if flag else ""
    return f'<i class="mark" style="left:{left:.2f}%">{flag}</i>'


def draw_parts(marks: Marks) -> str:
    """Return the lane that names the parts of a clip."""
    if not marks.parts:
        return ""
    spans = []
    for part in marks.parts:
        left, right = _share(part.start, marks), _share(part.stop, marks)
        name = escape(part.name)
        spans.append(
            f'<span{" class=region" if part.is_region else ""} title="{name}" '
            f'style="left:{left:.2f}%;width:{right - left:.2f}%"><b>{name}</b></span>'
        )
    return f'<div class="parts">{"".join(spans)}</div>'


def _share(frame: int, marks: Marks) -> float:
    """Return where a frame begins, in percent of the clip."""
    return 100 * min(max(frame, 0), marks.num_frames) / marks.num_frames
