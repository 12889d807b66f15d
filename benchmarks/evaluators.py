"""Time the evaluators against the loops of the scripts: `python -m benchmarks.evaluators`.

Makes predictions for 5,000 videos by chance, scores them in both ways, checks that the numbers are
equal, and prints a row per evaluator. Takes about two minutes on one core, nearly all in the loops.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from features import metrics

from . import evaluator_loops as loops
from .measure import HEADER, Row, interleaved, rate_row, seconds_of

NUM_VIDEOS = 5_000
NUM_CLASSES = 65
LEAST = 5.0  # times the speed of the loop
Segments = dict[str, list[tuple]]


@dataclass(frozen=True)
class Contest:
    """One evaluator, ours and the script's way, on the same records.

    Attributes:
        name: Of the row.
        ours: Returns numbers.
        loop: Returns the same numbers.
        limit: Largest difference allowed.
    """

    name: str
    ours: Callable[[], np.ndarray]
    loop: Callable[[], np.ndarray]
    limit: float = 0.0

    def measure(self) -> Row:
        """Time the loop once and ours three times.

        Raises:
            RuntimeError: The numbers differ.
        """
        results: list[np.ndarray] = []
        loop_seconds = seconds_of(lambda: results.append(np.asarray(self.loop(), float)))
        results.append(np.asarray(self.ours(), float))
        difference = float(np.abs(results[0] - results[1]).max())
        if not difference <= self.limit:
            raise RuntimeError(f"{self.name} differs from the loop by {difference}")
        (our_seconds,) = interleaved(3, self.ours, warm_up=False)
        return rate_row(self.name, "videos", NUM_VIDEOS, our_seconds, loop_seconds, LEAST)


def segment_contests(num_videos: int) -> list[Contest]:
    """Return detection, proposals and THUMOS: 100 predictions a video, near the truth or not."""
    rng = np.random.default_rng(0)
    truth: Segments = {}
    found: Segments = {}
    for video in range(num_videos):
        labels = rng.integers(0, 200, 2)
        starts, lengths = rng.uniform(0, 100, 4), rng.uniform(2, 40, 4)
        own = rng.integers(0, 2, 4)
        truth[f"v{video:05d}"] = [
            (float(s), float(s + n), f"class {labels[c]}")
            for s, n, c in zip(starts, lengths, own, strict=True)
        ]
        near = rng.integers(0, 4, 100)
        moved = starts[near] + rng.normal(0, 4, 100)
        ends = moved + lengths[near] * rng.uniform(0.6, 1.5, 100)
        found[f"v{video:05d}"] = [
            (float(s), float(e), f"class {labels[own[c]]}", float(score))
            for s, e, c, score in zip(moved, ends, near, rng.uniform(0, 1, 100), strict=True)
        ]
    vague = {
        video_id: [*rows, (60.0, 64.0, metrics.AMBIGUOUS)] if at % 3 == 0 else rows
        for at, (video_id, rows) in enumerate(truth.items())
    }
    tious, kit = metrics.ACTIVITYNET_TIOUS, metrics.THUMOS_TIOUS
    return [
        Contest(
            "ActivityNet mAP, 100 detections a video",
            lambda: metrics.detection_map(truth, found, tious).ap_TC,
            lambda: loops.detection_map(truth, found, tious),
        ),
        Contest(
            "AR@AN and AUC, 100 proposals a video",
            lambda: metrics.average_recall(truth, found, tious).ar_J,
            lambda: loops.average_recall(truth, found, tious)[0],
        ),
        Contest(
            "THUMOS'14 kit, 100 detections a video",
            lambda: metrics.thumos_map(vague, found, kit).ap_TC,
            lambda: loops.thumos_map(vague, found, kit),
        ),
    ]


def frame_contests(num_videos: int) -> list[Contest]:
    """Return the per-frame evaluators: 40 rows a video dense, and the 25 frames of Charades."""
    rng = np.random.default_rng(1)
    num_rows = 40
    videos = [
        (30.0, [(float(s), float(s + 8), int(c)) for s, c in zip(starts, of, strict=True)])
        for starts, of in zip(
            rng.uniform(0, 28, (num_videos, 7)),
            rng.integers(0, NUM_CLASSES, (num_videos, 7)),
            strict=True,
        )
    ]
    scores_NC = rng.standard_normal((num_videos * num_rows, NUM_CLASSES), dtype=np.float32)
    frames_NC = rng.standard_normal((num_videos * 25, NUM_CLASSES))

    def dense(label_rows: Callable, frame_map: Callable) -> np.ndarray:
        labels = [label_rows(num_rows, *video, NUM_CLASSES) for video in videos]
        return frame_map(scores_NC, np.concatenate(labels))

    def localize(label_rows: Callable, frame_map: Callable) -> np.ndarray:
        labels = [label_rows(*video, NUM_CLASSES) for video in videos]
        return frame_map(frames_NC, np.concatenate(labels))

    def broken_down(edges_of: Callable, label_rows: Callable, frame_map: Callable) -> np.ndarray:
        labels = [label_rows(num_rows, *video, NUM_CLASSES) for video in videos]
        edges_N = np.concatenate([edges_of(labels_TC, 1) for labels_TC in labels])
        labels_NC = np.concatenate(labels)
        active_N = labels_NC.sum(axis=1)
        kinds = (active_N == 1, active_N >= 2, edges_N, ~edges_N)
        return np.concatenate([frame_map(scores_NC[at], labels_NC[at]) for at in kinds])

    return [
        Contest(
            "per-frame mAP, 40 rows a video, 65 classes",
            lambda: dense(metrics.dense_labels, our_frame_map),
            lambda: dense(loops.dense_labels, loop_frame_map),
            1e-12,
        ),
        Contest(
            "Charades, 25 frames a video, 65 classes",
            lambda: localize(metrics.charades_labels, our_frame_map),
            lambda: localize(loops.charades_labels, loop_frame_map),
            1e-12,
        ),
        Contest(
            "breakdown by kind of frame",
            lambda: broken_down(metrics.boundary_rows, metrics.dense_labels, our_frame_map),
            lambda: broken_down(loops.boundary_rows, loops.dense_labels, loop_frame_map),
            1e-12,
        ),
    ]


def our_frame_map(scores_NC: np.ndarray, labels_NC: np.ndarray) -> np.ndarray:
    """Return AP per class as the evaluators compute it."""
    return metrics.mean_average_precision(scores_NC, labels_NC).per_class_C


def loop_frame_map(scores_NC: np.ndarray, labels_NC: np.ndarray) -> np.ndarray:
    """Return AP per class, frame by frame."""
    columns = zip(scores_NC.T, labels_NC.T, strict=True)
    return np.array([loops.frame_ap(s.tolist(), p.tolist()) for s, p in columns])


def other_contests(num_videos: int) -> list[Contest]:
    """Return grounding, two sentences a video, and CrossTask's steps, 150 seconds a video."""
    rng = np.random.default_rng(2)
    truth_Q2 = np.sort(rng.uniform(0, 30, (2 * num_videos, 2)), axis=1)
    found_QK2 = np.sort(truth_Q2[:, None] + rng.normal(0, 4, (2 * num_videos, 5, 2)), axis=2)
    tasks: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {f"task {at}": [] for at in range(18)}
    for video in range(num_videos):
        scores_TK = rng.standard_normal((150, 8))
        rows_TK = metrics.step_rows(150, [(10.0 * k, 10.0 * k + 8, k) for k in range(6)], 8)
        tasks[f"task {video % 18}"].append((scores_TK, rows_TK))

    def ours() -> np.ndarray:
        score = metrics.grounding_score(truth_Q2, found_QK2)
        return np.array([*score.recall.values(), score.miou])

    def loop() -> np.ndarray:
        recall, miou = loops.grounding(
            truth_Q2.tolist(), found_QK2.tolist(), (1, 5), (0.1, 0.3, 0.5, 0.7)
        )
        return np.array([*recall.values(), miou])

    def loop_steps() -> np.ndarray:
        recalls, means = [], []
        for videos in tasks.values():
            hits = wanted = 0
            for scores_TK, rows_TK in videos:
                for step, second in enumerate(loops.assign_steps(scores_TK.tolist())):
                    hits += int(rows_TK[second, step])
                    wanted += int(any(rows_TK[:, step]))
            recalls.append(hits / wanted)
            rows_NK = np.concatenate([rows_TK for _, rows_TK in videos])
            ap_K = loop_frame_map(np.concatenate([scores for scores, _ in videos]), rows_NK)
            means.append(ap_K[rows_NK.any(axis=0)].mean())
        return np.array([np.mean(recalls), np.mean(means)])

    def our_steps() -> np.ndarray:
        score = metrics.step_score(tasks)
        return np.array([score.recall, score.map])

    return [
        Contest("grounding, two sentences a video", ours, loop, 1e-12),
        Contest("CrossTask, 150 seconds a video", our_steps, loop_steps, 1e-12),
    ]


def main() -> None:
    """Measure and print row by row."""
    print(HEADER)
    for make in (segment_contests, frame_contests, other_contests):
        for contest in make(NUM_VIDEOS):
            print(contest.measure(), flush=True)


if __name__ == "__main__":
    main()
