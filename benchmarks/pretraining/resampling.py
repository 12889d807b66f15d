"""Metrics of resampled test videos: video `v` counts `weights_BV[b, v]` times in resample `b`.

What ranks, matches and meets what is settled once, video by video. After that a rank among the
repeated videos is a sum over videos of how many rows each has up to there, times how often it
counts: a matrix product, for all resamples at once. Every number is what the metric of that name
in `features.metrics` gives on a list in which videos really stand so often; classes that a resample
lacks are left out of its mean, and where nothing is left the number is NaN.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from features import metrics


def resampled_map(
    scores_NC: np.ndarray, positive_NC: np.ndarray, video_N: np.ndarray, weights_BV: np.ndarray
) -> np.ndarray:
    """Return the per-frame mAP of every resample, float64 `(B,)`.

    Rows of equal score share a threshold (`ties="grouped"`), so that order cannot matter.

    Args:
        scores_NC: Of each row of all videos; not NaN.
        positive_NC: bool.
        video_N: int, whose row it is.
        weights_BV: int, how often each video counts.
    """
    weights_BV = np.asarray(weights_BV, np.float64)
    aps = [
        _resampled_ap(scores_N, positive_N, video_N, weights_BV)
        for scores_N, positive_N in zip(scores_NC.T, positive_NC.T, strict=True)
    ]
    return _mean_of_known(np.stack(aps))


def _resampled_ap(
    scores_N: np.ndarray, positive_N: np.ndarray, video_N: np.ndarray, weights_BV: np.ndarray
) -> np.ndarray:
    """Return the AP of one class, NaN in resamples without positives.

    Of AP = sum over positives `p` of `positives up to p / rows up to p / all positives`, the
    numerator and the denominator are sums over videos.
    """
    order = np.argsort(-scores_N, kind="stable")
    falling_N = -scores_N[order]
    last_P = np.searchsorted(falling_N, falling_N[positive_N[order]], "right") - 1
    owner_N, is_positive_N = video_N[order], positive_N[order]
    num_videos = weights_BV.shape[1]
    rows_BP = weights_BV @ _up_to(owner_N, np.ones(len(order)), last_P, num_videos)
    hits_BP = weights_BV @ _up_to(owner_N, is_positive_N, last_P, num_videos)
    weights_BP = weights_BV[:, owner_N[is_positive_N]]
    precision_BP = np.divide(hits_BP, rows_BP, out=np.zeros_like(rows_BP), where=rows_BP > 0)
    return _ratio((precision_BP * weights_BP).sum(axis=1), weights_BP.sum(axis=1))


def _up_to(
    video_N: np.ndarray, counts_N: np.ndarray, last_P: np.ndarray, num_videos: int
) -> np.ndarray:
    """Return what each video has counted from the first row to `last`, float64 `(V, P)`."""
    counts_NV = np.zeros((len(video_N), num_videos))
    counts_NV[np.arange(len(video_N)), video_N] = counts_N
    return np.cumsum(counts_NV, axis=0)[last_P].T


def resampled_detection_map(
    truth: metrics.Truth,
    detections: metrics.Predictions,
    weights_BV: np.ndarray,
    tious: Sequence[float] = metrics.THUMOS_TIOUS,
) -> np.ndarray:
    """Return the detection mAP of every resample at every threshold, float64 `(T, B)`.

    Args:
        truth: Video id -> (start_seconds, end_seconds, label); video `v` is the v-th.
        detections: Of those videos: (start_seconds, end_seconds, label, score). Labels that the
            truth lacks are left out.
        weights_BV: int, how often each video counts.
        tious: Thresholds.
    """
    weights_BV = np.asarray(weights_BV, np.float64)
    found = metrics.match_detections(truth, detections, tious, drop_unknown=True)
    owned_NV = found.video_N[:, None] == np.arange(weights_BV.shape[1])
    aps = []
    for c in range(len(found.classes)):
        of_class = found.class_P == c
        num_B = weights_BV @ owned_NV[found.class_N == c].sum(axis=0)
        video_P = found.video_P[of_class]
        aps.append(
            [
                _resampled_interpolated_ap(hits_P, video_P, num_B, weights_BV)
                for hits_P in found.hits_TP[:, of_class]
            ]
        )
    return _mean_of_known(np.array(aps))


def _resampled_interpolated_ap(
    hits_P: np.ndarray, video_P: np.ndarray, num_B: np.ndarray, weights_BV: np.ndarray
) -> np.ndarray:
    """Return the area under precision made monotone, over recall, of predictions best first.

    A hit that counts `w` times is `w` hits in a row, and precision is highest at the last of them.
    One that counts 0 times has no more precision than the hit before it: it changes no maximum.
    """
    hit_H = np.flatnonzero(hits_P)
    num_videos = weights_BV.shape[1]
    rank_BH = weights_BV @ _up_to(video_P, np.ones(len(video_P)), hit_H, num_videos)
    found_BH = weights_BV @ _up_to(video_P, hits_P, hit_H, num_videos)
    precision_BH = np.divide(found_BH, rank_BH, out=np.zeros_like(rank_BH), where=rank_BH > 0)
    precision_BH = np.maximum.accumulate(precision_BH[:, ::-1], axis=1)[:, ::-1]
    return _ratio((precision_BH * weights_BV[:, video_P[hit_H]]).sum(axis=1), num_B)


def resampled_recall(
    truth: Mapping[str, Sequence[tuple]],
    proposals: Mapping[str, Sequence[tuple]],
    weights_BV: np.ndarray,
    max_proposals: float = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """Return AR of every resample at its 100 average numbers of proposals, and AUC in percent.

    Args:
        truth: Video id -> (start_seconds, end_seconds, ...); video `v` is the v-th.
        proposals: Of those videos: (start_seconds, end_seconds, ..., score).
        weights_BV: int, how often each video counts.
        max_proposals: The largest average number per video.

    Returns:
        float64 `(B, 100)`, float64 `(B,)`; 0 where a resample keeps no proposal, NaN where it has
        no annotated segment.
    """
    weights_BV = np.asarray(weights_BV, np.float64)
    number_V = np.array([len(proposals.get(video_id, ())) for video_id in truth], np.float64)
    is_known_V = np.array([len(segments) > 0 for segments in truth.values()])
    known_B = weights_BV @ is_known_V
    ratio_B1 = _ratio(max_proposals * known_B, weights_BV @ number_V)[:, None]
    kept_BV = np.minimum(_whole(number_V * ratio_B1), number_V) * is_known_V
    share_J = np.arange(1, metrics.NUM_STEPS + 1) / 100.0
    total_B = (weights_BV * kept_BV).sum(axis=1)
    share_BJ = share_J * _ratio(max_proposals * known_B, total_B)[:, None]
    met = _segments_met(truth, proposals)
    ar_BJ = np.zeros(share_BJ.shape)
    for v, met_K in enumerate(met):
        kept_B1 = kept_BV[:, v, None]
        used_BJ = np.minimum(_whole(kept_B1 * share_BJ), kept_B1).astype(np.int64)
        ar_BJ += weights_BV[:, v, None] * met_K[used_BJ]
    ar_BJ = _ratio(ar_BJ, (weights_BV @ [len(rows) for rows in truth.values()])[:, None])
    an_BJ = share_BJ * _ratio(total_B, known_B)[:, None]
    area_B = np.nan_to_num(100.0 * np.trapezoid(ar_BJ, an_BJ, axis=1) / an_BJ[:, -1])
    return ar_BJ, np.where(np.isnan(ar_BJ[:, 0]), np.nan, area_B)


def _segments_met(
    truth: Mapping[str, Sequence[tuple]], proposals: Mapping[str, Sequence[tuple]]
) -> list[np.ndarray]:
    """Return for each video how many of its segments the first 0, 1, 2 ... proposals meet.

    Each is float64 `(K + 1,)`, the mean over the thresholds of ActivityNet.
    """
    met = []
    for video_id, segments in truth.items():
        best_K2 = metrics.best_proposals(proposals.get(video_id, ()))
        first_TN = metrics.first_hits(
            np.array([row[:2] for row in segments], float).reshape(-1, 2),
            np.zeros(len(segments), np.int64),
            best_K2,
            np.array([len(best_K2)]),
            metrics.ACTIVITYNET_TIOUS,
        )
        ranks = np.sort(first_TN, axis=None)
        below = np.searchsorted(ranks, np.arange(len(best_K2) + 1), "left")
        met.append(below / len(metrics.ACTIVITYNET_TIOUS))
    return met


def resampled_auc(
    difference_P: np.ndarray, positive_P: np.ndarray, video_P: np.ndarray, weights_BV: np.ndarray
) -> np.ndarray:
    """Return the area under the ROC curve of every resample, float64 `(B,)`, ties counting half.

    Args:
        difference_P: Any numbers.
        positive_P: bool, those that should be large.
        video_P: int, whose they are.
        weights_BV: int, how often each video counts.
    """
    weights_BV = np.asarray(weights_BV, np.float64)
    num_videos = weights_BV.shape[1]
    scores_A, owner_A = difference_P[positive_P], video_P[positive_P]
    wins_VV = np.zeros((num_videos, num_videos))  # of positives of one over negatives of the other
    for v in range(num_videos):
        below = np.sort(difference_P[~positive_P & (video_P == v)])
        sides = [np.searchsorted(below, scores_A, side) for side in ("left", "right")]
        wins_VV[:, v] = np.bincount(owner_A, np.mean(sides, axis=0), num_videos)
    positive_V = np.bincount(owner_A, minlength=num_videos)
    negative_V = np.bincount(video_P[~positive_P], minlength=num_videos)
    wins_B = np.einsum("bv,vw,bw->b", weights_BV, wins_VV, weights_BV, optimize=True)
    return _ratio(wins_B, (weights_BV @ positive_V) * (weights_BV @ negative_V))


def resampled_mean(values_V: np.ndarray, weights_BV: np.ndarray) -> np.ndarray:
    """Return the mean over videos of every resample, float64 `(B,)`; NaN where it has no video."""
    weights_BV = np.asarray(weights_BV, np.float64)
    return _ratio(weights_BV @ values_V, weights_BV.sum(axis=1))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Divide; NaN where there is nothing below."""
    below = np.broadcast_to(np.asarray(below, np.float64), np.shape(above))
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)


def _whole(numbers: np.ndarray) -> np.ndarray:
    """Cut off what follows the point, as `int` does; 0 of NaN."""
    return np.trunc(np.nan_to_num(numbers))


def _mean_of_known(values_CB: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis of what is not NaN; NaN where all is."""
    known_CB = ~np.isnan(values_CB)
    return _ratio(np.where(known_CB, values_CB, 0.0).sum(axis=0), known_CB.sum(axis=0))
