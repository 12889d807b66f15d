"""Kinetics-like clips to measure on: 10 s of h264 at 340x256 and 30 frames/s, made on the spot."""

import dataclasses
from pathlib import Path

import ffmpeg

from manifests import SourceVideo, probe_video, run_ffmpeg, write_sources

NUM_CLASSES = 4


def make_clip(path: Path, number: int, seconds: float = 10.0) -> None:
    """Write one clip of moving shapes under film grain, with the encoder's default keyframes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = ffmpeg.input(
        f"testsrc2=size=340x256:rate=30:duration={seconds}", format="lavfi"
    ).filter("hue", h=37 * number % 360)
    source = source.filter("noise", alls=6, allf="t", all_seed=number)
    out = source.output(
        str(path), vcodec="libx264", preset="veryfast", crf=25, pix_fmt="yuv420p", threads=1
    )
    run_ffmpeg(out)


def make_sources(folder: Path, num_clips: int) -> Path:
    """Make the clips and their sources table (kept if they are there), and return its path."""
    table = folder / "sources.parquet"
    if table.exists():
        return table
    videos: list[SourceVideo] = []
    for number in range(num_clips):
        path = folder / f"clip_{number:04d}.mp4"
        make_clip(path, number)
        label_id = number % NUM_CLASSES
        videos.append(
            dataclasses.replace(
                probe_video(str(path)),
                video_id=path.stem,
                path=path.name,
                label=f"class_{label_id}",
                label_id=label_id,
            )
        )
    write_sources(table, videos, [f"class_{label_id}" for label_id in range(NUM_CLASSES)])
    return table
