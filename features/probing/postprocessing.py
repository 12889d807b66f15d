"""From the maps of a detection head to detections: decoding, Soft-NMS, score fusion, by tool.

Every tool has its own variant of each step, and they are not interchangeable. Positions are in
bins of a head's time axis unless said otherwise: cell `(start 3, duration 1)` is `[3, 5)`.

Source: section and equation beside each function; what the papers leave open is as in the public
code of BMN (JJBOY), G-TAD (master for THUMOS, branch anet) and ActionFormer.
"""

from typing import NamedTuple

import numpy as np

LONGEST_GTAD_FRAMES = 300  # of a THUMOS proposal; longer ones count nothing


class Proposals(NamedTuple):
    """Candidate segments of one video, with the scores that a head gave them.

    Attributes:
        segments_N2: float64, start and end.
        scores_N: float64, the tool's product of its confidences.
    """

    segments_N2: np.ndarray
    scores_N: np.ndarray


class Kept(NamedTuple):
    """What suppression left, in the order of selection.

    Attributes:
        index_K: int64, positions among the candidates.
        scores_K: Decayed scores.
    """

    index_K: np.ndarray
    scores_K: np.ndarray


def decode_bmn(start_T: np.ndarray, end_T: np.ndarray, map_2SE: np.ndarray) -> Proposals:
    """Take every pair of a start bin and an end bin: start * end * regression * classification.

    The end score is read one bin after the last bin of the segment, so that no proposal reaches
    the end of the video. There is no filter of peaks.

    Source: Lin et al., "BMN: Boundary-Matching Network", ICCV 2019, eq. 12.

    Args:
        start_T: Probability that an action starts in each bin.
        end_T: Probability that one ends there.
        map_2SE: Regression and classification confidence of the segment from the start of bin
            `s` to the end of bin `e`.
    """
    first, last = np.nonzero(np.triu(np.ones(map_2SE.shape[1:], bool)))
    inside = last + 1 < len(end_T)
    first, last = first[inside], last[inside]
    regression, classification = map_2SE[:, first, last].astype(np.float64)
    scores = start_T[first].astype(np.float64) * end_T[last + 1] * classification * regression
    return Proposals(np.stack([first, last + 1], axis=1).astype(np.float64), scores)


def decode_gtad_anet(start_T: np.ndarray, end_T: np.ndarray, map_2DT: np.ndarray) -> Proposals:
    """Pair candidate starts with candidate ends: regression * classification of their cell.

    A candidate is a bin above both neighbours, or above half of the highest probability; bin 0 is
    always a start and the last bin always an end, and never the other.

    Source: Xu et al., "G-TAD", CVPR 2020, Section 3.5; the filter is that of BSN (ECCV 2018,
    Section 3.3).

    Args:
        start_T: Probability that an action starts in each bin.
        end_T: Probability that one ends there.
        map_2DT: Regression and classification confidence of the segment of `d + 1` bins from
            the start of bin `t`.
    """
    is_start_T, is_end_T = _candidates(start_T), _candidates(end_T)
    is_start_T[0] = is_end_T[-1] = True
    proposals = decode_gtad_thumos(map_2DT)
    first, after = proposals.segments_N2.astype(np.int64).T
    wanted_N = is_start_T[first] & is_end_T[after]
    return Proposals(proposals.segments_N2[wanted_N], proposals.scores_N[wanted_N])


def decode_gtad_thumos(map_2DT: np.ndarray) -> Proposals:
    """Take every cell that ends before the last edge: regression * classification.

    Source: Xu et al., "G-TAD", CVPR 2020, Section 3.5.

    Args:
        map_2DT: As `decode_gtad_anet`.
    """
    duration, first = np.nonzero(np.ones(map_2DT.shape[1:], bool))
    inside = first + duration + 1 < map_2DT.shape[2]
    first, duration = first[inside], duration[inside]
    regression, classification = map_2DT[:, duration, first].astype(np.float64)
    segments_N2 = np.stack([first, first + duration + 1], axis=1).astype(np.float64)
    return Proposals(segments_N2, classification * regression)


def soft_nms_bmn(
    segments_N2: np.ndarray,
    scores_N: np.ndarray,
    alpha: float = 0.4,
    low: float = 0.5,
    high: float = 0.9,
    num_kept: int = 101,
) -> Kept:
    """Decay by `exp(-IoU^2 / alpha)` what overlaps a selected proposal by more than a threshold.

    The threshold grows with the width of the selected one: `low + (high - low) * width`. As in the
    public code the last candidate is dropped: one gives none.

    Source: Lin et al., "BMN", ICCV 2019, Section 3.6; Bodla et al., "Soft-NMS", ICCV 2017, eq. 3.

    Args:
        segments_N2: As fractions of the video: the threshold says so.
        scores_N: Of the candidates.
        alpha: Width of the decay.
        low: Threshold for the shortest proposals.
        high: Threshold for one as long as the video.
        num_kept: At most so many; the tool reports the first 100.
    """
    return _soft_nms(segments_N2, scores_N, alpha, (low, high), num_kept, -np.inf)


def soft_nms_gtad(
    segments_N2: np.ndarray,
    scores_N: np.ndarray,
    sigma: float,
    num_kept: int,
    longest: float | None = None,
) -> Kept:
    """Decay by `exp(-IoU^2 / sigma)` whatever overlaps a selected proposal.

    The last candidate is dropped, and so is what has no score left. On THUMOS it runs on every
    window, and once more on what all windows of a video left.

    Source: Xu et al., "G-TAD", CVPR 2020, Section 4.2.

    Args:
        segments_N2: In any unit.
        scores_N: Of the candidates.
        sigma: Width of the decay; 0.46 on THUMOS, 0.8 on ActivityNet.
        num_kept: At most so many; 200 and 100.
        longest: Proposals of this length and above count nothing, in the unit of the segments;
            `LONGEST_GTAD_FRAMES` on THUMOS, None on ActivityNet.
    """
    if longest is not None:
        lengths_N = segments_N2[:, 1] - segments_N2[:, 0]
        scores_N = np.where(lengths_N >= longest, 0.0, scores_N)
    return _soft_nms(segments_N2, scores_N, sigma, (0.0, 0.0), num_kept, 0.0)


def fuse_gtad(
    scores_N: np.ndarray, class_scores_NC: np.ndarray, num_classes: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give every proposal the best classes: `score * class score`, for each of them.

    Source: Xu et al., "G-TAD", CVPR 2020, Section 3.5, with the classifier of the video. OpenTAD
    does the same.

    Args:
        scores_N: Of the proposals.
        class_scores_NC: Of the video, `(1, C)`, or of each proposal, `(N, C)`.
        num_classes: So many of the best classes.

    Returns:
        Positions of the proposals, class indices and scores of the detections, `(N * classes)`.
    """
    class_scores_NC = np.broadcast_to(class_scores_NC, (len(scores_N), class_scores_NC.shape[1]))
    best_NK = np.argsort(-class_scores_NC, axis=1, kind="stable")[:, :num_classes]
    fused_NK = scores_N[:, None] * np.take_along_axis(class_scores_NC, best_NK, axis=1)
    proposal_M = np.repeat(np.arange(len(scores_N)), best_NK.shape[1])
    return proposal_M, best_NK.ravel(), fused_NK.ravel()


def fuse_actionformer(
    scores_N: np.ndarray, class_scores_NC: np.ndarray, num_classes: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give every proposal the best classes: the geometric mean of both scores.

    Source: Zhang, Wu and Li, "ActionFormer", ECCV 2022, Section 4.2, external classifier. As
    `fuse_gtad`, with a square root.
    """
    proposal_M, class_M, fused_M = fuse_gtad(scores_N, class_scores_NC, num_classes)
    return proposal_M, class_M, np.sqrt(fused_M)


def _candidates(probability_T: np.ndarray) -> np.ndarray:
    """Return bool `(T,)`, inner bins that stand out; the first and the last are left out."""
    inner = probability_T[1:-1]
    is_peak = (inner > probability_T[:-2]) & (inner > probability_T[2:])
    is_high = inner > 0.5 * probability_T.max()
    return np.concatenate([[False], is_peak | is_high, [False]])


def _soft_nms(
    segments_N2: np.ndarray,
    scores_N: np.ndarray,
    sigma: float,
    limits: tuple[float, float],
    num_kept: int,
    floor: float,
) -> Kept:
    """Select the best, decay the others, until one is left or none is above `floor`."""
    start_N, end_N = np.asarray(segments_N2, np.float64).T
    # by score, so that of equal ones the same is found first as in the tools' sorted tables
    order_N = np.argsort(-np.asarray(scores_N, np.float64), kind="stable")
    start_N, end_N = start_N[order_N], end_N[order_N]
    left_N = np.asarray(scores_N, np.float64)[order_N]
    kept: list[int] = []
    scores: list[float] = []
    while len(kept) < min(num_kept, len(order_N) - 1):
        best = int(left_N.argmax())
        if not left_N[best] > floor:
            break
        kept.append(best)
        scores.append(left_N[best])
        inter_N = np.minimum(end_N, end_N[best]) - np.maximum(start_N, start_N[best])
        hull_N = np.maximum(end_N, end_N[best]) - np.minimum(start_N, start_N[best])
        iou_N = np.maximum(inter_N, 0.0) / np.where(hull_N > 0, hull_N, 1.0)
        limit = limits[0] + (limits[1] - limits[0]) * (end_N[best] - start_N[best])
        left_N = np.where(iou_N > limit, left_N * np.exp(-np.square(iou_N) / sigma), left_N)
        left_N[best] = -np.inf
    return Kept(order_N[np.array(kept, np.int64)], np.array(scores, np.float64))
