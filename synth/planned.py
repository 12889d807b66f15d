"""A plan row before it is rendered: checked against its videos and the codec, whoever wrote it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from manifests import SourceVideo, read_json

from .augment import Augment, augment_frame
from .codecs import check_size
from .labels import LabelTrack, constant_track
from .plan import Row
from .shards import dump_json
from .tree import LARGEST_SAMPLE, LabelledSize, Tree, evaluate_labels
from .views import Scratch, View, apply_view, check_crop, resized_size


@dataclass(frozen=True, slots=True)
class PlannedSource:
    """One source of a row: `num_frames` frames of a video from `start_frame`, seen through a view.

    The `k`-th is presentation frame `start_frame + k * frame_stride`; `augment` follows the view.
    """

    video: SourceVideo
    label_id: int | None
    start_frame: int
    frame_stride: int
    num_frames: int
    view: View
    augment: Augment | None = None

    def __post_init__(self) -> None:
        if min(self.num_frames, self.frame_stride) < 1 or self.start_frame < 0:
            raise ValueError(
                f"a source needs num_frames and frame_stride >= 1 and start_frame >= 0, got "
                f"{self.num_frames}, {self.frame_stride} and {self.start_frame}"
            )
        if self.label_id is not None and self.label_id < 0:
            raise ValueError(f"label_id must be >= 0, got {self.label_id}")
        height, width = resized_size(self.video.height, self.video.width, self.view.short_side)
        check_crop(self.view, height, width)
        if self.indices[-1] >= self.video.num_frames:
            raise ValueError(
                f"frame {self.indices[-1]} is beyond the end of video {self.video.video_id!r} "
                f"({self.video.num_frames} frames)"
            )

    @property
    def indices(self) -> range:
        """The presentation frames that are shown."""
        step = self.frame_stride
        return range(self.start_frame, self.start_frame + self.num_frames * step, step)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the clip."""
        shown = self.augment or self.view
        return shown.height, shown.width

    @property
    def num_bytes(self) -> int:
        """Bytes of the clip."""
        height, width = self.size
        return self.num_frames * height * width * 3

    @property
    def labelled_size(self) -> LabelledSize:
        """What is known of the clip without its pixels."""
        return LabelledSize(constant_track(self.label_id, self.num_frames), *self.size)

    def cut(self, frame_HWC: np.ndarray, out: np.ndarray, scratch: Scratch) -> None:
        """Write what the source shows of a frame into `out`."""
        if self.augment is None:
            apply_view(frame_HWC, self.view, out, scratch)
        else:
            augment_frame(apply_view(frame_HWC, self.view, None, scratch), self.augment, out)


@dataclass(frozen=True)
class PlannedSample:
    """A plan row, checked: everything that rendering relies on holds."""

    row: Row
    tree: Tree
    sources: tuple[PlannedSource, ...]
    track: LabelTrack

    @property
    def num_bytes(self) -> int:
        """Bytes of the source clips."""
        return sum(source.num_bytes for source in self.sources)


@dataclass(frozen=True)
class Rejected:
    """A planned sample that cannot be rendered, and why."""

    row: Row
    reason: str


def check_row(row: Row, videos: Mapping[str, SourceVideo], codec: str) -> PlannedSample | Rejected:
    """Check a plan row against its videos and the codec; the row may come from anywhere."""
    try:
        tree = read_json(row["tree"])
        sources = tuple(_check_source(source, videos) for source in row["sources"])
        if sum(source.num_bytes for source in sources) > LARGEST_SAMPLE:
            raise ValueError(f"the sources of a sample must fit in {LARGEST_SAMPLE} bytes")
        size = evaluate_labels(tree, [source.labelled_size for source in sources])
        if not size.track.exclusive and row["kind"] != "annotated":
            raise ValueError(
                f"op 'annotate' makes samples of kind 'annotated', got {row['kind']!r}"
            )
        check_size(codec, size.track.num_frames, size.height, size.width)
        dump_json(tree)  # ValueError for NaN and infinity, wherever they stand: JSON has neither
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        return Rejected(row, f"invalid plan row: {err}")
    return PlannedSample(row, tree, sources, size.track)


def _check_source(source: Row, videos: Mapping[str, SourceVideo]) -> PlannedSource:
    video = videos[source["video_id"]]
    if video.status != "ok":
        raise ValueError(f"video {video.video_id!r} is rejected: {video.reason}")
    return PlannedSource(
        video,
        source["label_id"],
        source["start_frame"],
        source["frame_stride"],
        source["num_frames"],
        View(**_whole_struct(source, "view")),
        None if source.get("augment") is None else Augment(**_whole_struct(source, "augment")),
    )


def _whole_struct(source: Row, name: str) -> dict[str, Any]:
    """Return a struct of a source; ValueError if a number is missing in it."""
    struct = source[name] or {}
    missing = [number for number, value in struct.items() if value is None]
    if not struct or missing:
        raise ValueError(f"{name} must have all its numbers, but lacks {missing or 'all'}")
    return struct
