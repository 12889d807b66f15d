"""Write small finished shard folders whose classes differ by motion."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synth import LabelTrack, constant_track
from synth.codecs import ENCODERS, EXTENSIONS, encode_raw
from synth.shards import PAIR, TarWriter, dump_json, shard_path, write_index

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
    written = []
    for frames, track, video_ids, kind in samples:
        meta = {
            "kind": kind,
            "num_frames": len(frames),
            "class_ids": track.class_ids.tolist(),
            "weights": track.weights_CT.tolist(),
        }
        written.append(({EXTENSIONS[codec]: ENCODERS[codec](frames)}, meta, video_ids))
    return write_samples(out, written, samples_per_shard, classes)


def write_pairs(
    out: Path,
    samples: Sequence[tuple[np.ndarray, dict[str, Any], tuple[str, ...]]],
    samples_per_shard: int = 4,
) -> Path:
    """Write `(query and key (2, T, H, W, 3), meta, video ids)` as a finished dataset."""
    written = [
        (
            {f"{view}.npy": encode_raw(frames) for view, frames in zip(PAIR, pair, strict=True)},
            {"num_frames": pair.shape[1], "class_ids": [], "weights": [], **meta},
            video_ids,
        )
        for pair, meta, video_ids in samples
    ]
    return write_samples(out, written, samples_per_shard, CLASSES)


def write_samples(
    out: Path,
    samples: Sequence[tuple[dict[str, bytes], dict[str, Any], tuple[str, ...]]],
    samples_per_shard: int,
    classes: Sequence[str],
) -> Path:
    """Write `(members, meta, video ids)` samples as a finished dataset of one made plan."""
    out.mkdir(parents=True, exist_ok=True)
    digests = []
    for first in range(0, len(samples), samples_per_shard):
        shard = first // samples_per_shard
        rows, path = [], shard_path(out, shard)
        with open(path, "wb") as file:
            tar = TarWriter(file)
            for number, sample in enumerate(samples[first : first + samples_per_shard], first):
                members, meta, video_ids = sample
                key, offset = f"{number:08d}", tar.offset
                for extension, member in members.items():
                    tar.add(f"{key}.{extension}", member)
                tar.add(f"{key}.json", dump_json(meta))
                place = {"offset": offset, "bytes": tar.offset - offset, "reason": None}
                row = {"key": key, "status": "rendered", "kind": meta["kind"]}
                rows.append(row | {"video_ids": video_ids} | place)
            digests.append(tar.close())
        index_sha256 = write_index(shard_path(out, shard, "parquet"), rows)
        record = {"plan_digest": "made", "bytes": path.stat().st_size, "rendered": len(rows)}
        record |= {"sha256": digests[-1], "index_sha256": index_sha256}
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


def textured_video(rng: np.random.Generator, num_frames: int, side: int) -> np.ndarray:
    """Return uint8 `(T, side, side, 3)`: coarse random colours that move at a steady pace."""
    coarse = rng.integers(0, 256, (2, 2, 3), np.uint8)
    pattern = coarse.repeat(side // 2, 0).repeat(side // 2, 1)
    pace = rng.integers(-2, 3, 2)
    return np.stack([np.roll(pattern, t * pace, (0, 1)) for t in range(num_frames)])


def pasted_pair(
    seed: int, num_clips: int = 8, clip_len: int = 2, side: int = 32
) -> tuple[np.ndarray, dict[str, Any], tuple[str, ...]]:
    """Return a `pal` sample: parts of one video in two others, each part lit differently."""
    rng = np.random.default_rng(seed)
    num_frames = num_clips * clip_len
    action = textured_video(rng, num_frames, side)
    views, regions = [], []
    for _ in range(2):
        length = rng.integers(1, num_clips - 1)
        first = rng.integers(1, num_clips - length)
        view = textured_video(rng, num_frames, side)
        start = rng.integers(0, num_clips - length + 1) * clip_len
        region = action[start : start + length * clip_len] * rng.uniform(0.6, 1)
        view[first * clip_len : (first + length) * clip_len] = region.astype(np.uint8)
        views.append(view)
        regions.append((int(first) + 1, int(first + length)))
    s, e = (list(ends) for ends in zip(*regions, strict=True))
    meta = {"kind": "pal", "s": s, "e": e, "clip_len": clip_len}
    return np.stack(views), meta, (f"v{seed}", f"b{seed}", f"c{seed}")


def write_pasted_pairs(out: Path, num_samples: int, **options: int) -> Path:
    """Write `pal` samples, each from three videos of its own."""
    return write_pairs(out, [pasted_pair(number, **options) for number in range(num_samples)])


def write_clip_pairs(out: Path, num_samples: int, num_frames: int = 4, side: int = 32) -> Path:
    """Write `clip_pair` samples: two parts of one video each, lit differently."""
    samples = []
    for number in range(num_samples):
        rng = np.random.default_rng(number)
        video = textured_video(rng, 2 * num_frames, side)
        starts = rng.integers(0, num_frames + 1, 2)
        views = [video[t : t + num_frames] * rng.uniform(0.6, 1) for t in starts]
        samples.append((np.stack(views).astype(np.uint8), {"kind": "clip_pair"}, (f"v{number}",)))
    return write_pairs(out, samples)


def file_digest(path: Path) -> str:
    """Return the sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
