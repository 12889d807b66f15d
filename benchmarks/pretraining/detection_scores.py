"""Scores of segments that a head found in the test videos, with their resamples."""

from collections.abc import Mapping

import numpy as np

from features import Detection, DetectionReport, metrics

from .records import Score, video_weights
from .resampling import resampled_detection_map, resampled_recall

SHOWN_TIOU = 0.5
SHOWN_NUMBERS = (10, 50)  # average numbers of proposals


def detection_scores(report: DetectionReport) -> list[Score]:
    """Return mAP, the mean over tIoU 0.3 to 0.7, and mAP at 0.5, by the ActivityNet rule.

    Chance is that of as many segments drawn at random.
    """
    found = {
        video_id: [(start, end, label, score) for start, end, score, label in rows]
        for video_id, rows in report.detections.items()
    }
    weights_BV = video_weights(len(report.videos))
    resampled_TB = resampled_detection_map(_truth(report), found, weights_BV)
    resampled_TB = resampled_TB.astype(np.float32)
    shown = metrics.THUMOS_TIOUS.index(SHOWN_TIOU)
    scores, random = report.scores, report.random
    return [
        Score(report.head, "map", scores.map, random.map, resampled_TB.mean(axis=0)),
        Score(report.head, "map_50", scores.map_T[shown], random.map_T[shown], resampled_TB[shown]),
    ]


def proposal_scores(report: DetectionReport) -> list[Score]:
    """Return AR at 10 and 50 proposals per video on average, and AUC.

    The AUC is the official one over 100, so that all numbers are in [0, 1]. Chance is that of as
    many segments drawn at random.
    """
    proposals: Mapping[str, tuple[Detection, ...]] = report.proposals
    bare = {video_id: [row[:3] for row in rows] for video_id, rows in proposals.items()}
    weights_BV = video_weights(len(report.videos))
    ar_BJ, auc_B = resampled_recall(_truth(report), bare, weights_BV)
    scores, random = report.scores, report.random
    found = [
        Score(
            report.head,
            f"ar_{number}",
            scores.recall_at[place],
            random.recall_at[place],
            ar_BJ[:, number - 1].astype(np.float32),
        )
        for place, number in enumerate(SHOWN_NUMBERS)
    ]
    shares_B = (auc_B / 100).astype(np.float32)
    return [*found, Score(report.head, "auc", scores.auc / 100, random.auc / 100, shares_B)]


def _truth(report: DetectionReport) -> dict[str, list[tuple[float, float, str]]]:
    return {
        video.video_id: [(start, end, report.classes[c]) for start, end, c in video.segments]
        for video in report.videos
    }
