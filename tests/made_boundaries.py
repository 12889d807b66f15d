"""Write small finished shard folders of BSP's four boundary classes, from made clips."""

from pathlib import Path

import numpy as np
from made_shards import CLASSES, moving_clip, write_samples

from synth import BOUNDARY_CLASSES, LabelTrack, ShardSample, constant_track
from synth.boundary import (
    change_point,
    diff_class_frames,
    diff_class_labels,
    diff_speed_frames,
    same_class_frames,
    same_speed_frames,
)
from synth.codecs import encode_raw


def boundary_clip(
    boundary: int, seed: int, tau: int = 4, side: int = 32
) -> tuple[np.ndarray, LabelTrack, float | None]:
    """Return `2 tau` frames of one boundary class, their labels and their change point."""
    rng = np.random.default_rng(seed)
    label, other = (int(number) for number in rng.permutation(len(CLASSES))[:2])
    first = moving_clip(label, seed, 8 * tau, side)
    op, track = BOUNDARY_CLASSES[boundary], constant_track(label, 2 * tau)
    t = int(rng.integers(2, 2 * tau - 1))
    if op == "diff_class":
        frames = diff_class_frames(first, moving_clip(other, seed + 500, 2 * tau, side), tau, 1)
        track = diff_class_labels(track, constant_track(other, 2 * tau), tau, 1)
    elif op == "same_class":
        frames = same_class_frames(first, moving_clip(label, seed + 500, tau, side), tau)
    elif op == "diff_speed":
        frames = diff_speed_frames(first, tau, t, 2.0)
    else:
        frames = same_speed_frames(first, tau)
    return frames, track, change_point(op, {"tau": tau, "eps": 1, "t": t, "gamma": 2.0})


def boundary_meta(boundary: int, seed: int, tau: int = 4) -> dict[str, object]:
    """Return what the `.json` member of such a sample says."""
    _, track, place = boundary_clip(boundary, seed, tau)
    return {
        "kind": "boundary",
        "num_frames": 2 * tau,
        "class_ids": track.class_ids.tolist(),
        "weights": track.weights_CT.tolist(),
        "boundary_class": boundary,
        "change_point": place,
    }


def boundary_sample(boundary: int, seed: int = 0, **changes: object) -> ShardSample:
    """Return such a sample without its frames; `changes` are put into what it says."""
    return ShardSample("00000007", {}, {**boundary_meta(boundary, seed), **changes})


def write_boundary_shards(out: Path, num_samples: int = 20, tau: int = 4, side: int = 32) -> Path:
    """Write samples of two videos of their own; sample `i` has boundary class `i % 4`."""
    samples = [
        (
            {"npy": encode_raw(boundary_clip(number % 4, number, tau, side)[0])},
            boundary_meta(number % 4, number, tau),
            (f"v{number}", f"w{number}"),
        )
        for number in range(num_samples)
    ]
    return write_samples(out, samples, samples_per_shard=4, classes=CLASSES)
