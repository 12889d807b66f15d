"""What an exporter is asked: a store, its annotations, a folder, and the tool's own choices."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from manifests import UsageError, num_sampled_frames

from ..annotations import AnnotatedSegment, Annotations
from ..store.feature_store import FeatureStore
from .report import file_name
from .rescale import resize_linear

SUBSETS = ("training", "validation", "testing")
PREFIX_OF_FILES = ("actionformer", "opentad")
SUBSET_WORDS = {
    **{"train": "training", "training": "training"},
    **{"val": "validation", "valid": "validation", "validation": "validation"},
    **{"test": "testing", "testing": "testing"},
}


@dataclass(frozen=True, slots=True)
class ExportedVideo:
    """A video as a tool will know it.

    Attributes:
        video_id: Its id in the store.
        key: Its name in the export: the id made safe, with the tool's prefix.
        num_rows: Rows in the store.
        duration_seconds: Presentation duration.
        fps: Rate of the frames that snippets are cut from: the sampling rate, else the native one.
        num_frames: How many of those frames there are.
        native_fps: Average rate of the file.
        num_native_frames: Frames of the file.
        subset: One of `SUBSETS`; None for a video that is not annotated.
        segments: Its annotated segments.
    """

    video_id: str
    key: str
    num_rows: int
    duration_seconds: float
    fps: float
    num_frames: int
    native_fps: float
    num_native_frames: int
    subset: str | None
    segments: tuple[AnnotatedSegment, ...]


@dataclass(frozen=True)
class ExportRequest:
    """Everything an exporter needs.

    Attributes:
        format: Name of the format, for reports.
        store: What to write.
        out: Folder to write into; the exporter claims it after its checks.
        annotations: Segments for the tool's annotation file; None: no such file.
        rule: How rows are rescaled to 100 bins, where the format does that.
        prefix: What the tool puts before a video id; None: its habit.
        resize: Rows that every video is resized to, linearly; None: as many as there are.
        names: Video id -> name, of the videos that are exported; None: all, by their ids.
    """

    format: str
    store: FeatureStore
    out: Path
    annotations: Annotations | None = None
    rule: str | None = None
    prefix: str | None = None
    resize: int | None = None
    names: Mapping[str, str] | None = None

    @cached_property
    def videos(self) -> tuple[ExportedVideo, ...]:
        """Return the videos that are exported, in the order of the store.

        Raises:
            UsageError: Two ids get one name, or an annotated video has no known subset.
        """
        chosen = self.store.video_ids if self.names is None else self.names
        videos = tuple(self._video(name) for name in self.store.video_ids if name in chosen)
        seen: dict[str, str] = {}
        for video in videos:
            if (other := seen.setdefault(video.key, video.video_id)) != video.video_id:
                raise UsageError(
                    f"videos {other!r} and {video.video_id!r} would both be exported as "
                    f"{video.key!r}; choose another --prefix"
                )
        return videos

    def _video(self, video_id: str) -> ExportedVideo:
        stored, spec = self.store.video(video_id), self.store.spec
        native_fps = stored.fps_num / stored.fps_den
        fps, num_frames = native_fps, stored.num_frames
        if spec.sampling_fps is not None:
            fps = float(spec.sampling_fps)
            num_frames = num_sampled_frames(stored.duration_seconds, spec.sampling_fps)
        return ExportedVideo(
            video_id,
            self.key(video_id),
            stored.num_snippets,
            stored.duration_seconds,
            fps,
            num_frames,
            native_fps,
            stored.num_frames,
            self._subset(video_id),
            () if self.annotations is None else self.annotations.segments.get(video_id, ()),
        )

    def _subset(self, video_id: str) -> str | None:
        if self.annotations is None or video_id not in self.annotations.subsets:
            return None
        word = self.annotations.subsets[video_id]
        if word is None or word.lower() not in SUBSET_WORDS:
            raise UsageError(
                f"the subset of an annotated video must be one of {', '.join(SUBSET_WORDS)} to be "
                f"exported, got {word!r} for video {video_id!r} (column subset of the segments)"
            )
        return SUBSET_WORDS[word.lower()]

    @cached_property
    def annotated(self) -> tuple[ExportedVideo, ...]:
        """Return the videos that have an annotation."""
        return tuple(video for video in self.videos if video.subset is not None)

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Return the annotated videos that the store lacks, by the names the tool would know."""
        annotated = () if self.annotations is None else self.annotations.segments
        absent = [video_id for video_id in annotated if video_id not in self.store]
        return tuple(self.known_as(self.key(video_id)) for video_id in absent)

    def key(self, video_id: str) -> str:
        """Return a video's name in the export: no space, slash, comma or quote is in it."""
        if self.names is not None and video_id in self.names:
            return self.names[video_id]
        prefix, name = self.prefix or "", file_name(video_id).replace(" ", "%20")
        return name if name.startswith(prefix) else prefix + name

    def known_as(self, key: str) -> str:
        """Return the name in annotations: some tools put the prefix before file names only."""
        return key.removeprefix(self.prefix or "") if self.format in PREFIX_OF_FILES else key

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the annotated classes, in id order; none without annotations."""
        return () if self.annotations is None else self.annotations.classes

    @cached_property
    def splits(self) -> tuple[str, str]:
        """Return which subset a tool trains on and which it scores on.

        The first two of training, validation, testing that are there: THUMOS'14 trains on
        validation and scores on testing, ActivityNet trains on training and scores on validation.
        """
        found = [name for name in SUBSETS if any(v.subset == name for v in self.annotated)]
        if len(found) > 1:
            return found[0], found[1]
        if found == ["validation"]:  # of THUMOS'14 the part to train on, else the part to score on
            is_thumos = self.format == "gtad-thumos"
            return ("validation", "testing") if is_thumos else ("training", "validation")
        return "training", "testing"

    @property
    def stride(self) -> int:
        """Return the frames from one row to the next."""
        return self.store.spec.snippet_stride

    @property
    def offset(self) -> float:
        """Return the middle of the first snippet, in frames: half a window, or 0 if centred."""
        window = self.store.spec.snippet_len
        return window / 2 if self.store.spec.alignment == "left" else window % 2 / 2

    @property
    def grid_in_words(self) -> str:
        """Return stride, window, offset and rate, for the comments of configurations."""
        spec = self.store.spec
        return (
            f"every {self.stride} frames, window {spec.snippet_len}, offset {self.offset:g}, "
            f"fps {spec.fps or 'of the video'}"
        )

    def covered_seconds(self, video: ExportedVideo) -> float:
        """Return until when the snippets of a video cover it, in the tools' way of counting.

        `feature_frame / duration_frame * duration` of BSN and BMN.
        """
        return self.covered_frames(video) / video.num_frames * video.duration_seconds

    def covered_frames(self, video: ExportedVideo) -> int:
        """Return how many frames of a video its snippets cover (`feature_frame`)."""
        last_end = (
            (video.num_rows - 1) * self.stride + self.store.spec.snippet_len / 2 + self.offset
        )
        return min(math.ceil(last_end), video.num_frames)

    def feats(self, video: ExportedVideo) -> np.ndarray:
        """Return the rows of a video, float32 `(S, D)`, C-contiguous."""
        return np.ascontiguousarray(self.store[video.video_id], np.float32)

    def rows(self, video: ExportedVideo) -> np.ndarray:
        """Return what is exported of a video: its rows, or as many as `resize` says, float32."""
        if self.resize is None:
            return self.feats(video)
        return resize_linear(self.store[video.video_id], self.resize).astype(np.float32)

    def num_rows(self, video: ExportedVideo) -> int:
        """Return the rows that are exported of a video."""
        return video.num_rows if self.resize is None else self.resize

    def row_seconds(self, video: ExportedVideo) -> np.ndarray:
        """Return the seconds that the exported rows of a video stand for."""
        centres_S = self.centres(video)
        if self.resize is None:
            return centres_S
        return resize_linear(centres_S[:, None], self.resize)[:, 0]

    def centres(self, video: ExportedVideo) -> np.ndarray:
        """Return when the middle of every snippet shows, in seconds, float64 `(S,)`.

        A last snippet that is partial counts as the full one that the tools' formulas mean: they
        know of no repeated frames.
        """
        times_S3 = self.store.times(video.video_id)
        if self.store.spec.alignment == "centre":
            return times_S3[:, 1]
        window = self.store.spec.snippet_len
        is_partial_S = np.arange(len(times_S3)) * self.stride + window > video.num_frames
        return np.where(is_partial_S, times_S3[:, 0] + window / 2 / video.fps, times_S3[:, 1])
