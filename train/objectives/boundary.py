"""Boundary classification: which of BSP's four classes of boundary a clip was made with.

Source: BSP (Xu et al., "Boundary-sensitive Pre-training for Temporal Localization in Videos", ICCV
2021), section 3.2: the four syntheses are the four classes of a classification task, trained with
the cross-entropy.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from manifests import ShardError
from synth import BOUNDARY_CLASSES, ShardSample

from .classification import Classification
from .scores import accuracy_scores


def boundary_class(sample: ShardSample) -> int | None:
    """Return the boundary class of a sample, or None if it was made without one.

    Raises:
        ShardError: What stands there is no boundary class.
    """
    found = sample.meta.get("boundary_class")
    if found is not None and (type(found) is not int or not 0 <= found < len(BOUNDARY_CLASSES)):
        raise ShardError(
            f"boundary_class must be a whole number in [0, {len(BOUNDARY_CLASSES) - 1}], got "
            f"{found!r} in sample {sample.key}"
        )
    return found


def boundary_target(sample: ShardSample) -> np.ndarray:
    """Return float32 `(4,)`: 1 at the boundary class; all zero if the sample has none."""
    target = np.zeros(len(BOUNDARY_CLASSES), np.float32)
    found = boundary_class(sample)
    if found is not None:
        target[found] = 1
    return target


def boundary_scores(predictions_N4: np.ndarray, targets_N4: np.ndarray) -> dict[str, float]:
    """Return the accuracy, what the best constant answer would get, and each class's accuracy."""
    scores = accuracy_scores(predictions_N4, targets_N4)
    answers_N = predictions_N4.argmax(1)
    for number, name in enumerate(BOUNDARY_CLASSES):
        own_N = targets_N4[:, number] > 0
        if own_N.any():
            scores[f"accuracy_{name}"] = float((answers_N[own_N] == number).mean())
    return scores


class Boundary(Classification):
    """Classification of the clip into four: diff-class, same-class, diff-speed, same-speed."""

    reads_classes = False
    wants = "samples with a boundary class (kind 'boundary')"

    def __init__(self, num_classes: int, loss: str | None = None, arguments: Any = None) -> None:
        super().__init__(num_classes, loss, arguments)
        self.num_outputs = len(BOUNDARY_CLASSES)

    def output_names(self, classes: Sequence[str]) -> list[str]:
        """Return the names of the four boundary classes."""
        return list(BOUNDARY_CLASSES)

    @classmethod
    def accepts(cls, sample: ShardSample) -> bool:
        """Return whether a sample has a boundary class."""
        return super().accepts(sample) and boundary_class(sample) is not None

    def target(self, sample: ShardSample) -> np.ndarray:
        """Return the boundary class as `(4,)`, one of them 1.

        Raises:
            ShardError: The sample has none, or what stands there is no boundary class.
        """
        if boundary_class(sample) is None:
            raise ShardError(f"sample {sample.key} has no boundary_class")
        return boundary_target(sample)

    def score(self, predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return the accuracy over all classes, its chance, and the accuracy of each class."""
        return boundary_scores(predictions, targets)
