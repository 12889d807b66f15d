"""Re-timed copies: every snippet of a copy is made of the frames that its re-timing names."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from made_stores import even_times, write_store
from made_videos import encode, read_stamps, stamped_frames

import features.pictures.retimed as retimed_module
from features import Encoder, FeatureStore, extract_features
from features.pictures.equivariance import RETIMINGS, Retiming
from features.pictures.retimed import encode_copies, streams_of_store
from manifests import CheckpointError, SourceVideo, UsageError, VideoError, probe_video

pytestmark = pytest.mark.slow

LENGTH = 8


def stamps_of(clips_NCTHW: torch.Tensor) -> torch.Tensor:
    """Read the number of every frame of every clip."""
    frames = (clips_NCTHW.permute(0, 2, 3, 4, 1) * 255).round().to(torch.uint8).numpy()
    return torch.tensor([read_stamps(clip) for clip in frames], dtype=torch.float32)


def stamp_encoder(
    embed: Callable[[torch.Tensor], torch.Tensor] = stamps_of, dim: int = LENGTH
) -> Encoder:
    """Return an encoder whose features are the frame numbers of a snippet, or made of them."""
    return Encoder(
        name="stamps",
        embed=embed,
        feature_dim=dim,
        num_frames=LENGTH,
        height=96,
        width=128,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        weights_digest="0" * 64,
    )


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> SourceVideo:
    """Return a video of 61 frames, each of which says its number."""
    path = encode(tmp_path_factory.mktemp("retimed") / "v.mp4", stamped_frames(61))
    return replace(probe_video(str(path)), video_id="v")


@pytest.mark.parametrize("options", [{}, {"fps": Fraction(10)}, {"alignment": "centre"}])
def test_snippets_of_a_copy_show_the_frames_of_the_retiming(
    tmp_path: Path, video: SourceVideo, options: dict
) -> None:
    """Also at another rate, and centred; and the copy that changes nothing is the store's rows."""
    extract_features([video], stamp_encoder(), tmp_path / "s.zarr", snippet_stride=3, **options)
    store = FeatureStore.open(tmp_path / "s.zarr")
    streams = streams_of_store(store, stamp_encoder())
    plain = Retiming("as it is")
    frames, copies = encode_copies(video, store.spec, streams, (plain, *RETIMINGS))
    for copy in copies:
        shown_K = frames.frame_index_N[copy.retiming.frames(len(frames))]
        expected = shown_K[store.spec.grid.frame_positions(len(shown_K))]
        np.testing.assert_array_equal(copy.feats_RD, expected)
        assert copy.num_frames == len(shown_K)
        assert len(copy.positions_R3) == len(copy.feats_RD)
    np.testing.assert_array_equal(copies[0].feats_RD, store["v"])


def test_crops_and_streams_are_those_of_the_store(tmp_path: Path, video: SourceVideo) -> None:
    """Two encoders side by side, each of three kept crops."""

    def brightness(clips_NCTHW: torch.Tensor) -> torch.Tensor:
        return clips_NCTHW.mean((1, 2, 3, 4), keepdim=False)[:, None]

    small = replace(stamp_encoder(brightness, 1), height=64, width=64)
    pair = {"a": small, "b": replace(small, height=32, width=32, weights_digest="1" * 64)}
    extract_features([video], pair, tmp_path / "s.zarr", crop="three", crop_pooling="keep")
    store = FeatureStore.open(tmp_path / "s.zarr")
    _, copies = encode_copies(
        video, store.spec, streams_of_store(store, pair), (Retiming("as it is"),)
    )
    assert copies[0].feats_RD.shape[1] == 6
    np.testing.assert_array_equal(copies[0].feats_RD.astype(np.float16), store["v"])
    assert len(np.unique(store["v"][0])) > 2


def test_a_selected_stream_needs_its_own_network_alone(tmp_path: Path, video: SourceVideo) -> None:
    first = stamp_encoder()
    pair = {"a": first, "b": replace(first, weights_digest="1" * 64)}
    extract_features([video], pair, tmp_path / "s.zarr", snippet_stride=3)
    store = FeatureStore.open(tmp_path / "s.zarr").select(["b"])
    streams = streams_of_store(store, pair["b"])
    _, copies = encode_copies(video, store.spec, streams, (Retiming("as it is"),))
    np.testing.assert_array_equal(copies[0].feats_RD, store["v"])
    for wrong in (first, pair):
        with pytest.raises(CheckpointError, match="with weights 111111111111, but"):
            streams_of_store(store, wrong)


def test_another_network_is_refused(tmp_path: Path) -> None:
    """By its weights; and stores whose rows are no snippets."""
    rows = {"v": (np.ones((5, LENGTH)), even_times(5))}
    store = write_store(tmp_path / "s.zarr", rows, weights_digest="a" * 64)
    with pytest.raises(CheckpointError, match="with weights aaaaaaaaaaaa, but the run given has"):
        streams_of_store(store, replace(stamp_encoder(), weights_digest="b" * 64))
    frames = write_store(tmp_path / "f.zarr", rows, pooling="frame", window_len=8, window_stride=4)
    with pytest.raises(UsageError, match=r"a row per snippet, but .* has one per frame"):
        streams_of_store(frames, stamp_encoder())
    beside = FeatureStore.open(tmp_path / "s.zarr", tmp_path / "s.zarr")
    with pytest.raises(UsageError, match=r"single store .* lies beside others"):
        streams_of_store(beside, stamp_encoder())


def test_videos_that_do_not_fit_or_have_changed(
    tmp_path: Path, video: SourceVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is counted before a frame is decoded; another file is noticed."""
    extract_features([video], stamp_encoder(), tmp_path / "s.zarr")
    store = FeatureStore.open(tmp_path / "s.zarr")
    streams = streams_of_store(store, stamp_encoder())
    with pytest.raises(VideoError, match="changed since it was probed"):
        encode_copies(replace(video, num_frames=60, end_frame=60), store.spec, streams)
    monkeypatch.setattr(retimed_module, "LARGEST_VIDEO", 2**20)
    with pytest.raises(UsageError, match="the 61 frames of video 'v' would take 0"):
        encode_copies(video, store.spec, streams)
