"""Several networks and crops in one decoding pass, against one network and crop at a time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_videos import encode, stamped_frames
from test_extract import damaged_copy, write_tiny_run

import features.extraction.decoding as decoding_module
import features.extraction.extract_plan as plan_module
from features import Encoder, FeatureStore, encoder_of_run, extract_features, verify_store
from features.extraction.crops import Framing
from features.extraction.streams import open_streams
from features.store.layout import plan_layout
from manifests import SourceVideo, UsageError, probe_video
from synth import apply_view, read_frames

LENGTH = 4


def noise_encoder(seed: int, dim: int, size: int, **changes: Any) -> Encoder:
    """Return a convolution of random weights and its mean over space and time."""
    torch.manual_seed(seed)
    network = torch.nn.Conv3d(3, dim, 3, stride=2)

    def embed(clips_NCTHW: torch.Tensor) -> torch.Tensor:
        return network(clips_NCTHW).mean(dim=(2, 3, 4))

    facts: dict[str, Any] = {
        "name": f"noise{seed}",
        "embed": embed,
        "feature_dim": dim,
        "num_frames": LENGTH,
        "height": size,
        "width": size,
        "mean": (0.1 * seed,) * 3,
        "std": (0.25,) * 3,
        "weights_digest": str(seed) * 64,
    }
    return Encoder(**(facts | changes))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[SourceVideo]:
    """Three good videos, and a damaged one between them."""
    folder = tmp_path_factory.mktemp("videos")
    made = []
    for number, num_frames in enumerate((30, 41, 3)):
        path = encode(folder / f"v{number}.mp4", stamped_frames(num_frames))
        made.append(replace(probe_video(str(path)), video_id=f"v{number}"))
    return [made[0], damaged_copy(made[1], folder / "damaged.mp4"), *made[1:]]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every 64 rows a shard of their own."""
    monkeypatch.setattr(plan_module, "plan_layout", lambda counts: plan_layout(counts, 64))


def test_streams_are_separate_stores_side_by_side_and_decode_once(
    tmp_path: Path, videos: list[SourceVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoders = {"rgb": noise_encoder(1, 5, 64), "small": noise_encoder(2, 3, 32)}
    encoders["again"] = noise_encoder(3, 2, 32)
    opened: list[str] = []
    frame_batches = decoding_module.frame_batches

    def counted(video: SourceVideo, indices: np.ndarray) -> Any:
        opened.append(video.video_id)
        return frame_batches(video, indices)

    monkeypatch.setattr(decoding_module, "frame_batches", counted)
    report = extract_features(videos, encoders, tmp_path / "all.zarr", batch=3)
    assert sorted(opened) == ["damaged", "v0", "v1", "v2"]
    assert [video_id for video_id, _ in report.rejected] == ["damaged"]
    together = FeatureStore.open(tmp_path / "all.zarr")
    assert together.channel_ranges == {"rgb": (0, 5), "small": (5, 8), "again": (8, 10)}
    for name, encoder in encoders.items():
        extract_features(videos, encoder, tmp_path / f"{name}.zarr", batch=3)
    apart = FeatureStore.open(*(tmp_path / f"{name}.zarr" for name in encoders))
    assert apart.video_ids == together.video_ids == ("v0", "v1", "v2")
    for video_id in together.video_ids:
        np.testing.assert_array_equal(together[video_id], apart[video_id])
        np.testing.assert_array_equal(together.times(video_id), apart.times(video_id))
    assert verify_store(tmp_path / "all.zarr").ok
    spec = together.spec
    assert (spec.backbone, spec.height, spec.mean) == ("streams", 64, (0.1,) * 3)
    assert [stream["short_side"] for stream in spec.streams or ()] == [64, 32, 32]


def crops_by_hand(video: SourceVideo, framing: Framing, mirrored: bool) -> np.ndarray:
    """Return the clip of the first snippet in every crop, uint8 `(P, T, H, W, 3)`."""
    frames = read_frames(video, np.arange(LENGTH))
    return np.stack(
        [
            [apply_view(frame, replace(view, flip=mirrored)) for frame in frames]
            for view in framing.views(video.height, video.width)
        ]
    )


@pytest.mark.parametrize("crop", ["three", "ten"])
def test_crops_are_kept_in_order_or_averaged(
    tmp_path: Path, videos: list[SourceVideo], crop: str
) -> None:
    encoder, video = noise_encoder(1, 5, 56), videos[0]
    for pooling in ("keep", "mean"):
        extract_features(
            [video], encoder, tmp_path / f"{pooling}.zarr", crop=crop, crop_pooling=pooling
        )
    kept = FeatureStore.open(tmp_path / "keep.zarr")
    short_side = 64 if crop == "ten" else 56
    assert kept.spec.short_side == short_side
    framing = Framing(56, 56, short_side, crop)
    clips = [crops_by_hand(video, framing, False)]
    clips += [crops_by_hand(video, framing, True)] if crop == "ten" else []
    expected_PD = np.stack([encoder.encode(clip[None])[0] for clip in np.concatenate(clips)])
    num_crops = len(expected_PD)
    assert len(kept.spec.channel_ranges) == num_crops == {"three": 3, "ten": 10}[crop]
    row_PD = kept["v0"][0].reshape(num_crops, 5).astype(np.float32)
    np.testing.assert_allclose(row_PD, expected_PD, atol=1e-3)
    assert len({crop.tobytes() for crop in row_PD}) == num_crops
    mean = FeatureStore.open(tmp_path / "mean.zarr")
    np.testing.assert_allclose(mean["v0"][0], expected_PD.mean(axis=0), atol=1e-3)
    assert mean.spec.channel_ranges == {"noise1": (0, 5)}


def test_centred_snippets_repeat_the_first_frame(tmp_path: Path, videos: list[SourceVideo]) -> None:
    encoder = noise_encoder(1, 5, 32)
    extract_features([videos[0]], encoder, tmp_path / "s.zarr", alignment="centre")
    store = FeatureStore.open(tmp_path / "s.zarr")
    assert len(store["v0"]) == 15
    frames = read_frames(videos[0], np.array([0, 0, 0, 1]))
    (view,) = Framing(32, 32, 32).views(videos[0].height, videos[0].width)
    clip = np.stack([apply_view(frame, view) for frame in frames])
    np.testing.assert_allclose(store["v0"][0], encoder.encode(clip[None])[0], atol=1e-3)
    np.testing.assert_allclose(store.times("v0")[:3, 1], [0.0, 2 / 25, 4 / 25])


@pytest.mark.slow
def test_rows_per_frame_are_the_mean_of_their_windows(
    tmp_path: Path, videos: list[SourceVideo]
) -> None:
    write_tiny_run(tmp_path / "run")
    extract_features([videos[0]], tmp_path / "run", tmp_path / "s.zarr", per_frame=True)
    store = FeatureStore.open(tmp_path / "s.zarr")
    assert (store.spec.pooling, store.spec.window_len, store.spec.window_stride) == ("frame", 4, 2)
    assert (store.spec.snippet_len, store.spec.snippet_stride) == (1, 1)
    feats_SD, encoder = store["v0"], encoder_of_run(tmp_path / "run", per_frame=True)
    assert feats_SD.shape == (30, encoder.feature_dim)
    (view,) = Framing(32, 32, 32).views(videos[0].height, videos[0].width)
    frames = [apply_view(frame, view) for frame in read_frames(videos[0], np.arange(8, 14))]
    windows = [encoder.encode(np.stack(frames[k : k + 4])[None])[0] for k in (0, 2)]
    expected_D = (windows[0][2] + windows[1][0]) / 2  # of frame 10: windows at 8 and at 10
    np.testing.assert_allclose(feats_SD[10], expected_D, atol=2e-3, rtol=2e-3)


def test_what_cannot_lie_side_by_side_is_refused() -> None:
    one = noise_encoder(1, 5, 32)
    two = replace(one, prediction={"classes": []}, per_frame=True)
    for checkpoint, options, sentence in (
        ({"a": one, "b": replace(one, num_frames=8)}, {}, "'a' has 4, 'b' has 8"),
        ({"a": one, "b": replace(one, per_frame=True)}, {}, "same per_frame, but 'a' and 'b'"),
        ({"a": two, "b": two}, {}, "a store and columns of their own"),
        (two, {"crop": "three", "crop_pooling": "keep"}, "a store and columns of their own"),
        ({}, {}, "names of letters"),
        ({"a.b": one}, {}, "names of letters, digits, '_' and '-', got"),
        (one, {"crop": "five"}, "one of centre, three, ten"),
        (one, {"crop_pooling": "max"}, "pooling mean or keep"),
        (one, {"per_frame": True}, "'noise1' must give a vector per frame"),
        (one, {"short_side": 31}, "from the 32 pixels .* to 4096, got 31"),
        (replace(one, per_frame=True), {"alignment": "centre"}, "tail 'pad' and alignment 'left'"),
        (one, {"alignment": "right"}, "'left' or 'centre', got 'right'"),
        (one, {"actors": 1}, "'noise1' lives in this process"),
        (one, {"actors": -1}, "actors >= 0"),
        (one, {"actors": 0, "address": "auto"}, "joined by actors"),
        (one, {"decode_seconds": 0.0}, "decode_seconds > 0"),
    ):
        video = SourceVideo("v", "nowhere.mp4", num_frames=9, end_frame=9, status="ok")
        with pytest.raises(UsageError, match=sentence):
            extract_features([video], checkpoint, "nowhere/s.zarr", **options)
    assert not Path("nowhere").exists()


def test_one_named_stream_is_a_stream() -> None:
    streams = open_streams({"rgb": noise_encoder(1, 5, 32)})
    assert [stream["name"] for stream in streams.spec_fields()["streams"]] == ["rgb"]
