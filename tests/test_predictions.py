"""Scores and detections of test videos as files, and pictures of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from features import (
    DetectedVideo,
    Detection,
    ProbedVideo,
    ProbeReport,
    TrainedHead,
    draw_timeline_figures,
    frame_detections,
    read_detections,
    write_frame_detections,
    write_frame_scores,
)
from features.annotations import AnnotatedSegment
from features.heads import LinearHead
from features.pictures.timeline_figures import draw_timeline
from features.probing.predictions import runs_of_scores
from manifests import UsageError

CLASSES = ("jump", "spin")


def seconds_of(num_rows: int) -> np.ndarray:
    """Rows of two seconds that start every second: centres at 1, 2, 3 ..."""
    return np.arange(num_rows)[:, None] + np.array([0.0, 1.0, 2.0])


def made_report(video_ids: tuple[str, ...] = ("a", "b"), num_rows: int = 20) -> ProbeReport:
    rng = np.random.default_rng(0)
    head = LinearHead(np.zeros(1), np.ones(1), np.ones((1, 2)), np.zeros(2))
    videos = tuple(
        ProbedVideo(
            video_id,
            seconds_of(num_rows),
            rng.random((num_rows, 2)),
            (AnnotatedSegment(2.0, 6.0, 0), AnnotatedSegment(4.0, 9.0, 1)),
            float(num_rows + 1),
        )
        for video_id in video_ids
    )
    trained = TrainedHead("linear", CLASSES, head, {"mean_seconds": [2.0, None]})
    aps = dict.fromkeys(CLASSES, 0.5)
    counts = (len(videos), len(videos), num_rows, num_rows * len(videos))
    return ProbeReport(
        "linear", 0.5, 0.2, 0.2, aps, aps, CLASSES, *counts, (), trained=trained, videos=videos
    )


@pytest.mark.parametrize(
    ("scores", "mean_seconds", "expected"),
    [
        # centres 1 to 6, edges 0 1.5 2.5 3.5 4.5 5.5 7
        ([0.9, 0.8, 0.1, 0.1, 0.1, 0.7], None, [(0.0, 2.5, 0.9), (5.5, 7.0, 0.7)]),
        ([0.1, 0.6, 0.9, 0.8, 0.1, 0.1], 3.0, [(1.5, 4.5, 0.9)]),
        ([0.9, 0.1, 0.1, 0.6, 0.7, 0.1], 3.2, [(3.5, 5.5, 0.6)]),  # 1.5 s are too short
        ([0.1, 0.6, 0.7, 0.8, 0.9, 0.1], 1.9, [(1.5, 3.5, 0.6), (3.5, 5.5, 0.8)]),  # 4 s: 2 parts
        ([0.5] * 6, 1.0, []),  # the threshold itself is not above it
        ([], 1.0, []),
    ],
)
def test_runs_by_hand(scores, mean_seconds, expected):
    found = runs_of_scores(seconds_of(len(scores)), np.array(scores), 0.5, mean_seconds)
    np.testing.assert_allclose(np.reshape(found, (-1, 3)), np.reshape(expected, (-1, 3)))


@given(
    st.lists(st.floats(0, 1), max_size=40),
    st.floats(0.05, 0.95),
    st.one_of(st.none(), st.floats(0.3, 50)),
)
def test_runs_are_apart_and_as_long_as_the_rule_says(scores, threshold, mean_seconds):
    times_S3 = seconds_of(len(scores))
    runs = runs_of_scores(times_S3, np.array(scores), threshold, mean_seconds)
    covered = 0.0
    for before, (start, end, score) in zip([(0.0, 0.0, 0.0), *runs], runs, strict=False):
        assert before[1] <= start + 1e-9 < end
        assert threshold < score <= 1
        covered += end - start
        if mean_seconds is not None:
            assert 0.5 * mean_seconds - 1e-9 <= end - start <= 2 * mean_seconds + 1e-9
    if mean_seconds is None:  # every row above the threshold lies in a run, no other one does
        centres = times_S3[:, 1]
        inside = [any(start <= t < end for start, end, _ in runs) for t in centres]
        assert inside == [score > threshold for score in scores]


def test_detections_are_the_official_json(tmp_path: Path) -> None:
    report = made_report()
    write_frame_detections(tmp_path / "found.json", report, threshold=0.5)
    found = read_detections(tmp_path / "found.json")
    assert found == frame_detections(report, 0.5)
    assert set(found) == {"a", "b"}
    assert {detection.label for detection in found["a"]} == set(CLASSES)
    scores = [detection.score for detection in found["a"]]
    assert scores == sorted(scores, reverse=True)


def test_scores_of_snippets_as_json(tmp_path: Path) -> None:
    report = made_report()
    write_frame_scores(tmp_path / "scores.json", report)
    content = json.loads((tmp_path / "scores.json").read_text())
    assert list(content) == ["a", "b"]
    for video in report.videos:
        np.testing.assert_array_equal(content[video.video_id], video.scores_SC)


def test_charades_submission_has_25_lines_a_video(tmp_path: Path) -> None:
    report = made_report(num_rows=49)  # 50 s: frames at 0, 2, 4 ..., centres at 1, 2, 3 ...
    write_frame_scores(tmp_path / "scores.txt", report)
    lines = (tmp_path / "scores.txt").read_text().splitlines()
    assert len(lines) == 50
    for j, line in enumerate(lines[:25]):
        video_id, frame, *scores = line.split()
        assert (video_id, int(frame)) == ("a", j + 1)
        nearest = max(2 * j - 1, 0)
        assert [float(s) for s in scores] == pytest.approx(
            report.videos[0].scores_SC[nearest].tolist(), rel=1e-5
        )
    with pytest.raises(UsageError, match="'a b' has 20 snippets"):
        write_frame_scores(tmp_path / "scores.txt", made_report(("a b",)))


@pytest.mark.slow
def test_timelines_show_truth_and_predictions(tmp_path: Path) -> None:
    report = made_report(("a", "../b"))
    paths = draw_timeline_figures(report.videos, CLASSES, tmp_path / "new")
    assert [path.name for path in paths] == ["a.png", "%2E.%2Fb.png"]
    first = paths[0].read_bytes()
    picture_HWC = imread(paths[0])
    assert picture_HWC.shape[1] == 1440
    assert len(np.unique(picture_HWC.reshape(-1, picture_HWC.shape[2]), axis=0)) > 20
    assert draw_timeline_figures(report.videos[:1], CLASSES, tmp_path / "new") == paths[:1]
    assert paths[0].read_bytes() == first


def test_every_video_gets_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = made_report(tuple(f"v{v}" for v in range(30)))
    monkeypatch.setattr("features.pictures.timeline_figures.draw_timeline", lambda *_: None)
    assert len(draw_timeline_figures(report.videos, CLASSES, tmp_path)) == 30


@pytest.mark.slow
def test_timelines_of_detections_and_of_nothing(tmp_path: Path) -> None:
    truth = (AnnotatedSegment(2.0, 6.0, 0),)
    found = (Detection(1.0, 5.0, 0.03, "jump"), Detection(8.0, 9.0, 0.02, "spin"))
    for name, detections, segments in (("two", found, truth), ("none", (), ()), ("fp", found, ())):
        video = DetectedVideo(name, detections, segments, 12.0)
        draw_timeline(video, CLASSES, tmp_path / f"{name}.png")
    heights = [imread(tmp_path / f"{name}.png").shape[0] for name in ("two", "none", "fp")]
    assert heights[0] == heights[2] > heights[1]  # two lanes against an empty one
    empty = ProbedVideo("c", np.zeros((0, 3)), np.zeros((0, 2)), truth, 8.0)
    draw_timeline(empty, CLASSES, tmp_path / "empty.png")
