"""Which class a proposal is of: a linear classifier of our own, or scores of videos from outside.

The papers take the classes from classifiers of whole videos that others trained: a file of class
scores for ActivityNet ("cuhk"), a matrix for THUMOS (UntrimmedNet).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manifests import UsageError

from ..heads import LinearHead, train_linear


def segment_means(
    feats_SD: np.ndarray, times_S3: np.ndarray, segments_N2: np.ndarray
) -> np.ndarray:
    """Return the mean row of each segment, float64 `(N, D)`; the nearest row where it holds none.

    Args:
        feats_SD: Rows of one video.
        times_S3: Start, centre and end of each in seconds; a row lies in a segment by its centre.
        segments_N2: Start and end in seconds.
    """
    centres = times_S3[:, 1]
    first_N, end_N = np.searchsorted(centres, np.asarray(segments_N2)).T
    middle_N = np.mean(segments_N2, axis=1)
    nearest_N = np.abs(centres[None] - middle_N[:, None]).argmin(axis=1)
    first_N = np.where(end_N > first_N, first_N, nearest_N)
    end_N = np.where(end_N > first_N, end_N, first_N + 1)
    sums_SD = np.concatenate(
        [np.zeros((1, feats_SD.shape[1])), np.cumsum(feats_SD, axis=0, dtype=np.float64)]
    )
    return (sums_SD[end_N] - sums_SD[first_N]) / (end_N - first_N)[:, None]


@dataclass(frozen=True, slots=True, eq=False)
class ProposalClassifier:
    """A linear head on the mean features of a segment."""

    head: LinearHead

    def scores(
        self, feats_SD: np.ndarray, times_S3: np.ndarray, segments_N2: np.ndarray
    ) -> np.ndarray:
        """Return the probability of every class of each segment, float64 `(N, C)`."""
        return self.head.predict(segment_means(feats_SD, times_S3, segments_N2))


def train_classifier(
    videos: Sequence[tuple[np.ndarray, np.ndarray, Sequence[tuple[float, float, int]]]],
    num_classes: int,
) -> ProposalClassifier:
    """Train on the annotated segments: which class, given that it is an action.

    Args:
        videos: Rows, times and annotated segments (start, end, class index) of each.
        num_classes: `C`.
    """
    rows, labels = [], []
    for feats_SD, times_S3, segments in videos:
        if segments:
            columns = np.array([segment[:2] for segment in segments])
            rows.append(segment_means(feats_SD, times_S3, columns))
            labels += [class_index for _, _, class_index in segments]
    positive_NC = np.array(labels)[:, None] == np.arange(num_classes)
    return ProposalClassifier(train_linear(np.concatenate(rows), positive_NC))


def read_class_scores(path: Path | str, classes: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Read scores of videos, `{"results": {id: [score, ...]}, "class": [name, ...]}`.

    Source: `cuhk_val_simp_share.json`, which BSN, BMN, G-TAD and ActionFormer take.

    Args:
        path: Of the JSON file.
        classes: Names in id order; the file must have them all.

    Returns:
        Video id -> float64 `(C,)` in the order of `classes`.

    Raises:
        UsageError: There is no such file, it has another form, or it lacks a class.
    """
    try:
        content = json.loads(Path(path).read_bytes())
        names = [str(name) for name in content["class"]]
        scores = {video: np.array(row, np.float64) for video, row in content["results"].items()}
    except OSError as err:
        raise UsageError(f"the class scores {str(path)!r} cannot be read: {err.strerror}") from err
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as err:
        raise UsageError(
            f"class scores must be an object with 'results' (numbers by video id) and 'class' "
            f"(names), but {str(path)!r} is not"
        ) from err
    lacking = [name for name in classes if name not in names]
    if lacking:
        raise UsageError(f"the class scores {str(path)!r} lack the class {lacking[0]!r}")
    for video, row in scores.items():
        if row.shape != (len(names),) or not np.isfinite(row).all():
            raise UsageError(
                f"the class scores of {video!r} must be {len(names)} finite numbers ({str(path)!r})"
            )
    columns = [names.index(name) for name in classes]
    return {video: row[columns] for video, row in scores.items()}
