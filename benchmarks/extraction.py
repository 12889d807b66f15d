"""Extraction against the slower of its two stages alone, and against the usual way.

Each stage alone, decoding and the forward pass, gets all the cores, with as many threads as
extraction gives it. The usual way is what the extractors of many repositories do: for every snippet
the video is opened anew, its frames are resized and normalised as floats, and the network sees one
clip at a time, in the memory layout that it was built in.

`python -m benchmarks.extraction SOURCES.parquet` measures the videos of a table of one's own; where
there is a GPU, it also says how busy that was.
"""

import copy
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import decord
import numpy as np
import torch
from torch.nn.functional import interpolate

from features import Encoder, extract_features
from features.extraction.crops import Framing
from features.extraction.decoding import SnippetCut, fill_snippets, sampled_frames
from features.extraction.encoder import DEFAULT_BATCH, forward_threads
from manifests import SnippetGrid, SourceVideo, read_sources
from synth import resized_size
from train import BACKBONES, Backbone, channels_last

from .measure import HEADER, Row, interleaved, rate_row, seconds_of

MEAN, STD = 0.45, 0.225
HELD_SNIPPETS = 8
LEAST_OF_STAGE, LEAST_OF_USUAL = 0.90, 3.0


@dataclass(frozen=True)
class Network:
    """A network of random weights, and the clips that it takes."""

    title: str
    name: str
    arguments: dict[str, object]
    frames: int
    size: int

    def build(self) -> Backbone:
        """Return it in evaluation mode, in the memory layout that PyTorch gives it.

        Its batch norms know the statistics of noise, as those of a trained network know their
        data's. Without them activations die away from layer to layer, down to denormal numbers,
        which take processors ten times as long.
        """
        torch.manual_seed(0)
        kind = BACKBONES[self.name]
        backbone = kind(400, kind.Arguments(**self.arguments)).train()
        for module in backbone.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.momentum = 1.0
        with torch.no_grad():
            backbone.features(torch.randn(2, 3, self.frames, self.size, self.size))
        return backbone.eval()

    def encoder(self, backbone: Backbone) -> Encoder:
        """Return it as extraction opens it."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        laid_out = copy.deepcopy(backbone).to(device)
        channels_last(laid_out)
        return Encoder(
            self.name,
            laid_out.features,
            backbone.feature_dim,
            self.frames,
            self.size,
            self.size,
            (MEAN,) * 3,
            (STD,) * 3,
            weights_digest="random",
            device=device,
        )


X3D_M = Network("X3D-M", "x3d", {"size": "M"}, 16, 224)  # of SSDet
X3D_XS = Network("X3D-XS", "x3d", {"size": "XS"}, 4, 160)


def decode(videos: list[SourceVideo], cut: SnippetCut, threads: int) -> None:
    """Decode every video into its snippets and throw them away."""
    (framing,), length = cut.framings, cut.grid.snippet_len

    def one(video: SourceVideo) -> None:
        size = (HELD_SNIPPETS, 1, length, framing.height, framing.width, 3)
        held = np.empty(size, np.uint8)
        frames = sampled_frames(video, None)
        fill_snippets(video, frames, cut, lambda i: [held[i % HELD_SNIPPETS]], lambda i: None)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, videos))


def forward(encoder: Encoder, network: Network, num_snippets: int) -> None:
    """Encode as many snippets as there are, of noise."""
    batch = DEFAULT_BATCH[encoder.device.type]
    size = (batch, network.frames, network.size, network.size, 3)
    clips = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    threads = forward_threads(encoder.device)
    cores = torch.get_num_threads()
    with ThreadPoolExecutor(
        threads.num_workers, "forward", torch.set_num_threads, (threads.cores_each,)
    ) as pool:
        list(pool.map(lambda _: encoder.encode(clips), range(-(-num_snippets // batch))))
    torch.set_num_threads(cores)


def usual_way(videos: list[SourceVideo], backbone: Backbone, grid: SnippetGrid, size: int) -> None:
    """Extract as a script does that knows one snippet at a time."""
    device = next(backbone.parameters()).device
    for video in videos:
        rows = []
        for positions_L in grid.frame_positions(video.num_frames):
            clips_NCTHW = read_clip(video.path, positions_L, size)[None].to(device)
            with torch.inference_mode():
                rows.append(backbone.features(clips_NCTHW).cpu().numpy())
        np.concatenate(rows)


def read_clip(path: str, positions_L: np.ndarray, size: int) -> torch.Tensor:
    """Open a video and return some frames, float `(3, T, size, size)`, normalised."""
    reader = decord.VideoReader(path, ctx=decord.cpu(0))
    clip_TCHW = torch.from_numpy(reader.get_batch(positions_L).asnumpy()).permute(0, 3, 1, 2)
    resized = resized_size(clip_TCHW.shape[2], clip_TCHW.shape[3], size)
    clip_TCHW = interpolate(clip_TCHW.float() / 255, resized, mode="bilinear", align_corners=False)
    y, x = (resized[0] - size) // 2, (resized[1] - size) // 2
    clip_TCHW = (clip_TCHW[:, :, y : y + size, x : x + size] - MEAN) / STD
    return clip_TCHW.transpose(0, 1).contiguous()


def stage_row(folder: Path, videos: list[SourceVideo], threads: int, network: Network) -> Row:
    """Compare extraction, every second window of frames left out, with its stages alone."""
    encoder, stride = network.encoder(network.build()), 2 * network.frames
    grid = SnippetGrid(network.frames, stride)
    cut = SnippetCut(grid, None, (Framing(network.size, network.size, network.size),))
    num_snippets = sum(cut.num_snippets(video) for video in videos)
    extraction, decoding, computing = interleaved(
        3,
        lambda: extract(folder, videos, encoder, stride, threads),
        lambda: decode(videos, cut, threads),
        lambda: forward(encoder, network, num_snippets),
    )
    slower = max(decoding, computing)
    stage = "forward" if slower == computing else "decoding"
    return rate_row(
        f"extraction, {network.title} at {network.size} (slower: {stage})", "snippets",
        num_snippets, extraction, slower, LEAST_OF_STAGE,
    )  # fmt: skip


def usual_row(folder: Path, videos: list[SourceVideo], threads: int, network: Network) -> Row:
    """Compare extraction at half overlap with the usual way."""
    backbone, stride = network.build(), network.frames // 2
    encoder, grid = network.encoder(backbone), SnippetGrid(network.frames, stride)
    backbone = backbone.to(encoder.device)
    num_snippets = sum(grid.num_snippets(video.num_frames) for video in videos)
    ours, theirs = interleaved(
        1,
        lambda: extract(folder, videos, encoder, stride, threads),
        lambda: usual_way(videos, backbone, grid, network.size),
        warm_up=False,
    )
    return rate_row(
        f"extraction, {network.title}, against one snippet at a time", "snippets", num_snippets,
        ours, theirs, LEAST_OF_USUAL,
    )  # fmt: skip


def reading_row(videos: list[SourceVideo], threads: int, network: Network) -> Row:
    """Compare only the reading of clips at half overlap: what counts beside a fast GPU."""
    grid = SnippetGrid(network.frames, network.frames // 2)
    cut = SnippetCut(grid, None, (Framing(network.size, network.size, network.size),))
    num_snippets = sum(cut.num_snippets(video) for video in videos)

    def usual() -> None:
        for video in videos:
            for positions_L in grid.frame_positions(video.num_frames):
                read_clip(video.path, positions_L, network.size)

    ours, theirs = interleaved(1, lambda: decode(videos, cut, threads), usual, warm_up=False)
    return rate_row(
        f"reading {network.frames} frames at {network.size}, against one snippet at a time",
        "snippets", num_snippets, ours, theirs, LEAST_OF_USUAL,
    )  # fmt: skip


def extract(
    folder: Path, videos: list[SourceVideo], encoder: Encoder, stride: int, threads: int
) -> None:
    """Extract into a new store."""
    store = folder / "benchmark.zarr"
    shutil.rmtree(store, ignore_errors=True)
    report = extract_features(videos, encoder, store, snippet_stride=stride, workers=threads)
    if report.rejected:
        raise RuntimeError(f"videos were rejected: {report.rejected}")


def gpu_line(folder: Path, videos: list[SourceVideo], threads: int, network: Network) -> str:
    """Say how fast a GPU was fed: snippets/s, the share of time in kernels, bytes moved to it."""
    encoder, stride = network.encoder(network.build()), network.frames // 2
    grid = SnippetGrid(network.frames, stride)
    num_snippets = sum(grid.num_snippets(video.num_frames) for video in videos)
    extract(folder, videos, encoder, stride, threads)  # warm
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        seconds = seconds_of(lambda: extract(folder, videos, encoder, stride, threads))
    kernels = sum(
        event.device_time_total
        for event in profile.events()
        if not event.name.lower().startswith(("memcpy", "memset"))
    )
    moved = num_snippets * network.frames * network.size**2 * 3
    return (
        f"{network.title} on {torch.cuda.get_device_name()}: {num_snippets / seconds:,.1f} "
        f"snippets/s, {kernels / 1e6 / seconds:.0%} of the time in kernels, {moved / 1e9:.2f} GB "
        f"moved to the card ({encoder.precision})"
    )


def measure(folder: Path, sources: Path, threads: int, num_videos: int = 3) -> Row:
    """Compare extraction of X3D-M features of a few videos with its stages."""
    return stage_row(folder, list(read_sources(sources))[:num_videos], threads, X3D_M)


def measure_usual(folder: Path, sources: Path, threads: int, num_videos: int = 3) -> Row:
    """Compare extraction of X3D-XS features of a few videos with the usual way."""
    return usual_row(folder, list(read_sources(sources))[:num_videos], threads, X3D_XS)


def main(sources: str) -> None:
    """Measure all rows on one's own videos."""
    threads = torch.get_num_threads()
    videos = [video for video in read_sources(sources) if video.status == "ok"]
    print(HEADER)
    with tempfile.TemporaryDirectory() as folder:
        for network in (X3D_M, X3D_XS):
            print(stage_row(Path(folder), videos, threads, network), flush=True)
            print(usual_row(Path(folder), videos, threads, network), flush=True)
            print(reading_row(videos, threads, network), flush=True)
            if torch.cuda.is_available():
                print(gpu_line(Path(folder), videos, threads, network), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
