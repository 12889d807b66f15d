"""Extraction against the slower of its two stages alone: decoding, and the forward pass.

Each stage alone gets all the cores, with as many threads as extraction gives it.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from features import Encoder, extract_features
from features.crops import Framing
from features.decoding import SnippetCut, fill_snippets, sampled_frames
from features.encoder import forward_threads
from manifests import SnippetGrid, SourceVideo, read_sources
from train import X3D, X3DArguments, channels_last

from .measure import Row, interleaved, rate_row

SNIPPET_LEN, SNIPPET_STRIDE, SIZE, BATCH = 16, 32, 224, 2
HELD_SNIPPETS = 8


def decode(videos: list[SourceVideo], cut: SnippetCut, threads: int) -> None:
    """Decode every video into its snippets and throw them away."""

    def one(video: SourceVideo) -> None:
        held = np.empty((HELD_SNIPPETS, 1, SNIPPET_LEN, SIZE, SIZE, 3), np.uint8)
        frames = sampled_frames(video, None)
        fill_snippets(video, frames, cut, lambda i: [held[i % HELD_SNIPPETS]], lambda i: None)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, videos))


def forward(encoder: Encoder, num_snippets: int) -> None:
    """Encode as many snippets as there are, of noise."""
    clips = np.random.default_rng(0).integers(0, 256, (BATCH, SNIPPET_LEN, SIZE, SIZE, 3), np.uint8)
    threads = forward_threads(encoder.device)
    cores = torch.get_num_threads()
    with ThreadPoolExecutor(
        threads.num_workers, "forward", torch.set_num_threads, (threads.cores_each,)
    ) as pool:
        list(pool.map(lambda _: encoder.encode(clips), range(-(-num_snippets // BATCH))))
    torch.set_num_threads(cores)


def measure(folder: Path, sources: Path, threads: int, num_videos: int = 3) -> Row:
    """Extract X3D-M features (random weights) of a few videos."""
    torch.manual_seed(0)
    backbone = X3D(400, X3DArguments(size="M")).eval()
    channels_last(backbone)
    encoder = Encoder(
        "x3d", backbone.features, backbone.feature_dim, SNIPPET_LEN, SIZE, SIZE,
        (0.45,) * 3, (0.225,) * 3, weights_digest="random",
    )  # fmt: skip
    videos = list(read_sources(sources))[:num_videos]
    cut = SnippetCut(SnippetGrid(SNIPPET_LEN, SNIPPET_STRIDE), None, (Framing(SIZE, SIZE, SIZE),))
    num_snippets = sum(cut.num_snippets(video) for video in videos)
    store = folder / "benchmark.zarr"

    def ours() -> None:
        shutil.rmtree(store, ignore_errors=True)
        report = extract_features(
            videos, encoder, store, snippet_stride=SNIPPET_STRIDE, batch=BATCH, workers=threads
        )
        if report.rejected:
            raise RuntimeError(f"videos were rejected: {report.rejected}")

    extraction, decoding, computing = interleaved(
        3,
        ours,
        lambda: decode(videos, cut, threads),
        lambda: forward(encoder, num_snippets),
    )
    slower = max(decoding, computing)
    stage = "forward" if slower == computing else "decoding"
    return rate_row(
        f"extraction, X3D-M at {SIZE} (slower: {stage})", "snippets", num_snippets, extraction,
        slower, 0.85,
    )  # fmt: skip
