"""Per-frame detection: every frame of a clip is scored against its own soft label.

Source: SSDet (Kahatapitiya et al., AAAI 2023), training objective: the cross-entropy of a frame is
the mixture `sum_c w[c, t] CE(logits[t], c)`, averaged over frames; frozen frames are background.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from manifests import ShardError
from synth import LabelTrack, ShardSample

from ..backbones import Backbone
from .manifold import FEWEST_FRAMES, ManifoldOperation, draw_mixture, mix_labels, mix_maps
from .objective import Objective
from .scores import frame_scores


def dense_weights(track: LabelTrack, num_classes: int, with_background: bool) -> np.ndarray:
    """Return the track as float32 `(K, T)`, or `(K + 1, T)` with background in the last row."""
    dense_CT = np.zeros((num_classes + with_background, track.num_frames), np.float32)
    dense_CT[track.class_ids] = track.weights_CT
    if with_background:
        dense_CT[-1] = track.background_T
    return dense_CT


def mixture_cross_entropy(logits_NCT: torch.Tensor, weights_NCT: torch.Tensor) -> torch.Tensor:
    """Return `sum_c w[c, t] CE(logits[t], c)` averaged over the frames of all clips."""
    return -(weights_NCT * logits_NCT.float().log_softmax(1)).sum(1).mean()


def binary_cross_entropy(logits_NCT: torch.Tensor, weights_NCT: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of each class by itself, averaged over classes and frames."""
    return torch.nn.functional.binary_cross_entropy_with_logits(logits_NCT.float(), weights_NCT)


@dataclass(frozen=True, slots=True)
class DetectionArguments:
    """What training does to feature maps inside the network (SSDet's manifold ablation).

    Attributes:
        manifold: Each training step applies one of these, drawn, to the map that enters a random
            stage of the backbone, and to the labels; none: never. For shards of plain clips.
        min_overlap: Shortest overlap of two clips, as a share of the frames.
        delta: Half-width of the spatial ramp of CutMix, as a share of the map's width.
    """

    manifold: tuple[ManifoldOperation, ...] = ()
    min_overlap: float = 0.25
    delta: float = 1 / 16

    def __post_init__(self) -> None:
        for name in ("min_overlap", "delta"):
            if not 0 <= getattr(self, name) <= 0.5:
                raise ValueError(f"{name} must be in [0, 0.5], got {getattr(self, name)}")

    @property
    def min_frames(self) -> int:
        """Frames that a clip must have, so that there is something to draw."""
        return max((FEWEST_FRAMES[operation] for operation in self.manifold), default=1)


LOSSES = {"cross_entropy": mixture_cross_entropy, "bce": binary_cross_entropy}


class Detection(Objective):
    """Frame-level loss: `cross_entropy` with a background output, or `bce` without one."""

    losses = tuple(LOSSES)
    Arguments = DetectionArguments
    arguments: DetectionArguments

    def __init__(self, num_classes: int, loss: str | None = None, arguments: Any = None) -> None:
        super().__init__(num_classes, loss, arguments)
        self.with_background = self.loss == "cross_entropy"
        self.num_outputs = num_classes + self.with_background

    @classmethod
    def check(cls, arguments: DetectionArguments, batch_size: int) -> None:
        """Raise ValueError where the manifold variant would find no partners."""
        if arguments.manifold and batch_size < 2:
            raise ValueError(
                f"manifold mixes the samples of a batch: batch_size must be >= 2, got {batch_size}"
            )

    @classmethod
    def check_backbone(
        cls, arguments: DetectionArguments, backbone: type[Backbone], compiled: bool = False
    ) -> None:
        """Raise ValueError where the manifold variant has no map with all frames to work on."""
        if arguments.manifold and not backbone.stages:
            raise ValueError(
                f"manifold needs a backbone whose stages give maps of all frames, but "
                f"{backbone.__name__} has none: choose x3d, or leave manifold out"
            )
        if arguments.manifold and compiled:
            raise ValueError("manifold changes another stage at every step: set compile = false")

    def bind(self, backbone: Backbone, teachers: Sequence[Backbone] = ()) -> None:
        """Raise ValueError unless the backbone has what the settings need."""
        self.check_backbone(self.arguments, type(backbone))

    def target(self, sample: ShardSample) -> np.ndarray:
        """Return the soft labels of all frames, `(num_outputs, T)`.

        Raises:
            ShardError: Frames may show several classes at once, which one softmax cannot say.
        """
        track = sample.track()
        if self.with_background and not track.exclusive:
            raise ShardError(
                f"cross_entropy needs labels that share a frame's weight, but several classes may "
                f"be on a frame of sample {sample.key}: choose objective 'frames', or loss 'bce'"
            )
        return dense_weights(track, self.num_classes, self.with_background)

    def forward(
        self, backbone: Backbone, clips_NCTHW: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss averaged over frames."""
        if self.training and self.arguments.manifold:
            logits_NCT, targets = self._mix_inside(backbone, clips_NCTHW, targets)
        else:
            logits_NCT = backbone(clips_NCTHW, per_frame=True)
        return LOSSES[self.loss](logits_NCT, targets)

    def _mix_inside(
        self, backbone: Backbone, clips_NCTHW: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and labels after one drawn operation on the maps entering one stage."""
        seed = int(torch.randint(2**62, ()))  # the loop seeds torch at every step
        rng = np.random.default_rng(np.random.SeedSequence(seed))
        operations, stages = self.arguments.manifold, backbone.stages
        operation = operations[rng.integers(len(operations))]
        stage = backbone.get_submodule(stages[rng.integers(len(stages))])
        labels: list[torch.Tensor] = []

        def mix(stage: nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
            (maps_NCTHW,) = inputs
            shape = (len(maps_NCTHW), maps_NCTHW.shape[2], maps_NCTHW.shape[4])
            mixture = draw_mixture(
                rng, operation, shape, self.arguments.min_overlap, self.arguments.delta
            )
            labels.append(mix_labels(targets, mixture, self.with_background))
            return mix_maps(maps_NCTHW, mixture)

        with stage.register_forward_pre_hook(mix):
            logits_NCT = backbone(clips_NCTHW, per_frame=True)
        (mixed_targets,) = labels
        return logits_NCT, mixed_targets

    def predict(self, backbone: Backbone, clips_NCTHW: torch.Tensor) -> torch.Tensor:
        """Return per-frame probabilities `(N, num_outputs, T)`."""
        logits_NCT = backbone(clips_NCTHW, per_frame=True).float()
        return logits_NCT.softmax(1) if self.with_background else logits_NCT.sigmoid()

    def score(self, predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return the per-frame mAP over the classes; background is none."""
        kept = slice(self.num_classes)
        return frame_scores(predictions[:, kept], targets[:, kept])
