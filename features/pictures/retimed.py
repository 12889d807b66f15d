"""Encode re-timed copies of a video as its store was extracted: decode once, choose frames.

A copy is made of the sampled frames of the video, in another order or number (`Retiming`); nothing
is encoded as a video again. Its snippets are cut on the store's grid and go through the store's own
network, resized, cropped and normalised as the FeatureSpec says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from manifests import (
    CheckpointError,
    SampledFrames,
    SnippetGrid,
    SourceTable,
    SourceVideo,
    UsageError,
    VideoError,
)

from ..extraction.crops import Framing
from ..extraction.decoding import SnippetCut, fill_snippets, sampled_frames
from ..extraction.streams import Checkpoint, Streams, open_streams
from ..store.feature_store import FeatureStore
from ..store.spec import FeatureSpec
from .equivariance import RETIMINGS, Retiming, retimed_equivariance

LARGEST_VIDEO = 4 * 2**30  # bytes of pictures of one video, all in memory


@dataclass(frozen=True, slots=True, eq=False)
class RetimedCopy:
    """A re-timed copy of a video.

    Attributes:
        retiming: How it was made.
        num_frames: Its frames.
        feats_RD: float16, its features, rounded as those of a store.
        positions_R3: float64, start, centre and end of its snippets, in its own frames.
    """

    retiming: Retiming
    num_frames: int
    feats_RD: np.ndarray
    positions_R3: np.ndarray


def streams_of_store(
    store: FeatureStore,
    checkpoints: Checkpoint | Mapping[str, Checkpoint],
    device: str | None = None,
) -> Streams:
    """Open the networks that made a store, or the one whose stream was selected of it.

    Raises:
        CheckpointError: A folder holds no run, or another than the store was made with.
        UsageError: The store holds rows per frame, or several stores lie side by side.
    """
    spec = store.spec
    if len(store.specs) > 1 or spec.pooling != "snippet":
        raise UsageError(
            f"re-timed copies need a single store with a row per snippet, but {str(store.path)!r} "
            + ("lies beside others" if len(store.specs) > 1 else "has one per frame")
        )
    streams = open_streams(checkpoints, device)
    all_members = spec.streams or (spec.to_dict(),)
    members = [one for one in all_members if one.get("name") in store.channel_ranges]
    # One encoder by a name of its own has the digest of a list, as it has in the store.
    is_named = isinstance(checkpoints, Mapping) and len(all_members) == 1
    is_one = len(members) == 1 and not is_named
    members = members if is_one else list(all_members)
    found = streams.spec_fields()["weights_digest"]
    expected = members[0]["weights_digest"] if is_one else spec.weights_digest
    if found != expected:
        raise CheckpointError(
            f"re-timed copies need the run that made the store {str(store.path)!r}, with weights "
            f"{expected[:12]}, but the run given has weights {found[:12]}"
        )
    framings = tuple(
        Framing(member["height"], member["width"], member["short_side"], spec.crop)
        for member in members
    )
    return replace(streams, framings=framings, crop=spec.crop, crop_pooling=spec.crop_pooling)


def encode_copies(
    video: SourceVideo,
    spec: FeatureSpec,
    streams: Streams,
    retimings: Sequence[Retiming] = RETIMINGS,
) -> tuple[SampledFrames, list[RetimedCopy]]:
    """Decode a video once and extract the features of its re-timed copies.

    Args:
        video: As in the sources table.
        spec: Of its store.
        streams: Of `streams_of_store`.
        retimings: Which copies.

    Returns:
        The sampled frames of the video, and its copies.

    Raises:
        VideoError: The file cannot be read, is not the one that was probed, or a copy has features
            that no store can hold.
        UsageError: Its frames do not fit into memory.
    """
    frames = sampled_frames(video, spec.sampling_fps)
    pictures = _read_pictures(video, frames, streams.distinct_framings, spec)
    copies = []
    for retiming in retimings:
        shown_K = retiming.frames(len(frames))
        shown_RL = shown_K[spec.grid.frame_positions(len(shown_K))]
        feats = [
            streams.encode([_clips(of_framing, shown_BL) for of_framing in pictures])
            for shown_BL in np.split(shown_RL, range(spec.batch, len(shown_RL), spec.batch))
        ]
        with np.errstate(over="ignore"):
            feats_RD = np.concatenate(feats).astype(np.float16)
        if not np.isfinite(feats_RD).all():
            reason = f"played {retiming.name}, its features are not finite numbers of float16"
            raise VideoError(video.path, reason)
        positions_R3 = frame_positions(spec.grid, len(shown_K))
        copies.append(RetimedCopy(retiming, len(shown_K), feats_RD, positions_R3))
    return frames, copies


def measure_equivariance(
    store: FeatureStore,
    checkpoint: Checkpoint | Mapping[str, Checkpoint],
    sources: SourceTable,
    video_ids: Sequence[str],
    device: str | None = None,
) -> dict[str, dict[str, float]]:
    """Return the temporal equivariance of videos: video id -> name of the re-timing -> number.

    It is NaN where a video is too short. As `draw_similarity`, without the pictures.

    Args:
        store: Features of the videos.
        checkpoint: The run that made the store, or its streams by name.
        sources: The sources table that the store was extracted from.
        video_ids: Which videos.
        device: To encode copies on: "cpu" or "cuda"; None takes CUDA where there is one.

    Raises:
        UsageError: The store holds rows per frame, or several stores lie side by side.
        StoreError: A video is not in the store.
        CheckpointError: The checkpoint is not what made the store.
        VideoError: A video cannot be read, or is not the one that was probed.
    """
    streams = streams_of_store(store, checkpoint, device)
    rows = sources.select(video_ids)
    found = {}
    for video_id in video_ids:
        frames, copies = encode_copies(rows[video_id], store.spec, streams)
        found[video_id] = equivariance_of_copies(store, video_id, len(frames), copies)
    return found


def equivariance_of_copies(
    store: FeatureStore, video_id: str, num_frames: int, copies: Sequence[RetimedCopy]
) -> dict[str, float]:
    """Return how equivariant the features of a video are to each of its copies, by their names."""
    feats_SD, positions_S3 = store[video_id], frame_positions(store.spec.grid, num_frames)
    return {
        copy.retiming.name: retimed_equivariance(
            copy.retiming, num_frames, feats_SD, positions_S3, copy.feats_RD, copy.positions_R3
        )
        for copy in copies
    }


def frame_positions(grid: SnippetGrid, num_frames: int) -> np.ndarray:
    """Return start, centre and end of every snippet on the axis of frames, float64 `(S, 3)`."""
    index_N = np.arange(num_frames)
    return grid.times(SampledFrames(index_N, index_N.astype(np.float64), index_N + 1.0))


def _read_pictures(
    video: SourceVideo, frames: SampledFrames, framings: Sequence[Framing], spec: FeatureSpec
) -> list[np.ndarray]:
    """Return what the network sees of every sampled frame, uint8 `(N, P, H, W, 3)` per framing."""
    shapes = [(len(frames), f.num_pictures, f.height, f.width, 3) for f in framings]
    needed = sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes)
    if needed > LARGEST_VIDEO:
        raise UsageError(
            f"the {len(frames):,} frames of video {video.video_id!r} would take "
            f"{needed / 2**30:.1f} GiB of memory, but its re-timed copies may take "
            f"{LARGEST_VIDEO / 2**30:g}; name shorter videos"
        )
    pictures = [np.zeros(shape, np.uint8) for shape in shapes]
    every_frame = SnippetCut(SnippetGrid(1, 1), spec.sampling_fps, tuple(framings))
    fill_snippets(
        video,
        frames,
        every_frame,
        lambda k: [of_framing[k][:, None] for of_framing in pictures],
        lambda k: None,
    )
    return pictures


def _clips(pictures_NPHWC: np.ndarray, shown_BL: np.ndarray) -> np.ndarray:
    """Return clips of the frames `shown`, uint8 `(P, B, L, H, W, 3)`."""
    return np.ascontiguousarray(np.moveaxis(pictures_NPHWC[shown_BL], 2, 0))
