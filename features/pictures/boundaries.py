"""Draw how much neighbouring snippets differ at annotated boundaries and away from them.

Features that serve to localize change where an action begins or ends, and little elsewhere. The
difference of neighbours is `1 - cos`. A pair of neighbours is *at* a boundary when an annotated
start or end lies between their centres, `centre_i <= boundary < centre_{i+1}`; a boundary before
the first centre or after the last lies between no two snippets. The number is the area under the
ROC curve: the probability that a pair at a boundary differs more than a pair away from one.
Source: BSP, figure 4 (distributions), made a number.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from manifests import AnyPath, UsageError

from ..annotations import AnnotatedSegment, Annotations
from ..store.feature_store import FeatureStore
from .equivariance import unit_rows
from .figure import BLUE, LINE, RED, SOFT, TICK, new_figure, style_axes, write_figure

NUM_BINS = 32
SHOWN_SHARE = 0.99  # of all pairs; the first bin also holds the few that differ less
LEAST_SHOWN = 1e-6  # differences below are rounding of the stored rows
NUM_RESAMPLES = 1000
LEAST_VIDEOS = 2  # to draw videos from for an interval


@dataclass(frozen=True, slots=True)
class BoundaryReport:
    """How well the difference of neighbouring snippets tells boundaries.

    Attributes:
        auc: Area under the ROC curve; 0.5 by chance.
        interval: 95 % of the AUC over resamples of the videos; None for a single video.
        num_at: Pairs of neighbours at a boundary.
        num_away: All others.
        median_at: Median difference at boundaries.
        median_away: Median difference away from them.
        num_videos: Annotated videos of the store.
        absent: Annotated videos that cannot be read from the store.
        tolerance_seconds: How far from the gap between two centres a boundary may lie.
    """

    auc: float
    interval: tuple[float, float] | None
    num_at: int
    num_away: int
    median_at: float
    median_away: float
    num_videos: int
    absent: tuple[str, ...]
    tolerance_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the numbers in words."""
        spread = "" if self.interval is None else " (95 %% of resampled videos: %.3f to %.3f)"
        number, lacking = self.num_videos, len(self.absent)
        absent = f"; the store lacks {lacking} more that are annotated" if lacking else ""
        return [
            f"ROC AUC of boundaries {self.auc:.3f}" + spread % (self.interval or ()),
            f"{self.num_at:,} pairs of neighbouring snippets at a boundary differ by "
            f"{self.median_at:.4f} (median of 1 - cos), {self.num_away:,} away from one by "
            f"{self.median_away:.4f}",
            f"{number} annotated video{'' if number == 1 else 's'}{absent}",
        ]


@dataclass(frozen=True, slots=True, eq=False)
class NeighbourPairs:
    """All pairs of neighbouring snippets, end to end.

    Attributes:
        difference_P: float64, `1 - cos` of both.
        at_P: bool, a boundary lies between them.
        video_P: int64, in the order of `video_ids`.
        video_ids: Annotated videos of the store.
        absent: Annotated videos that it lacks.
    """

    difference_P: np.ndarray
    at_P: np.ndarray
    video_P: np.ndarray
    video_ids: tuple[str, ...]
    absent: tuple[str, ...]


def draw_boundaries(
    store: FeatureStore,
    annotations: Annotations,
    path: AnyPath | str,
    *,
    subset: str | None = None,
    tolerance_seconds: float = 0.0,
    seed: int = 0,
) -> BoundaryReport:
    """Draw the two distributions of the difference of neighbours, and return their AUC.

    Args:
        store: Features of the annotated videos.
        annotations: Whose starts and ends are the boundaries.
        path: The PNG file to write.
        subset: Only videos of this subset; None takes all that are annotated.
        tolerance_seconds: A pair counts as at a boundary also this far from its gap.
        seed: For the resamples of the interval.

    Raises:
        UsageError: Class probabilities instead of features, no annotated video in the store, no
            boundary between snippets, or none away from one.
    """
    pairs = neighbour_pairs(store, annotations, subset, tolerance_seconds)
    report = _report(pairs, tolerance_seconds, seed)
    figure = new_figure(6.4, 3.6)
    spread = "" if report.interval is None else ", 95 %% of resamples %.3f to %.3f"
    title = f"Boundaries: ROC AUC {report.auc:.3f}" + spread % (report.interval or ())
    _draw(figure.subplots(), title, pairs, report)
    figure.legend(
        loc="outside lower center", ncols=2, fontsize=TICK, labelcolor=SOFT, frameon=False
    )
    write_figure(path, figure)
    return report


def compare_boundaries(
    stores: Mapping[str, FeatureStore],
    annotations: Annotations,
    path: AnyPath | str,
    *,
    subset: str | None = None,
) -> dict[str, BoundaryReport]:
    """Draw the distributions of several stores side by side, and return their AUC by name.

    Args:
        stores: Features of the annotated videos, by the name of what made them; at least one.
        annotations: As of `draw_boundaries`.
        path: The PNG file to write.
        subset: As of `draw_boundaries`.

    Raises:
        UsageError: As `draw_boundaries`, of any of the stores.
    """
    reports = {}
    figure = new_figure(5.0 * len(stores), 4.0)
    row = figure.subplots(1, len(stores), squeeze=False, sharey=True)[0]
    for axes, (name, store) in zip(row, stores.items(), strict=True):
        pairs = neighbour_pairs(store, annotations, subset)
        reports[name] = _report(pairs, 0.0, 0)
        spread = "" if reports[name].interval is None else " (%.3f to %.3f)"
        title = f"{name}: ROC AUC {reports[name].auc:.3f}" + spread % (reports[name].interval or ())
        _draw(axes, title, pairs, reports[name])
        below = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.16)}
        axes.legend(**below, fontsize=TICK, labelcolor=SOFT, frameon=False)
    for axes in row[1:]:
        axes.set_ylabel("")
    write_figure(path, figure)
    return reports


def neighbour_pairs(
    store: FeatureStore,
    annotations: Annotations,
    subset: str | None = None,
    tolerance_seconds: float = 0.0,
) -> NeighbourPairs:
    """Return how much neighbouring snippets differ, and which have a boundary between them.

    Args:
        store: Features of the annotated videos.
        annotations: Whose starts and ends are the boundaries.
        subset: Only videos of this subset; None takes all that are annotated.
        tolerance_seconds: A pair counts as at a boundary also this far from its gap.

    Raises:
        UsageError: As `draw_boundaries`.
    """
    if not tolerance_seconds >= 0:
        raise UsageError(f"the tolerance must be at least 0 seconds, got {tolerance_seconds!r}")
    check_features(store)
    named = list(annotations.segments) if subset is None else annotations.video_ids(subset)
    readable = [video_id for video_id in named if video_id in store]
    if not readable:
        of_subset = "" if subset is None else f" of subset {subset!r}"
        raise UsageError(
            f"{len(named)} videos{of_subset} are annotated, but none is in the store "
            f"{str(store.path)!r}"
        )
    differences, places, counts = [np.zeros(0)], [np.zeros(0, bool)], []
    for video_id in readable:
        units_SD = unit_rows(store[video_id])
        differences.append(np.sum(np.diff(units_SD, axis=0) ** 2, axis=1) / 2)  # 1 - cos
        counts.append(len(differences[-1]))
        if counts[-1]:
            centres_S = store.times(video_id)[:, 1]
            segments = annotations.segments[video_id]
            places.append(at_boundary(centres_S, segments, tolerance_seconds))
    difference_P, at_P = np.concatenate(differences), np.concatenate(places)
    if int(at_P.sum()) in (0, len(at_P)):
        raise UsageError(
            f"boundaries need pairs of neighbouring snippets at them and away from them, but of "
            f"{len(at_P):,} pairs in {len(readable)} videos {int(at_P.sum()):,} are at an "
            f"annotated boundary"
        )
    absent = tuple(sorted(set(named) - set(readable)))
    video_P = np.repeat(np.arange(len(readable)), counts)
    return NeighbourPairs(difference_P, at_P, video_P, tuple(readable), absent)


def roc_auc(
    scores_P: np.ndarray, positive_P: np.ndarray, weights_P: np.ndarray | None = None
) -> float:
    """Return the probability that a positive scores above a negative, ties counting half.

    Args:
        scores_P: Any numbers.
        positive_P: bool.
        weights_P: How often each counts; once by default.

    Returns:
        The area under the ROC curve (Mann-Whitney U / product of counts); NaN where all weight is
        on one side.
    """
    _, place_P = np.unique(scores_P, return_inverse=True)
    return _auc_of_places(place_P, positive_P, weights_P)


def at_boundary(
    centres_S: np.ndarray,
    segments: Iterable[AnnotatedSegment],
    tolerance_seconds: float = 0.0,
) -> np.ndarray:
    """Return which pairs of neighbouring snippets have a boundary between them, bool `(S - 1,)`.

    A boundary on a centre is before that snippet, whose label is the one after it
    (`snippets_between`).

    Args:
        centres_S: Ascending, seconds.
        segments: Their starts and ends are the boundaries.
        tolerance_seconds: By so much the gap between two centres is widened at both sides.
    """
    boundaries_B = np.unique([edge for segment in segments for edge in segment[:2]])
    first_P = np.searchsorted(boundaries_B, centres_S[:-1] - tolerance_seconds, side="right")
    end_P = np.searchsorted(boundaries_B, centres_S[1:] + tolerance_seconds, side="right")
    inside = (boundaries_B > centres_S[0]) & (boundaries_B <= centres_S[-1])
    numbers = np.concatenate([[0], np.cumsum(inside)])
    return numbers[end_P] > numbers[first_P]


def check_features(store: FeatureStore) -> None:
    """Raise UsageError where the rows of a store are class probabilities instead of features."""
    if any(spec.prediction is not None for spec in store.specs):
        raise UsageError(
            f"this needs a store of snippet features, but {str(store.path)!r} holds class "
            "probabilities"
        )


def _report(pairs: NeighbourPairs, tolerance_seconds: float, seed: int) -> BoundaryReport:
    num_at = int(pairs.at_P.sum())
    return BoundaryReport(
        auc=roc_auc(pairs.difference_P, pairs.at_P),
        interval=_interval(pairs, seed),
        num_at=num_at,
        num_away=len(pairs.at_P) - num_at,
        median_at=float(np.median(pairs.difference_P[pairs.at_P])),
        median_away=float(np.median(pairs.difference_P[~pairs.at_P])),
        num_videos=len(pairs.video_ids),
        absent=pairs.absent,
        tolerance_seconds=tolerance_seconds,
    )


def _interval(pairs: NeighbourPairs, seed: int) -> tuple[float, float] | None:
    """Return the 2.5th and 97.5th percentile of the AUC over videos drawn with replacement."""
    num_videos = len(pairs.video_ids)
    if num_videos < LEAST_VIDEOS:
        return None
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    _, place_P = np.unique(pairs.difference_P, return_inverse=True)
    even_V = np.full(num_videos, 1 / num_videos)
    values = []
    for _ in range(NUM_RESAMPLES):
        weights_P = rng.multinomial(num_videos, even_V)[pairs.video_P]
        values.append(_auc_of_places(place_P, pairs.at_P, weights_P))
    drawn = [value for value in values if not math.isnan(value)]
    low, high = np.percentile(drawn, [2.5, 97.5]) if drawn else (math.nan, math.nan)
    return (float(low), float(high)) if drawn else None


def _auc_of_places(
    place_P: np.ndarray, positive_P: np.ndarray, weights_P: np.ndarray | None
) -> float:
    """Return `roc_auc` of scores given as their places among the distinct scores."""
    weights_P = np.ones(len(place_P)) if weights_P is None else weights_P
    number = int(place_P.max(initial=0)) + 1
    positive_U = np.bincount(place_P, weights_P * positive_P, number)
    negative_U = np.bincount(place_P, weights_P * ~positive_P, number)
    below_U = np.cumsum(negative_U) - negative_U / 2
    total = positive_U.sum() * negative_U.sum()
    return float(positive_U @ below_U / total) if total else math.nan


def _draw(axes: Axes, title: str, pairs: NeighbourPairs, report: BoundaryReport) -> None:
    style_axes(
        axes,
        title=title,
        x_label="difference of neighbouring snippets, 1 - cos (logarithmic)",
        y_label="share of the pairs [%]",
    )
    shown_P = np.maximum(pairs.difference_P, LEAST_SHOWN)
    low, high = float(np.quantile(shown_P, 1 - SHOWN_SHARE)), float(shown_P.max())
    edges = np.geomspace(low / 1.001, high * 1.001, NUM_BINS + 1)
    sides = (
        (~pairs.at_P, BLUE, f"{report.num_away:,} away from boundaries", report.median_away),
        (pairs.at_P, RED, f"{report.num_at:,} at boundaries", report.median_at),
    )
    for chosen_P, colour, name, median in sides:
        counts, _ = np.histogram(np.maximum(shown_P[chosen_P], low), edges)
        shares, label = 100 * counts / chosen_P.sum(), f"{name}, median {median:.2g}"
        axes.stairs(shares, edges, fill=True, color=colour, alpha=0.22, label=label)
        axes.stairs(shares, edges, color=colour, linewidth=1.4)
        axes.axvline(max(median, low), color=colour, linewidth=1.2, linestyle=(0, (3, 3)))
    axes.set(xscale="log", xlim=(edges[0], edges[-1]), ylim=(0, None))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", color=LINE, length=2)
