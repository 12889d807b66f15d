"""Write small finished shard folders whose classes differ by motion."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from synth import LabelTrack, constant_track
from synth.codecs import ENCODERS, EXTENSIONS
from synth.shards import TarWriter, dump_json, shard_path, write_index

MOVES = ((0, 2), (0, -2), (2, 0), (-2, 0))  # pixels per frame down and right; one per class
CLASSES = ("right", "left", "down", "up")


def moving_clip(label_id: int, seed: int, num_frames: int = 4, side: int = 32) -> np.ndarray:
    """Return uint8 `(T, side, side, 3)`: a bright square that moves as its class says."""
    rng = np.random.default_rng(seed)
    frames = np.full((num_frames, side, side, 3), rng.integers(40, 80), np.uint8)
    place, colour = rng.integers(0, side, 2), rng.integers(160, 255, 3)
    for t in range(num_frames):
        rows, columns = (
            (place[axis] + MOVES[label_id][axis] * 2 * t + np.arange(10)) % side for axis in (0, 1)
        )
        frames[t][np.ix_(rows, columns)] = colour
    return frames


def write_shards(
    out: Path,
    samples: Sequence[tuple[np.ndarray, LabelTrack, tuple[str, ...], str]],
    samples_per_shard: int = 4,
    codec: str = "filmstrip",
    classes: Sequence[str] = CLASSES,
) -> Path:
    """Write `(frames, track, video ids, kind)` samples as a finished dataset of one made plan."""
    out.mkdir(parents=True, exist_ok=True)
    digests = []
    for first in range(0, len(samples), samples_per_shard):
        shard = first // samples_per_shard
        rows, path = [], shard_path(out, shard)
        with open(path, "wb") as file:
            tar = TarWriter(file)
            for number, sample in enumerate(samples[first : first + samples_per_shard], first):
                frames, track, video_ids, kind = sample
                key, offset = f"{number:08d}", tar.offset
                meta = {
                    "kind": kind,
                    "num_frames": len(frames),
                    "class_ids": track.class_ids.tolist(),
                    "weights": track.weights_CT.tolist(),
                }
                tar.add(f"{key}.{EXTENSIONS[codec]}", ENCODERS[codec](frames))
                tar.add(f"{key}.json", dump_json(meta))
                place = {"offset": offset, "bytes": tar.offset - offset, "reason": None}
                row = {"key": key, "status": "rendered", "kind": kind, "video_ids": video_ids}
                rows.append(row | place)
            digests.append(tar.close())
        write_index(shard_path(out, shard, "parquet"), rows)
        record = {"plan_digest": "made", "bytes": path.stat().st_size, "rendered": len(rows)}
        shard_path(out, shard, "json").write_bytes(dump_json(record))
    dataset = {
        "plan_digest": "made",
        "classes": list(classes),
        "shards": list(range(len(digests))),
        "shard_digests": digests,
    }
    (out / "dataset.json").write_bytes(dump_json(dataset))
    return out


def write_moving_shards(
    out: Path, num_samples: int = 16, num_frames: int = 4, side: int = 32, **options: object
) -> Path:
    """Write one clip per video; the class of sample `i` is `i % 4`, its video is `v<i>`."""
    samples = [
        (
            moving_clip(number % 4, number, num_frames, side),
            constant_track(number % 4, num_frames),
            (f"v{number}",),
            "clip",
        )
        for number in range(num_samples)
    ]
    return write_shards(out, samples, **options)  # type: ignore[arg-type]


def file_digest(path: Path) -> str:
    """Return the sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
