"""What to measure on: Kinetics-like clips, 10 s of h264 at 340x256, and a recipe of all kinds."""

import dataclasses
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import ffmpeg

from manifests import SourceVideo, probe_video, run_ffmpeg, write_sources

NUM_CLASSES = 4
RECIPE = """
[synth]
samples_per_video = {samples_per_video}
samples_per_shard = {samples_per_shard}
[synth.kinds]
clip = 1
freeze = 1
mixup = 1
cutmix_window = 1
cutmix_view = 1
"""


def write_recipe(path: Path, samples_per_video: int, samples_per_shard: int) -> Path:
    """Write a recipe of all kinds, 16 frames at stride 5, and return its path."""
    path.write_text(
        RECIPE.format(samples_per_video=samples_per_video, samples_per_shard=samples_per_shard)
    )
    return path


def run_in_folder(main: Callable[[Path], None]) -> None:
    """Call `main` with the folder named on the command line, or with a temporary one."""
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))


def make_clip(path: Path, number: int, seconds: float = 10.0, size: str = "340x256") -> None:
    """Write one clip of moving shapes under film grain, with the encoder's default keyframes.

    Larger sizes show the same scene enlarged: no camera draws edges as sharp as the generator's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    source = ffmpeg.input(
        f"testsrc2=size=340x256:rate=30:duration={seconds}", format="lavfi"
    ).filter("hue", h=37 * number % 360)
    if size != "340x256":
        source = source.filter("scale", size=size)
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
