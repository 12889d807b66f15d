"""Measure when `synth manifest --transcode` pays: `python -m benchmarks.transcoding [FOLDER]`.

Windows are read as rendering reads them: 16 frames at stride 5, resized to a short side of 256.
Clips are made in FOLDER (a temporary one by default), 10 s with one keyframe in 250 frames; the
videos of FOLDER/sources.parquet are taken instead if that exists. CPU seconds of one process.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manifests import SourceVideo, probe_video, read_sources
from manifests.transcode import plan_transcode, transcode
from synth import read_frames, resize

from .clips import make_clip, run_in_folder

NUM_CLIPS = 6
SIZES = ("340x256", "1280x720")
WINDOW = 5 * np.arange(16)
SAMPLES_PER_VIDEO = (1, 4)
NUM_TURNS = 3
LUMA = np.array([0.299, 0.587, 0.114])
NUM_COMPARED = 20

HEADER = (
    "| source | beyond the probe | size | luma PSNR | windows/pass | before | after | pays from |\n"
    "|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Pair:
    """A video before and after, and the CPU seconds that a table of it costs more."""

    old: SourceVideo
    new: SourceVideo
    seconds: float


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def make_pair(video: SourceVideo, target: Path) -> Pair:
    """Transcode one video; its cost is what it takes beyond the probe, which is needed anyway."""

    def work() -> None:
        transcode(plan_transcode(video.path, str(target)))

    target.unlink(missing_ok=True)  # of an earlier run: it would be kept
    probing = cpu_seconds(lambda: probe_video(video.path))
    seconds = cpu_seconds(work) - probing
    return Pair(video, probe_video(str(target)), seconds)


def window_seconds(videos: list[SourceVideo], windows: int) -> float:
    """Return the CPU seconds of one pass over each video that reads random windows of it."""
    return cpu_seconds(lambda: read_windows(videos, windows))


def read_windows(videos: list[SourceVideo], windows: int) -> None:
    """Read random windows of each video, each frame decoded once for all windows of a video."""
    for seed, video in enumerate(videos):
        starts = np.random.default_rng(seed).integers(
            video.num_frames - WINDOW[-1], size=(windows, 1)
        )
        read_frames(video, np.unique(starts + WINDOW), short_side=256)


def psnr(pair: Pair) -> float:
    """Return decibels between the luma of new pictures and of old ones resized to their size.

    The generator's colours are so saturated that 4:2:0 alone, which nearly every video has, would
    hide the codec's part; at the new size its blocks are larger.
    """
    wanted = np.linspace(0, pair.old.num_frames - 1, NUM_COMPARED).astype(int)
    new_THWC = read_frames(pair.new, wanted)
    height, width = new_THWC.shape[1:3]
    resized = [resize(frame_HWC, height, width) for frame_HWC in read_frames(pair.old, wanted)]
    return float(10 * np.log10(255**2 / np.mean((np.stack(resized) @ LUMA - new_THWC @ LUMA) ** 2)))


def rows_of(name: str, pairs: list[Pair]) -> list[str]:
    """Return the table rows of one kind of source."""
    seconds = statistics.mean(pair.seconds for pair in pairs)
    old_kb = statistics.mean(pair.old.num_bytes for pair in pairs) / 1024
    new_kb = statistics.mean(pair.new.num_bytes for pair in pairs) / 1024
    quality = statistics.mean(psnr(pair) for pair in pairs)
    first = f"{name} | {seconds:.2f} s/video | {old_kb:,.0f} to {new_kb:,.0f} KB | {quality:.1f} dB"
    rows = []
    for windows in SAMPLES_PER_VIDEO:
        olds, news = [], []
        for _ in range(NUM_TURNS + 1):
            olds.append(window_seconds([pair.old for pair in pairs], windows))
            news.append(window_seconds([pair.new for pair in pairs], windows))
        count = windows * len(pairs)
        before, after = min(olds[1:]) / count, min(news[1:]) / count  # the first turn warms up
        saved = before - after
        pays = f"{seconds / saved:,.0f} windows/video" if saved > 0 else "never"
        rows.append(f"| {first} | {windows} | {1 / before:.1f}/s | {1 / after:.1f}/s | {pays} |")
    return rows


def main(folder: Path) -> None:
    """Print the table."""
    kinds: dict[str, list[SourceVideo]] = {}
    table = folder / "sources.parquet"
    if table.exists():
        kinds["your videos"] = [
            video
            for video in read_sources(table)
            if video.status == "ok" and video.num_frames > WINDOW[-1] + 1
        ]
    else:
        for size in SIZES:
            paths = [folder / size / f"{number}.mp4" for number in range(NUM_CLIPS)]
            for number, path in enumerate(paths):
                make_clip(path, number, size=size)
            kinds[f"10 s, {size}"] = [probe_video(str(path)) for path in paths]
    print(HEADER)
    for name, videos in kinds.items():
        targets = [folder / "transcoded" / name / f"{i}.mp4" for i in range(len(videos))]
        pairs = [make_pair(video, path) for video, path in zip(videos, targets, strict=True)]
        print("\n".join(rows_of(name, pairs)), flush=True)


if __name__ == "__main__":
    run_in_folder(main)
