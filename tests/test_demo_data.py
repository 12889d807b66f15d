"""The demo's videos: same bytes, right annotations, and nothing but motion that tells classes."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from manifests import UsageError, read_segments, scan_packets
from manifests.demo import DemoVideos, make_demo_videos, plan_trimmed, plan_untrimmed
from manifests.demo_scenes import (
    FPS,
    GROW,
    HOP,
    MARCH,
    MOTIONS,
    SWAY,
    TURN,
    Act,
    Scene,
    poses_from_phases,
    render_frames,
    run_phases,
)

pytestmark = pytest.mark.slow

COUNTS = {"num_train_per_class": 1, "num_untrimmed": 2, "untrimmed_seconds": 12.0}


def rng_of(*key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(5, spawn_key=key))


def digests(videos: DemoVideos) -> dict[str, str]:
    paths = (*videos.trimmed_paths, *videos.untrimmed_paths, videos.segments_path)
    return {
        str(path.relative_to(videos.trimmed_folder.parent)): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in paths
    }


def without_noise(scene: Scene) -> Scene:
    """Return the scene seen by a perfect camera on a tripod."""
    return replace(scene, grain=scene.grain * 0, drift_T2=scene.drift_T2 * 0)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> DemoVideos:
    return make_demo_videos(tmp_path_factory.mktemp("demo"), seed=3, **COUNTS)


# What a class is


@pytest.mark.parametrize(
    ("label", "axis", "column", "sign"),
    [
        ("translate_left", MARCH, 0, -1),
        ("translate_right", MARCH, 0, 1),
        ("rotate_clockwise", TURN, 3, 1),
        ("rotate_counterclockwise", TURN, 3, -1),
        ("zoom_in", GROW, 4, 1),
        ("zoom_out", GROW, 4, -1),
    ],
)
def test_pose_moves_as_the_class_says(label: str, axis: int, column: int, sign: int) -> None:
    phases = run_phases(np.full(5, 0.5), [Act(0, 6, label)], np.ones(5), 6)
    assert np.unique(np.delete(phases, axis, axis=1)).tolist() == [0.5]
    steps = np.diff(poses_from_phases(phases)[:, column])
    assert (np.sign(steps) == sign).all()


def test_bounce_hits_the_floor_once_per_cycle_and_sway_returns() -> None:
    phases = np.tile([0.0, 0.0, 0.5, 0.0, 0.0], (5, 1))
    phases[:, HOP] = phases[:, SWAY] = [0, 0.25, 0.5, 0.75, 1]
    poses = poses_from_phases(phases)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(poses[:, 1], [0, 0.65, 0, -0.65, 0], atol=1e-12)
    np.testing.assert_allclose(poses[:, 2], [0, -half, -1, -half, 0], atol=1e-12)
    np.testing.assert_allclose(poses[:, 4], 1)


def test_phase_runs_inside_the_act_only() -> None:
    acts = [Act(2, 4, "translate_right"), Act(5, 6, "translate_left")]
    phases = run_phases(np.zeros(5), acts, np.full(5, 1.5), 7)
    np.testing.assert_allclose(phases[:, MARCH], [0, 0, 0.1, 0.2, 0.2, 0.1, 0.1], atol=1e-12)


@pytest.mark.parametrize(("label", "sign"), [("translate_left", -1), ("translate_right", 1)])
def test_pixels_move_to_the_named_side(label: str, sign: int) -> None:
    # The shift that best maps a frame on the next one, found without knowing any pose.
    for k in range(6):
        frames = render_frames(without_noise(plan_trimmed(rng_of(k), label))).astype(float)
        errors = {
            shift: np.abs(np.roll(frames[:-1], shift, axis=2) - frames[1:])[:, :, 8:-8].mean()
            for shift in (-2, 2)
        }
        assert min(errors, key=errors.__getitem__) == 2 * sign


# Nothing but motion tells the class


def test_first_frame_does_not_depend_on_the_class() -> None:
    for k in range(3):
        first, *others = (render_frames(plan_trimmed(rng_of(k), label))[0] for label in MOTIONS)
        assert all(np.array_equal(first, other) for other in others)


@pytest.mark.slow
def test_poses_have_the_same_distribution_at_every_time() -> None:
    # Kolmogorov-Smirnov distance of the running phase to uniform; 1.95 / sqrt(n) is p = 0.001.
    for c, (label, (axis, _)) in enumerate(MOTIONS.items()):
        last = np.sort(
            [_actor_phases(plan_trimmed(rng_of(c, k), label))[-1, axis] for k in range(80)]
        )
        distance = np.abs(last - (np.arange(80) + 0.5) / 80).max()
        assert distance < 1.95 / np.sqrt(80), label


def _actor_phases(scene: Scene) -> np.ndarray:
    (row,) = (row for row in scene.rows if np.ptp(row.phases_TA, axis=0).any())
    return row.phases_TA


@pytest.mark.slow
def test_neighbours_by_one_frame_know_nothing_and_by_motion_know_something() -> None:
    labels = np.repeat(np.arange(len(MOTIONS)), 40)
    stills, motions = [], []
    for i, label_id in enumerate(labels):
        frames = render_frames(plan_trimmed(rng_of(i), list(MOTIONS)[label_id]))
        part = frames[:32, 8:64, 8:64].astype(float)
        stills.append(part[20, ::4, ::4].ravel())
        change = np.diff(part.mean(-1), axis=0)
        space = np.gradient(part[:-1].mean(-1), axis=(1, 2))
        # normal flow, down and right: its size and its sign over time
        motions.append([(change * slope).mean() / (slope**2).mean() for slope in space])
    chance = 1 / len(MOTIONS)
    assert _neighbour_accuracy(np.array(stills), labels) < chance + 0.08  # 4 standard deviations
    assert _neighbour_accuracy(np.array(motions), labels) > 2 * chance


def _neighbour_accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Return how often the nearest other sample has the same label."""
    squares = (features**2).sum(1)
    distances = squares[:, None] + squares - 2 * features @ features.T
    np.fill_diagonal(distances, np.inf)
    return float((labels[distances.argmin(1)] == labels).mean())


# Long videos and their annotation


@pytest.mark.parametrize("k", range(4))
def test_annotation_is_right_to_the_frame(k: int) -> None:
    scene = without_noise(plan_untrimmed(rng_of(k), 24 * FPS))
    frames = render_frames(scene)
    inside = np.zeros(scene.num_frames, bool)
    for act in scene.acts:
        inside[act.start_frame : act.end_frame] = True
    changed = np.r_[False, (frames[1:] != frames[:-1]).any((1, 2, 3))]
    comes_or_goes = np.zeros(scene.num_frames, bool)
    for row in scene.rows:
        comes_or_goes[1:] |= np.diff(row.sprite_T) != 0
    assert changed[inside].all()
    assert not changed[~inside & ~comes_or_goes].any()
    assert 0.3 < inside.mean() < 0.95


@pytest.mark.parametrize("k", range(10))
def test_long_videos_have_gaps_and_overlaps_of_different_classes(k: int) -> None:
    scene = plan_untrimmed(rng_of(k), 24 * FPS)
    pairs = [
        (a, b)
        for i, a in enumerate(scene.acts)
        for b in scene.acts[i + 1 :]
        if a.start_frame < b.end_frame and b.start_frame < a.end_frame
    ]
    assert pairs
    assert all(a.label != b.label for a, b in pairs)
    assert all(0 < a.start_frame < a.end_frame <= scene.num_frames for a in scene.acts)
    assert all(a.end_frame - a.start_frame >= FPS // 2 for a in scene.acts)
    for row in scene.rows:  # objects are there while they act, and change only in gaps
        for act in scene.acts:
            moves = np.diff(row.phases_TA[act.start_frame - 1 : act.end_frame], axis=0)
            if (moves != 0).any(1).all():
                assert len(set(row.sprite_T[act.start_frame : act.end_frame])) == 1


def test_segments_table_says_what_was_returned(videos: DemoVideos) -> None:
    table = read_segments(videos.segments_path)
    assert table.to_pylist() == list(videos.segments)
    assert videos.classes == tuple(sorted(videos.classes)) == tuple(MOTIONS)
    assert {row["subset"] for row in videos.segments} == {"train", "test"}
    assert {row["video_id"] for row in videos.segments} == {
        path.stem for path in videos.untrimmed_paths
    }
    for row in videos.segments:
        assert videos.classes[row["label_id"]] == row["label"]
        assert 0 <= row["start_seconds"] < row["end_seconds"] <= COUNTS["untrimmed_seconds"]
        for name in ("start_seconds", "end_seconds"):
            assert row[name] * FPS == pytest.approx(round(row[name] * FPS), abs=1e-9)


def test_a_day_of_long_videos_shows_every_class_in_both_subsets() -> None:
    for subset in range(2):
        scenes = [plan_untrimmed(rng_of(k), 24 * FPS) for k in range(subset, 24, 2)]
        counts = [sum(a.label == label for s in scenes for a in s.acts) for label in MOTIONS]
        assert min(counts) >= 3


# Files


@pytest.mark.slow
def test_same_seed_same_bytes_other_seed_other_bytes(videos: DemoVideos, tmp_path: Path) -> None:
    again = digests(make_demo_videos(tmp_path / "again", seed=3, **COUNTS))
    other = digests(make_demo_videos(tmp_path / "other", seed=4, **COUNTS))
    assert digests(videos) == again
    assert again.keys() == other.keys()
    assert not set(again.values()) & set(other.values())


def test_files_decode_to_what_was_planned(videos: DemoVideos) -> None:
    assert [path.parent.name for path in videos.trimmed_paths] == list(MOTIONS)
    assert len(videos.untrimmed_paths) == COUNTS["num_untrimmed"]
    for i, path in enumerate(videos.trimmed_paths + videos.untrimmed_paths):
        rng = np.random.default_rng(np.random.SeedSequence(3, spawn_key=(i,)))
        label = path.parent.name
        is_trimmed = label in MOTIONS
        scene = plan_trimmed(rng, label) if is_trimmed else plan_untrimmed(rng, 12 * FPS)
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            assert container.streams.video[0].average_rate == FPS
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        drawn = render_frames(scene)
        assert np.shape(frames) == drawn.shape
        errors = np.abs(np.array(frames, float) - drawn)
        assert errors.mean() < 8  # chroma is halved, and the noise is not kept


def test_finished_files_are_kept_and_missing_ones_come_back(tmp_path: Path) -> None:
    counts = COUNTS | {"num_untrimmed": 0}
    made = make_demo_videos(tmp_path, seed=3, **counts)
    before = digests(made)
    kept, lost = made.trimmed_paths[:2]
    stamp = kept.stat().st_mtime_ns
    lost.unlink()
    assert digests(make_demo_videos(tmp_path, seed=3, **counts)) == before
    assert kept.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"seed": 4}, "same arguments, got"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
        ({"num_train_per_class": -1}, "num_train_per_class must be >= 0, got -1"),
        ({"untrimmed_seconds": 3}, "untrimmed_seconds must be >= 10, got 3"),
        ({"untrimmed_seconds": float("nan")}, "untrimmed_seconds must be >= 10, got nan"),
    ],
)
def test_wrong_use_is_said_in_one_sentence(
    videos: DemoVideos, arguments: dict[str, float], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        make_demo_videos(videos.trimmed_folder.parent, **({"seed": 3} | COUNTS | arguments))


def test_length_of_trimmed_clips(tmp_path: Path) -> None:
    """Longer clips are longer; clips of the usual length leave the folder's note as it was."""
    few = {"num_train_per_class": 1, "num_untrimmed": 0}
    long = make_demo_videos(tmp_path / "long", **few, trimmed_frames=(60, 61))
    counts = {len(scan_packets(str(path)).times_N) for path in long.trimmed_paths}
    assert counts <= {60, 61}
    assert json.loads((tmp_path / "long" / "demo.json").read_text())["trimmed_frames"] == [60, 61]
    with pytest.raises(UsageError, match="same arguments"):
        make_demo_videos(tmp_path / "long", **few)
    make_demo_videos(tmp_path / "usual", **few, trimmed_frames=(40, 48))
    assert "trimmed_frames" not in json.loads((tmp_path / "usual" / "demo.json").read_text())
    with pytest.raises(UsageError, match="least, largest"):
        make_demo_videos(tmp_path / "none", **few, trimmed_frames=(9, 8))
