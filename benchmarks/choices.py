"""What was chosen by measuring: decoders, codecs, small nets. `python -m benchmarks.choices`."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import decord
import numpy as np
import torch

from manifests import SourceVideo, VideoError, probe_video, read_sources
from synth import read_frames
from synth.codecs import DECODERS, ENCODERS, EXTENSIONS
from synth.frames import _read_decord, _read_pyav
from train import X3D, X3DArguments

from .clips import make_sources, run_in_folder

NUM_CLIPS, NUM_DAMAGED, NUM_FLIPS = 12, 12, 3
SMALL_NETWORKS = (
    {"depth_factor": 1.0, "width_factor": 1.0, "bottleneck_factor": 2.25},
    {"depth_factor": 1.0, "width_factor": 0.67, "bottleneck_factor": 2.0},
    {"depth_factor": 0.5, "width_factor": 0.67, "bottleneck_factor": 2.0},
)


def cpu_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Return the least CPU seconds of a few calls, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times[1:])


def decoder_rows(videos: list[SourceVideo]) -> list[str]:
    """Compare decord and PyAV on windows and on whole clips."""
    rows = [
        "| decoder | 16-frame windows at stride 5, per CPU second | all frames |",
        "|---|---|---|",
    ]
    rng = np.random.default_rng(0)
    starts = [int(rng.integers(video.num_frames - 76)) for video in videos]
    for name, read in (("decord", _read_decord), ("PyAV", _read_pyav)):

        def windows(read: Callable = read) -> None:
            for video, start in zip(videos, starts, strict=True):
                list(read(video, [start + 5 * np.arange(16)]))

        def everything(read: Callable = read) -> None:
            for video in videos:
                list(read(video, np.array_split(np.arange(video.num_frames), 20)))

        num_frames = sum(video.num_frames for video in videos)
        per_window = len(videos) / cpu_seconds(windows)
        per_frame = num_frames / cpu_seconds(everything)
        rows.append(f"| {name} | {per_window:.1f} | {per_frame:,.0f} |")
    return rows


def damage_rows(video: SourceVideo, folder: Path) -> list[str]:
    """Count damaged copies of a clip that each decoder returns without an error."""
    content = Path(video.path).read_bytes()
    intact = read_frames(dataclasses.replace(video, decoder="pyav"), np.arange(video.num_frames))
    silent, refused = 0, 0
    for seed in range(NUM_DAMAGED):
        rng = np.random.default_rng(seed)
        damaged = bytearray(content)
        for position in rng.integers(len(content) // 4, len(content) * 3 // 4, NUM_FLIPS):
            damaged[position] ^= 1 << int(rng.integers(8))
        path = folder / f"damaged_{seed}.mp4"
        path.write_bytes(damaged)
        try:
            reader = decord.VideoReader(str(path), num_threads=1)
            frames = reader.get_batch(range(len(reader))).asnumpy()
            silent += not np.array_equal(frames, intact)
        except decord.DECORDError:
            pass
        try:
            probe_video(str(path))
        except VideoError:
            refused += 1
    return [
        f"{NUM_DAMAGED} copies with {NUM_FLIPS} flipped bits: decord returned wrong frames of "
        f"{silent} without an error; the strict decode refused {refused}"
    ]


def codec_rows(video: SourceVideo) -> list[str]:
    """Compare the codecs on one 16 x 256 x 256 clip."""
    clip = read_frames(video, np.arange(0, 80, 5), short_side=256)[:, :256, :256]
    clip = np.ascontiguousarray(clip)
    rows = ["| codec, 16 x 256 x 256 | encode | decode | KB | PSNR |", "|---|---|---|---|---|"]
    for codec, encode in ENCODERS.items():
        member, decode = encode(clip), DECODERS[EXTENSIONS[codec]]
        error = np.mean((decode(member, len(clip), None).astype(float) - clip) ** 2)
        psnr = f"{10 * np.log10(255**2 / error):.1f} dB" if error else "exact"
        encoding = cpu_seconds(lambda encode=encode: encode(clip), 10)
        decoding = cpu_seconds(lambda d=decode, m=member: d(m, len(clip), None), 10)
        rows.append(
            f"| `{codec}` | {1e3 * encoding:.1f} ms | {1e3 * decoding:.1f} ms | "
            f"{len(member) / 1024:,.0f} | {psnr} |"
        )
    return rows


def network_rows(batch: int = 16, size: int = 64) -> list[str]:
    """Time forward and backward of small X3Ds on one core."""
    rows = [
        "| X3D at 16 x 64 x 64, one core | clips per CPU second, forward and backward |",
        "|---|---|",
    ]
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    clips = torch.randn(batch, 3, 16, size, size).to(memory_format=torch.channels_last_3d)
    for arguments in SMALL_NETWORKS:
        network = X3D(9, X3DArguments(feature_dim=256, **arguments))
        network = network.to(memory_format=torch.channels_last_3d)

        def step(network: X3D = network) -> None:
            network.zero_grad()
            network(clips, per_frame=True).square().mean().backward()

        settings = ", ".join(f"{name} {value}" for name, value in arguments.items())
        rows.append(f"| {settings} | {batch / cpu_seconds(step):.1f} |")
    torch.set_num_threads(cores)
    return rows


def main(folder: Path) -> None:
    """Print all tables."""
    videos = list(read_sources(make_sources(folder / "clips", NUM_CLIPS)))
    for rows in (
        lambda: decoder_rows(videos),
        lambda: damage_rows(videos[0], folder),
        lambda: codec_rows(videos[0]),
        network_rows,
    ):
        print("\n".join(rows()), end="\n\n", flush=True)


if __name__ == "__main__":
    run_in_folder(main)
