"""Average recall of proposals against their average number per video (AR@AN), and the area below.

The script keeps, of every video, a share of its proposals in falling order of score, the same share
everywhere, so that the average video keeps `max_proposals`: AN is an average, and AR@1 may be won
by videos with many proposals alone. Recall at a tIoU counts annotated segments that any kept
proposal meets (>=; no proposal is used up). AR averages recall over the thresholds; AUC is the area
below AR over AN from the first step to the last, divided by the last AN: perfect recall gives 99.

What the script does at the edges, and so does this: proposals of videos that the truth lacks count
in the number that the share is derived from, and nowhere else; a video of the truth without
proposals finds nothing of its segments; equal scores stand in the order of NumPy's default
`argsort`, reversed; 0 / 0 of two segments without length is no match here.

Source: ActivityNet/Evaluation/eval_proposal.py (activitynet/ActivityNet, 82304fa).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .detection import ACTIVITYNET_TIOUS
from .matching import pairs_of_groups, temporal_iou

NUM_STEPS = 100


@dataclass(frozen=True, slots=True, eq=False)
class RecallScore:
    """Recall at 100 average numbers of proposals.

    Attributes:
        auc: Area below AR over AN, in percent.
        ar_J: float64 `(100,)`, recall averaged over thresholds.
        an_J: float64 `(100,)`, proposals per video on average.
        recall_TJ: float64.
        tious: The thresholds.
        num_segments: Annotated segments.
        num_proposals: All proposals of the file.
        num_foreign: Those among them in videos that the truth lacks.
        num_videos_without: Videos of the truth without proposals.
    """

    auc: float
    ar_J: np.ndarray
    an_J: np.ndarray
    recall_TJ: np.ndarray
    tious: tuple[float, ...]
    num_segments: int
    num_proposals: int
    num_foreign: int
    num_videos_without: int

    def at(self, average_number: float) -> float:
        """Return AR@AN: at the first step that keeps so many proposals on average."""
        step = int(np.searchsorted(self.an_J, average_number * (1 - 1e-9)))
        return float(self.ar_J[min(step, NUM_STEPS - 1)])


def average_recall(
    truth: Mapping[str, Sequence[tuple]],
    proposals: Mapping[str, Sequence[tuple]],
    tious: Iterable[float] = ACTIVITYNET_TIOUS,
    max_proposals: float = 100,
) -> RecallScore:
    """Score proposals by the ActivityNet rule.

    Args:
        truth: Video id -> (start_seconds, end_seconds, ...); labels are not looked at.
        proposals: Video id -> (start_seconds, end_seconds, ..., score).
        tious: Thresholds.
        max_proposals: The largest average number per video, of the last step.

    Raises:
        ValueError: There is no annotated segment or no proposal, a score is NaN, or the average
            keeps no proposal at all.
    """
    thresholds = tuple(float(tiou) for tiou in tious)
    known = [video_id for video_id, segments in truth.items() if len(segments)]
    if not known or not any(len(found) for found in proposals.values()):
        raise ValueError("truth and proposals must each hold at least one segment")
    gt_N2 = np.array([row[:2] for video_id in known for row in truth[video_id]], float)
    gt_video_N = np.repeat(np.arange(len(known)), [len(truth[video_id]) for video_id in known])
    num_proposals = sum(len(found) for found in proposals.values())
    ratio = max_proposals * float(len(known)) / num_proposals
    kept = [best_proposals(proposals.get(video_id, ()), ratio) for video_id in known]
    kept_V = np.array([len(times_P2) for times_P2 in kept])
    total = int(kept_V.sum())
    if total == 0:
        raise ValueError(
            f"a share of {ratio:g} of the proposals of each annotated video keeps none"
        )
    share_J = np.arange(1, NUM_STEPS + 1) / 100.0 * (max_proposals * float(len(known)) / total)
    used_VJ = np.minimum((kept_V[:, None] * share_J).astype(np.int64), kept_V[:, None])
    first_TN = first_hits(gt_N2, gt_video_N, np.concatenate(kept), kept_V, thresholds)
    recall_TJ = np.stack(
        [(first_N[:, None] < used_VJ[gt_video_N]).sum(axis=0) / len(gt_N2) for first_N in first_TN]
    )
    ar_J = recall_TJ.mean(axis=0)
    an_J = share_J * (float(total) / len(known))
    num_here = [len(proposals.get(video_id, ())) for video_id in known]
    return RecallScore(
        auc=float(100.0 * float(np.trapezoid(ar_J, an_J)) / an_J[-1]),
        ar_J=ar_J,
        an_J=an_J,
        recall_TJ=recall_TJ,
        tious=thresholds,
        num_segments=len(gt_N2),
        num_proposals=num_proposals,
        num_foreign=num_proposals - sum(num_here),
        num_videos_without=num_here.count(0),
    )


def best_proposals(found: Sequence[tuple], ratio: float = 1.0) -> np.ndarray:
    """Return the times `(n, 2)` of the kept share of one video's proposals, best first."""
    if not len(found):
        return np.zeros((0, 2))
    columns = list(zip(*found, strict=True))
    scores_P = np.array(columns[-1], float)
    if np.isnan(scores_P).any():
        raise ValueError("scores must not be NaN")
    num_kept = min(int(len(found) * ratio), len(found))
    order = scores_P.argsort()[::-1][:num_kept]
    return np.stack([np.array(columns[0], float)[order], np.array(columns[1], float)[order]], 1)


def first_hits(
    gt_N2: np.ndarray,
    gt_video_N: np.ndarray,
    kept_P2: np.ndarray,
    kept_V: np.ndarray,
    tious: tuple[float, ...],
) -> np.ndarray:
    """Return int64 `(T, N)`: the rank of the first proposal that meets each annotated segment.

    Args:
        gt_N2: Annotated segments, start and end in seconds.
        gt_video_N: Index of their videos, ascending.
        kept_P2: Proposals, video by video, best first.
        kept_V: How many each video has.
        tious: Thresholds.

    Returns:
        Ranks from 0; the largest int64 where no proposal meets the segment.
    """
    first_TN = np.full((len(tious), len(gt_N2)), np.iinfo(np.int64).max)
    start_V = np.cumsum(kept_V) - kept_V
    for segment, proposal in pairs_of_groups(gt_video_N, np.repeat(np.arange(len(kept_V)), kept_V)):
        rank = proposal - start_V[gt_video_N[segment]]
        tiou = temporal_iou(gt_N2[segment], kept_P2[proposal])
        near = np.flatnonzero(tiou >= min(tious))
        segment, rank, tiou = segment[near], rank[near], tiou[near]
        for row, threshold in enumerate(tious):
            hit = tiou >= threshold
            np.minimum.at(first_TN[row], segment[hit], rank[hit])
    return first_TN
