"""Step localization in instructional videos (CrossTask): step recall, and AP per second.

A video of a task is one row per second and one column per step. A step annotated from `start` to
`end` seconds covers the rows `floor(start) .. ceil(end) - 1`.

Step recall, the official number: every step of the task is given exactly one second, in the order
of the task, so that the scores add up to the most; a step that the video's annotation has is
recalled if its second is covered by it. Recall of a task is recalled steps over annotated steps of
all its videos; the number is the mean over tasks. Of equally good seconds the earliest is taken.

AP per second is in no official script. Here every second of a task's videos is ranked by the score
of a step, in the given order where scores are equal (`mean_average_precision`, ties "stable"); AP
is averaged over the steps that occur, then over tasks (macro). Seconds without any step are
negatives, and steps of different tasks are never compared.

Source: `get_recalls`, `read_assignment` and the dynamic programme of DmZhukov/CrossTask (9e6fdcc).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .average_precision import mean_average_precision


@dataclass(frozen=True, slots=True)
class StepScore:
    """Scores of all tasks.

    Attributes:
        recall: Mean of step recall over tasks.
        map: Mean over tasks of AP per second.
        recall_of: Task -> recall.
        map_of: Task -> mean AP over its steps that occur.
        num_videos: Videos of all tasks.
    """

    recall: float
    map: float
    recall_of: dict[str, float]
    map_of: dict[str, float]
    num_videos: int


def step_rows(
    num_seconds: int, segments: Sequence[tuple[float, float, int]], num_steps: int
) -> np.ndarray:
    """Return bool `(T, K)`: the seconds that each annotated step covers.

    Args:
        num_seconds: `T`; what lies beyond is cut off.
        segments: (start_seconds, end_seconds, step from 0).
        num_steps: `K`.
    """
    rows_TK = np.zeros((num_seconds, num_steps), bool)
    for start, end, step in segments:
        rows_TK[max(math.floor(start), 0) : max(math.ceil(end), 0), step] = True
    return rows_TK


def assign_steps(scores_TK: np.ndarray) -> np.ndarray:
    """Return int64 `(K,)`: one second per step, strictly ascending, with the largest sum of scores.

    Raises:
        ValueError: There are fewer seconds than steps.
    """
    num_seconds, num_steps = scores_TK.shape
    if num_seconds < num_steps:
        raise ValueError(f"{num_steps} steps need as many seconds, got {num_seconds}")
    best_T = np.zeros(num_seconds)  # sum of the steps before, all placed before this second
    sums_KT = np.empty((num_steps, num_seconds))
    for k in range(num_steps):
        np.add(best_T, scores_TK[:, k], out=sums_KT[k])
        np.maximum.accumulate(sums_KT[k, :-1], out=best_T[1:])
        best_T[0] = -np.inf
    seconds_K = np.empty(num_steps, np.int64)
    end = num_seconds
    for k in reversed(range(num_steps)):
        end = seconds_K[k] = sums_KT[k, :end].argmax()
    return seconds_K


def step_score(tasks: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]) -> StepScore:
    """Score the videos of every task.

    Args:
        tasks: Task -> per video, scores float `(T, K)` and covered rows bool `(T, K)`.

    Raises:
        ValueError: There is no annotated step at all, shapes differ, a score is NaN, or a video has
            fewer seconds than steps.
    """
    recall_of: dict[str, float] = {}
    map_of: dict[str, float] = {}
    for task, videos in tasks.items():
        recalled = annotated = 0
        for scores_TK, rows_TK in videos:
            seconds_K = assign_steps(np.asarray(scores_TK, float))
            recalled += int(rows_TK[seconds_K, np.arange(rows_TK.shape[1])].sum())
            annotated += int(rows_TK.any(axis=0).sum())
        if annotated:
            recall_of[task] = recalled / annotated
            scores_NK = np.concatenate([scores_TK for scores_TK, _ in videos])
            rows_NK = np.concatenate([rows_TK for _, rows_TK in videos])
            map_of[task] = mean_average_precision(scores_NK, rows_NK).mean
    if not recall_of:
        raise ValueError("the truth must hold at least one step")
    return StepScore(
        recall=float(np.mean(list(recall_of.values()))),
        map=float(np.mean(list(map_of.values()))),
        recall_of=recall_of,
        map_of=map_of,
        num_videos=sum(len(videos) for videos in tasks.values()),
    )
