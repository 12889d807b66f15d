"""Feature distillation: one backbone learns the features of two frozen ones, and the classes.

Source: BSP (Xu et al., ICCV 2021), integration with an action-classification encoder, "feature
distillation": `||f_v(x) - h1(f_s(x))||^2 + ||f_b(x) - h2(f_s(x))||^2` plus the cross-entropy, where
`f_v` is the classification encoder, `f_b` the boundary-sensitive one, `f_s` the student, and `h1`,
`h2` are pointwise projections.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import nn

from synth import ShardSample

from ..backbones import Backbone
from .classification import clip_distribution, soft_cross_entropy
from .objective import Objective, alone
from .scores import accuracy_scores


@dataclass(frozen=True, slots=True)
class DistillationArguments:
    """How the terms add up.

    Attributes:
        feature_weight: Weight of the two squared distances; 1 is the paper's formula, and
            `1 / feature_dim` makes them means over the features.
    """

    feature_weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.feature_weight < float("inf"):
            raise ValueError(f"feature_weight must be >= 0, got {self.feature_weight}")


def squared_distance(projected_ND: torch.Tensor, taught_ND: torch.Tensor) -> torch.Tensor:
    """Return `||f(x) - h(f_s(x))||^2`, a sum over the features, averaged over the clips."""
    return (taught_ND.float() - projected_ND.float()).square().sum(1).mean()


def class_scores(backbone: Backbone, features_ND: torch.Tensor) -> torch.Tensor:
    """Apply the backbone's class layer, linear or a pointwise convolution, to clip features.

    One pass then gives features and scores; what is dropped in the backbone's own `forward` stays.
    """
    layer = cast(nn.Linear, backbone.get_submodule(backbone.classifier))
    return nn.functional.linear(features_ND, layer.weight.flatten(1), layer.bias)


class Distillation(Objective):
    """Two squared feature distances and the cross-entropy of the classes.

    The teachers are no part of the module: they have no gradient, no place in a checkpoint, and
    stay in evaluation mode.
    """

    losses = ("squared_distance",)
    teachers: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "classification": ("classification", "detection"),
        "boundary": ("boundary", "boundary_regression", "two_head"),
    }
    Arguments = DistillationArguments

    def __init__(self, num_classes: int, loss: str | None = None, arguments: Any = None) -> None:
        super().__init__(num_classes, loss, arguments)
        self.num_outputs = num_classes

    def bind(self, backbone: Backbone, teachers: Sequence[Backbone] = ()) -> None:
        """Build `h1` and `h2`, and freeze the teachers."""
        self.projections = nn.ModuleList(
            nn.Linear(backbone.feature_dim, teacher.feature_dim) for teacher in teachers
        )
        # In a tuple, so that torch does not count them among the submodules.
        self._frozen = tuple(teacher.eval().requires_grad_(False) for teacher in teachers)

    def target(self, sample: ShardSample) -> np.ndarray:
        """Return the class distribution `(K,)` of the clip."""
        return clip_distribution(sample.track(), self.num_classes)

    def forward(
        self, backbone: Backbone, clips_NCTHW: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Return both distances, weighted, plus the cross-entropy."""
        features_ND = backbone.features(clips_NCTHW)
        distances = sum(
            squared_distance(projected, taught)
            for projected, taught in self._pairs(features_ND, clips_NCTHW)
        )
        average = self.average if self.training else alone
        cross_entropy = soft_cross_entropy(class_scores(backbone, features_ND), targets, average)
        return self.arguments.feature_weight * distances + cross_entropy

    def predict(self, backbone: Backbone, clips_NCTHW: torch.Tensor) -> torch.Tensor:
        """Return `(N, K + 2)`: class probabilities, then the cosine with each teacher."""
        features_ND = backbone.features(clips_NCTHW)
        cosines = [
            nn.functional.cosine_similarity(projected.float(), taught.float(), dim=1)
            for projected, taught in self._pairs(features_ND, clips_NCTHW)
        ]
        probabilities_NK = class_scores(backbone, features_ND).float().softmax(1)
        return torch.cat([probabilities_NK, torch.stack(cosines, 1)], 1)

    def score(self, predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return the accuracy, and the mean cosine of projected features with each teacher's."""
        probabilities, cosines = np.split(predictions, [self.num_classes], axis=1)
        means = zip(self.teachers, cosines.mean(0), strict=True)
        named = {f"cosine_{role}": float(mean) for role, mean in means}
        return {**accuracy_scores(probabilities, targets), **named}

    def _pairs(
        self, features_ND: torch.Tensor, clips_NCTHW: torch.Tensor
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return, for each teacher, the student's projected features and the teacher's own."""
        with torch.no_grad():
            taught = [teacher.features(clips_NCTHW) for teacher in self._frozen]
        projected = [projection(features_ND) for projection in self.projections]
        return list(zip(projected, taught, strict=True))
