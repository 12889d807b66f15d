"""Draw one sample of the preview page: what was done, the sources, film strips, labels under them.

Whatever comes from files - names, ids, captions - is escaped: shards come from other people.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from .labels import LabelTrack
from .preview_chart import draw_chart, draw_lanes
from .preview_marks import Marks, draw_change, draw_over_strip, draw_parts

ROLE_STYLES = {"action": "region", "background": "rest"}


@dataclass(frozen=True)
class ShownSource:
    """One source of a shown sample, as its plan row says.

    Attributes:
        video_id: Its video.
        label_id: Class id of its label, None for no label.
        role: What it is in the sample: "clip 2", "action", "background" or "".
        first_frame, last_frame, frame_stride: Which frames of the video it shows.
        num_frames: How many.
        num_clips: Clips of `num_frames` frames each, spread over those frames.
        flip: Whether it is mirrored.
    """

    video_id: str
    label_id: int | None
    role: str
    first_frame: int
    last_frame: int
    frame_stride: int
    num_frames: int
    num_clips: int
    flip: bool


@dataclass(frozen=True)
class ShownClip:
    """A clip of a shown sample: all of it, or one view of a pair.

    Attributes:
        name: "query" or "key" of a pair, else "".
        steps: What its tree does, the innermost first.
        sources: What it shows.
        marks: What to point at.
        positions: Which frames the strip shows, from 0.
        jpegs: Those frames.
    """

    name: str
    steps: tuple[str, ...]
    sources: tuple[ShownSource, ...]
    marks: Marks
    positions: tuple[int, ...]
    jpegs: tuple[bytes, ...]


@dataclass(frozen=True)
class ShownSample:
    """A sample on the page.

    Attributes:
        key: Its name.
        boundary_class: Which one it has, or "".
        clips: The sample itself, or both views of a pair.
        track: Its labels; None if it has none to show.
        size: Frames, height and width of a clip as rendered.
        cell_width, cell_height: Pixels of a frame of the strip.
    """

    key: str
    boundary_class: str
    clips: tuple[ShownClip, ...]
    track: LabelTrack | None
    size: tuple[int, int, int]
    cell_width: int
    cell_height: int

    @property
    def shares_labels(self) -> bool:
        """Whether its labels are those of its sources."""
        return self.track is not None and self.track.exclusive

    @property
    def class_order(self) -> list[int]:
        """Its classes from the bottom of its chart up: those of clip 1 first."""
        if self.track is None:
            return []
        sources = [source for clip in self.clips for source in clip.sources]
        first = [source.label_id for source in sources if source.label_id is not None]
        return list(dict.fromkeys([*first, *self.track.class_ids.tolist()]))


def draw_sample(sample: ShownSample, classes: Sequence[str], colours: Mapping[int, int]) -> str:
    """Return the HTML of a sample: a strip, or those of a pair, one above the other."""
    clips = "\n".join(
        f'<div class="view">{_heading(sample, clip, number)}\n'
        f"{_sources(sample, clip, classes, colours)}\n{_reel(sample, clip, classes, colours)}</div>"
        for number, clip in enumerate(sample.clips)
    )
    pair = " pair" if len(sample.clips) > 1 else ""
    return f'<article class="sample{pair}">{clips}</article>'


def _heading(sample: ShownSample, clip: ShownClip, number: int) -> str:
    steps = [escape(step) for step in clip.steps] or [""]
    if clip.name or sample.boundary_class:
        title = escape(clip.name.capitalize() or sample.boundary_class)
        steps[0] = f"<b>{title}</b> {steps[0]}"
    num_frames, num_shown = sample.size[0], len(clip.positions)
    if num_shown < num_frames and not number:
        steps[-1] += f" The strip shows {num_shown} of {num_frames} frames."
    if len(steps) == 1:
        says = f"<p>{steps[0]}</p>"
    else:
        says = f"<ol>{''.join(f'<li>{step}</li>' for step in steps)}</ol>"
    key = f"<code>{escape(sample.key)}</code>" if not number else ""
    return f'<div class="says">{says}{key}</div>'


def _sources(
    sample: ShownSample, clip: ShownClip, classes: Sequence[str], colours: Mapping[int, int]
) -> str:
    items = []
    for source in clip.sources:
        words = [_name(source.video_id), _frames(source), *(["mirrored"] if source.flip else [])]
        style, title = ROLE_STYLES.get(source.role, ""), escape(source.role)
        if sample.shares_labels:
            words = [title, *words] if title else words
            style, title = "", "no label"
            if source.label_id is not None:
                style = f"c{colours[source.label_id]}"
                title = _name(classes[source.label_id])
        swatch = f'<i class="{style}"></i>' if style else ""
        bold = f"<b>{title}</b> " if title else ""
        items.append(f"<li>{swatch}{bold}{' · '.join(words)}</li>")
    return f'<ul class="clips">{"".join(items)}</ul>'


def _frames(source: ShownSource) -> str:
    frames = f"frames {source.first_frame}–{source.last_frame}"
    stride = f", stride {source.frame_stride}"
    if source.num_clips > 1:
        stride = stride if source.frame_stride > 1 else ""
        return f"{source.num_clips} clips of {source.num_frames} frames in {frames}{stride}"
    return f"{frames}{stride}"


def _reel(
    sample: ShownSample, clip: ShownClip, classes: Sequence[str], colours: Mapping[int, int]
) -> str:
    name = escape(f"{clip.name or 'sample'} {sample.key}")
    images = "".join(
        f'<img alt="" title="frame {t + 1}" width="{sample.cell_width}" '
        f'height="{sample.cell_height}" src="{_jpeg_uri(jpeg)}">'
        for t, jpeg in zip(clip.positions, clip.jpegs, strict=True)
    )
    room = " flagged" if clip.marks.change_point is not None else ""
    room += " framed" if clip.marks.clip_len else ""
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{name}">'
        f'<div class="reel" style="--n:{len(clip.positions)};--cell:{sample.cell_width};'
        f'--t:{sample.size[0]}"><div class="film{room}">'
        f'<div class="strip" role="img" aria-label="frames of {name}">{images}</div>'
        f"{draw_over_strip(clip.marks, clip.positions)}</div>"
        f'<div class="under">{_labels(sample, classes, colours)}{draw_parts(clip.marks)}'
        f"{draw_change(clip.marks)}</div>{_numbers(clip)}</div></div>"
    )


def _labels(sample: ShownSample, classes: Sequence[str], colours: Mapping[int, int]) -> str:
    if sample.track is None:
        return ""
    draw = draw_chart if sample.track.exclusive else draw_lanes
    return draw(sample.track, sample.class_order, classes, colours)


def _numbers(clip: ShownClip) -> str:
    """Return the line under everything: the numbers of the frames, or those of the clips."""
    num_clips = clip.marks.num_clips
    if clip.marks.clip_len:
        columns, names = num_clips, [f"clip {number}" for number in range(1, num_clips + 1)]
    else:
        columns, names = len(clip.positions), [str(t + 1) for t in clip.positions]
    spans = "".join(f"<span>{name}</span>" for name in names)
    return f'<div class="numbers" style="--n:{columns}" aria-hidden="true">{spans}</div>'


def _jpeg_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _name(name: str) -> str:
    return f"<bdi>{escape(name)}</bdi>"
