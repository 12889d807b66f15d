"""Class probabilities per frame: windows, ensembles, the store they are written to, wrong use."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from made_videos import encode, read_stamps, stamped_frames

import cli
import features.extraction.extract_plan as plan_module
from features import (
    Encoder,
    FeatureSpec,
    FeatureStore,
    average_windows,
    extract_features,
    predict_frames,
    verify_store,
)
from features.extraction.crops import Framing
from features.store.layout import plan_layout
from features.store.writer import ShardWriter
from manifests import (
    CheckpointError,
    SnippetGrid,
    SourceVideo,
    StoreError,
    UsageError,
    probe_video,
    scan_packets,
    write_sources,
)
from synth import apply_view, read_frames
from train import X3D, X3DArguments, normalise
from train.checkpoint import write_model

pytestmark = pytest.mark.slow

WINDOW = 8
CLASSES = ["run", "jump", "fall"]


def stamps_of(clips_NCTHW: torch.Tensor) -> torch.Tensor:
    """Score every frame with its number, and with its place in the window."""
    frames = (clips_NCTHW.permute(0, 2, 3, 4, 1) * 255).round().to(torch.uint8).numpy()
    stamps_NT = torch.tensor(np.stack([read_stamps(clip) for clip in frames]), dtype=torch.float32)
    return torch.stack([stamps_NT, torch.arange(WINDOW).expand_as(stamps_NT)], dim=2)


STAMPS = Encoder(
    name="stamps",
    embed=stamps_of,
    feature_dim=2,
    num_frames=WINDOW,
    height=96,
    width=128,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    weights_digest="0" * 64,
    per_frame=True,
    prediction={"classes": ["number", "place"]},
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[SourceVideo]:
    """Four videos, one of them shorter than a window."""
    folder = tmp_path_factory.mktemp("videos")
    made = []
    for number, num_frames in enumerate((30, 130, 5, 61)):
        path = encode(folder / f"v{number}.mp4", stamped_frames(num_frames))
        made.append(replace(probe_video(str(path)), video_id=f"v{number}"))
    return made


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every 64 rows a shard of their own."""
    monkeypatch.setattr(plan_module, "plan_layout", lambda counts: plan_layout(counts, 64))


def write_run(folder: Path, seed: int, **changes: Any) -> X3D:
    """Write a run folder as training does, with random weights."""
    torch.manual_seed(seed)
    arguments: dict[str, Any] = {
        "size": "XS",
        "depth_factor": 0.2,
        "width_factor": 0.3,
        "feature_dim": 8,
    }
    record: dict[str, Any] = {
        "backbone": "x3d",
        "arguments": arguments,
        "num_outputs": len(CLASSES) + 1,
        "classes": CLASSES,
        "objective": "detection",
        "loss": "cross_entropy",
        "frames": WINDOW,
        "height": 32,
        "width": 32,
        "mean": [0.45, 0.45, 0.45],
        "std": [0.225, 0.225, 0.225],
    } | changes
    backbone = X3D(record["num_outputs"], X3DArguments(**arguments)).eval()
    torch.nn.init.normal_(backbone.get_parameter("blocks.5.proj.weight"))  # far from uniform
    folder.mkdir(parents=True)
    write_model(folder, backbone, record)
    return backbone


def test_windows_are_averaged_by_hand() -> None:
    # windows of 4 at 0, 2: the second one ends in a repetition of frame 4, which counts nowhere
    scores_STK = np.array([[1, 2, 3, 4], [5, 6, 7, 99]], np.float32)[:, :, None]
    got = average_windows(scores_STK, 2, 5)
    assert got.dtype == np.float32
    assert got[:, 0].tolist() == [1, 2, (3 + 5) / 2, (4 + 6) / 2, 7]


@given(st.integers(1, 40), st.integers(1, 9), st.data())
def test_windows_are_averaged_as_in_a_slow_loop(num: int, length: int, data: Any) -> None:
    stride = data.draw(st.integers(1, length))
    grid = SnippetGrid(length, stride)
    count = grid.num_snippets(num)
    scores_STK = np.random.default_rng(num).random((count, length, 2)).astype(np.float32)
    before = scores_STK.copy()
    got = average_windows(scores_STK, stride, num)
    for frame in range(num):
        said = [
            scores_STK[s, frame - s * stride]
            for s in range(count)
            if 0 <= frame - s * stride < length
        ]
        np.testing.assert_allclose(got[frame], np.mean(said, axis=0), rtol=1e-5)
    np.testing.assert_array_equal(scores_STK, before)


@pytest.mark.parametrize("stride", [1, 3, 4, 8])
@pytest.mark.usefixtures("small_shards")
def test_every_frame_gets_what_was_said_of_it(
    tmp_path: Path, videos: list[SourceVideo], stride: int
) -> None:
    store_path = tmp_path / "s.zarr"
    report = extract_features(videos, STAMPS, store_path, snippet_stride=stride, batch=4)
    assert report.ok
    assert report.num_extracted == report.num_snippets == sum(v.num_frames for v in videos)
    store = FeatureStore.open(store_path)
    for video in videos:
        scores_SK, times_S3 = store[video.video_id], store.times(video.video_id)
        np.testing.assert_array_equal(scores_SK[:, 0], np.arange(video.num_frames))
        scan = scan_packets(video.path)
        np.testing.assert_array_equal(times_S3[:, 0], scan.times_N)
        np.testing.assert_array_equal(times_S3[:-1, 2], scan.times_N[1:])
    # the last frame of the shortest video fills places 4 to 7 of its window: only 4 counts
    assert store["v2"][4, 1] == 4
    assert verify_store(store_path).ok


def test_resampled_frames_are_the_rows(tmp_path: Path, videos: list[SourceVideo]) -> None:
    extract_features(videos[1:2], STAMPS, tmp_path / "s.zarr", fps=Fraction(5))
    store = FeatureStore.open(tmp_path / "s.zarr")
    shown = np.arange(round(videos[1].duration_seconds * 5)) * 5  # of 25 frames per second
    np.testing.assert_array_equal(store["v1"][:, 0], shown)
    np.testing.assert_allclose(store.times("v1")[:, 0], np.arange(len(shown)) / 5)


def slow_probabilities(backbone: X3D, video: SourceVideo, stride: int, kind: str) -> np.ndarray:
    """Return probabilities `(T, K)`: read, resize, normalise and score window after window."""
    (view,) = Framing(32, 32, 32).views(video.height, video.width)
    said: list[list[np.ndarray]] = [[] for _ in range(video.num_frames)]
    for positions in SnippetGrid(WINDOW, stride).frame_positions(video.num_frames):
        frames = [apply_view(frame, view) for frame in read_frames(video, np.unique(positions))]
        frames += [frames[-1]] * (WINDOW - len(frames))
        clips = normalise(torch.from_numpy(np.stack(frames))[None], [0.45] * 3, [0.225] * 3)
        with torch.no_grad():
            logits = backbone(clips, per_frame=True)[0]
        scores_CT = (logits.softmax(0) if kind == "softmax" else logits.sigmoid()).numpy()
        for place, frame in enumerate(np.unique(positions).tolist()):
            said[frame].append(scores_CT[: len(CLASSES), place])
    return np.stack([np.mean(scores, axis=0) for scores in said])


def test_an_ensemble_is_the_mean_of_its_runs(tmp_path: Path, videos: list[SourceVideo]) -> None:
    nets = [write_run(tmp_path / f"run{seed}", seed) for seed in range(2)]
    runs = [tmp_path / "run0", tmp_path / "run1"]
    for name, chosen in (("one", runs[:1]), ("both", runs)):
        report = predict_frames(
            videos, chosen, tmp_path / f"{name}.zarr", window_stride=3, device="cpu"
        )
        assert report.ok
    one, both = (FeatureStore.open(tmp_path / f"{name}.zarr") for name in ("one", "both"))
    for video in (videos[0], videos[2]):
        expected = [slow_probabilities(net, video, 3, "softmax") for net in nets]
        assert np.abs(expected[0] - expected[1]).max() > 0.01
        np.testing.assert_allclose(one[video.video_id], expected[0], atol=2e-3)
        np.testing.assert_allclose(both[video.video_id], np.mean(expected, axis=0), atol=2e-3)
        assert both[video.video_id].astype(float).sum(axis=1).max() <= 1 + 1e-3
    prediction = both.spec.prediction
    assert prediction is not None
    assert prediction["classes"] == CLASSES
    assert (prediction["window_len"], prediction["window_stride"]) == (WINDOW, 3)
    assert prediction["probabilities"] == "softmax"
    assert len(prediction["runs"]) == 2
    assert (one.spec.backbone, both.spec.backbone) == ("x3d", "ensemble")
    assert both.spec.pooling == "frame"
    assert FeatureSpec.from_dict(both.spec.to_dict()) == both.spec


@pytest.mark.parametrize("objective", ["detection", "frames"])
def test_runs_without_background_give_sigmoids(
    tmp_path: Path, videos: list[SourceVideo], objective: str
) -> None:
    net = write_run(tmp_path / "run", 0, objective=objective, loss="bce", num_outputs=3)
    predict_frames(videos[:1], [tmp_path / "run"], tmp_path / "s.zarr", device="cpu")
    expected = slow_probabilities(net, videos[0], WINDOW // 2, "sigmoid")
    np.testing.assert_allclose(FeatureStore.open(tmp_path / "s.zarr")["v0"], expected, atol=2e-3)


def test_wrong_use_is_one_sentence_and_writes_nothing(
    tmp_path: Path, videos: list[SourceVideo]
) -> None:
    write_run(tmp_path / "run", 0)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"objective": "classification"}, r"need runs of objective 'detection', 'frames', but"),
        ({"loss": "bce", "num_outputs": 3}, "same probabilities.*'softmax' and 'sigmoid'"),
        ({"classes": ["run", "leap", "fall"]}, "same classes, but .*: 'jump' and 'leap'"),
        ({"classes": ["run"], "num_outputs": 2}, "same classes, but .*: 3 and 1"),
        ({"frames": 16}, "same frames, but .*: 8 and 16"),
        ({"height": 64}, "same height, but .*: 32 and 64"),
        ({"mean": [0.5, 0.45, 0.45]}, r"same mean, but .*: 0\.45 and 0\.5"),
    ]
    for number, (changes, message) in enumerate(cases):
        write_run(tmp_path / f"other{number}", 1, **changes)
        runs = [tmp_path / "run", tmp_path / f"other{number}"]
        with pytest.raises(CheckpointError, match=message):
            predict_frames(videos, runs, tmp_path / "s.zarr", device="cpu")
    for stride, sentence in (
        (9, "at most their 8 frames, got 9"),
        (0, "must be >= 1, got 8 and 0"),
    ):
        with pytest.raises(UsageError, match=sentence):
            predict_frames(videos, [tmp_path / "run"], tmp_path / "s.zarr", window_stride=stride)
    with pytest.raises(UsageError, match="at least one run"):
        predict_frames(videos, [], tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


def test_another_window_stride_is_another_spec(tmp_path: Path, videos: list[SourceVideo]) -> None:
    extract_features(videos[:1], STAMPS, tmp_path / "s.zarr", snippet_stride=4)
    with pytest.raises(StoreError, match=r"another spec \(prediction.window_stride: 8 here, 4 th"):
        extract_features(videos[:1], STAMPS, tmp_path / "s.zarr", snippet_stride=8)


@pytest.mark.usefixtures("small_shards")
def test_a_bad_video_is_a_row_and_a_killed_run_goes_on(
    tmp_path: Path, videos: list[SourceVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = replace(videos[0], video_id="gone", path=str(tmp_path / "gone.mp4"))
    mixed = [videos[0], gone, *videos[1:]]
    whole = extract_features(mixed, STAMPS, tmp_path / "whole.zarr")
    assert [video_id for video_id, _ in whole.rejected] == ["gone"]
    once = ShardWriter.commit

    def killed(self: ShardWriter, *arguments: Any) -> None:
        once(self, *arguments)
        raise MemoryError

    monkeypatch.setattr(ShardWriter, "commit", killed)
    with pytest.raises(MemoryError):
        extract_features(mixed, STAMPS, tmp_path / "cut.zarr")
    monkeypatch.undo()
    monkeypatch.setattr(plan_module, "plan_layout", lambda counts: plan_layout(counts, 64))
    report = extract_features(mixed, STAMPS, tmp_path / "cut.zarr")
    assert 0 < report.num_extracted < report.num_snippets
    assert report.digest == whole.digest
    assert verify_store(tmp_path / "cut.zarr").ok


def run(*words: object) -> dict[str, Any]:
    result = CliRunner().invoke(cli.features, [*map(str, words), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.slow
def test_the_commands_predict_and_probe_two_streams(
    tmp_path: Path, videos: list[SourceVideo]
) -> None:
    """The second stream knows the answer: with it, the probe does better than with the first."""
    sources = tmp_path / "sources.parquet"
    write_sources(sources, videos, [])
    for seed in range(2):
        write_run(tmp_path / f"run{seed}", seed)
    words = ["predict", sources, "--store", tmp_path / "scores.zarr", "--device", "cpu"]
    words += ["--checkpoint", tmp_path / "run0", "--checkpoint", tmp_path / "run1"]
    assert run(*words)["num_snippets"] == sum(video.num_frames for video in videos)
    info = run("info", tmp_path / "scores.zarr")
    assert info["feature_dim"] == len(CLASSES)
    assert info["feature_spec"]["prediction"]["classes"] == CLASSES
    assert run("verify", tmp_path / "scores.zarr")["damaged"] == []

    extract_features(videos, replace(STAMPS, mean=(0.0,) * 3), tmp_path / "stamps.zarr")
    rows = [
        {"video_id": v.video_id, "label": "late", "start_seconds": 1.0, "end_seconds": 99.0}
        | {"label_id": 0, "subset": "train" if v.video_id == "v1" else "test"}
        for v in (videos[1], videos[0], videos[3])
    ]
    segments = tmp_path / "segments.parquet"
    pq.write_table(pa.Table.from_pylist(rows), segments)
    probe = ["--segments", segments, "--concat", tmp_path / "stamps.zarr"]
    assert run("probe", tmp_path / "scores.zarr", *probe)["map"] > 0.99
    assert run("probe", tmp_path / "scores.zarr", *probe[:2])["map"] < 0.99
    run("export", tmp_path / "scores.zarr", tmp_path / "npy", "--concat", tmp_path / "stamps.zarr")
    assert np.load(tmp_path / "npy" / "v0.npy").shape == (30, len(CLASSES) + 2)
