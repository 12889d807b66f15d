"""Pseudo Action Localization: find the same action in two videos it was pasted into.

Source: PAL (Zhang et al., "Unsupervised Pre-training for Temporal Action Localization Tasks", CVPR
2022), sections 3.2 and 4.1; the loss, the momentum encoder and the queue are those of MoCo (He et
al., CVPR 2020), the projection that of MoCo v2 (Chen et al., 2020).
"""

import copy
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from manifests import ShardError
from synth import ShardSample

from ..backbones import Backbone
from .contrast import (
    ContrastArguments,
    KeyQueue,
    info_nce,
    momentum_update,
    region_features,
    retrieval_scores,
)
from .objective import Gather, Objective


@dataclass(frozen=True)
class PalArguments(ContrastArguments):
    """How videos are cut and encoded, and what momentum contrast needs to know."""

    num_clips: int = 8
    """Clips `J` of a composed video."""
    temporal_layers: int = 2
    """Convolutions of the temporal head, 0 to 3."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_clips < 3:  # background, action, background
            raise ValueError(f"num_clips must be >= 3, got {self.num_clips}")
        if not 0 <= self.temporal_layers <= 3:
            raise ValueError(f"temporal_layers must be 0, 1, 2 or 3, got {self.temporal_layers}")


class ClipHead(nn.Module):
    """Projection of every clip by itself, then the temporal head along the clips of a video.

    The projection has two layers with the features' width between them, as in MoCo v2. The
    convolutions have kernel 3 and zeros beyond both ends; ReLU stands between them and not after
    the last, as in the projection: a cosine may then be negative. Each starts as the identity.

    Args:
        feature_dim: Length of the backbone's feature vector.
        projection_dim: Length `D` of a clip's vector.
        num_layers: Convolutions.
    """

    def __init__(self, feature_dim: int, projection_dim: int, num_layers: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(
            nn.Linear(feature_dim, feature_dim),
            nn.ReLU(),
            nn.Linear(feature_dim, projection_dim),
        )
        self.temporal = nn.Sequential()
        for index in range(num_layers):
            if index:
                self.temporal.append(nn.ReLU())
            self.temporal.append(nn.Conv1d(projection_dim, projection_dim, 3, padding=1))
        for name, weight in self.named_parameters():
            if not name.endswith("weight"):
                nn.init.zeros_(weight)  # else vectors differ little from one another at first
            elif name.startswith("temporal"):
                nn.init.dirac_(weight)  # neighbours are mixed in only once that helps
            else:
                nn.init.kaiming_normal_(weight)

    def forward(self, features_NJF: torch.Tensor) -> torch.Tensor:
        """Return float32 unit vectors `(N, J, D)` of the clips."""
        projected_NDJ = self.projection(features_NJF).movedim(1, 2)
        vectors_NJD = self.temporal(projected_NDJ).movedim(1, 2)
        return nn.functional.normalize(vectors_NJD.float(), dim=2)


class Pal(Objective):
    """InfoNCE between the regions where two videos of a pair show the same action.

    What the paper leaves open: a clip's vector has length 1 before the mean over the region, and
    the mean is scaled to length 1 again. Places of the queue that no key has filled yet do not
    count, nor do keys of the query's own video: with several pairs per video and pass some are
    there, and they are no wrong answers. The norms of the momentum encoder use the statistics of
    the batch of keys and keep their own running ones, as MoCo's do; running statistics of the query
    encoder do not fit weights that lag behind it.
    """

    losses = ("info_nce",)
    reads_classes = False
    wants = "pairs of composed videos (kind 'pal')"
    kind: ClassVar[str] = "pal"
    Arguments: ClassVar[type[Any]] = PalArguments
    num_outputs = 0

    def __init__(self, num_classes: int, loss: str | None = None, arguments: Any = None) -> None:
        super().__init__(num_classes, loss, arguments)
        self.num_clips = self.arguments.num_clips

    def output_names(self, classes: Sequence[str]) -> list[str]:
        """Return nothing: the network has no class layer."""
        return []

    @classmethod
    def accepts(cls, sample: ShardSample) -> bool:
        """Return whether a sample is a pair of the right kind."""
        return sample.meta.get("kind") == cls.kind

    @classmethod
    def check(cls, arguments: ContrastArguments, batch_size: int) -> None:
        """Raise ValueError unless the queue is filled by whole batches."""
        if arguments.queue % batch_size:
            raise ValueError(
                f"queue must be a multiple of batch_size, got {arguments.queue} for {batch_size}"
            )

    def bind(self, backbone: Backbone, teachers: Sequence[Backbone] = ()) -> None:
        """Build the head, the queue, and the momentum encoder as a copy of backbone and head."""
        settings = self.arguments
        dim = settings.projection_dim
        self.head = ClipHead(backbone.feature_dim, dim, settings.temporal_layers)
        self.key_backbone = copy.deepcopy(backbone).requires_grad_(False)
        self.key_head = copy.deepcopy(self.head).requires_grad_(False)
        self.queue = KeyQueue(settings.queue, dim)

    def target(self, sample: ShardSample) -> np.ndarray:
        """Return first and last clip of both regions, from 1, and a number for the action video.

        `[s_query, e_query, s_key, e_key, video]`; the number only tells videos apart.

        Raises:
            ShardError: No such regions, or clips of another length.
        """
        s, e, clip_len = (sample.meta.get(name) for name in ("s", "e", "clip_len"))
        if clip_len is not None and sample.num_frames != self.num_clips * clip_len:
            raise ShardError(
                f"num_clips must be that of the samples, got {self.num_clips} for sample "
                f"{sample.key} of {sample.num_frames} frames in clips of {clip_len}"
            )
        if not _are_regions(s, e, self.num_clips):
            raise ShardError(
                f"sample {sample.key} needs a region with 1 <= s <= e <= {self.num_clips} in both "
                f"videos, got s = {s!r} and e = {e!r}"
            )
        regions = np.array([s, e]).T.ravel()
        return np.array([*regions, video_number(sample)], np.float32)

    def forward(
        self, backbone: Backbone, clips_NCTHW: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Return the InfoNCE of the queries' regions against the keys' and the queue."""
        queries_NJD = self._encode(backbone, self.head, clips_NCTHW[::2])
        queries_ND = region_features(queries_NJD, targets[:, 0], targets[:, 1])
        with torch.no_grad():
            keys_NJD = self._encode(self.key_backbone, self.key_head, clips_NCTHW[1::2])
            keys_ND = region_features(keys_NJD, targets[:, 2], targets[:, 3])
        videos_N = targets[:, 4].long()
        if self.training:
            self._new_keys = keys_ND, videos_N
        negatives_QD, others_Q = self.queue.keys_QD, self.queue.videos_Q
        usable_Q = self.queue.filled_Q
        if self.arguments.batch_negatives:
            negatives_QD, others_Q = (
                torch.cat([negatives_QD, keys_ND]),
                torch.cat([others_Q, videos_N]),
            )
            usable_Q = torch.cat([usable_Q, torch.ones_like(videos_N, dtype=torch.bool)])
        usable_NQ = usable_Q & (videos_N[:, None] != others_Q)
        return info_nce(queries_ND, keys_ND, negatives_QD, self.arguments.temperature, usable_NQ)

    def predict(self, backbone: Backbone, clips_NCTHW: torch.Tensor) -> torch.Tensor:
        """Return the unit vectors of all clips, `(N, 2, J, D)`: query, key.

        Both go through the trained network: it is what a run leaves behind, and early on the
        momentum encoder is still close to the initial weights.
        """
        return self._encode(backbone, self.head, clips_NCTHW).unflatten(0, (-1, 2))

    def score(self, predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return how often a query's region is nearest to its own key's among 64, beside chance."""
        vectors, regions = torch.from_numpy(predictions), torch.from_numpy(targets)
        queries_ND = region_features(vectors[:, 0], regions[:, 0], regions[:, 1])
        keys_ND = region_features(vectors[:, 1], regions[:, 2], regions[:, 3])
        return retrieval_scores(queries_ND.numpy(), keys_ND.numpy(), targets[:, 4])

    def after_step(self, backbone: Backbone, gather: Gather) -> None:
        """Move the momentum encoder, and put the keys of all workers into the queue."""
        momentum_update(self.key_backbone, backbone, self.arguments.momentum)
        momentum_update(self.key_head, self.head, self.arguments.momentum)
        self.queue.enqueue(*map(gather, self._new_keys))

    def _encode(
        self, backbone: Backbone, head: nn.Module, videos_NCTHW: torch.Tensor
    ) -> torch.Tensor:
        """Return the unit vectors `(N, J, D)` of the clips of whole videos."""
        features = backbone.features(split_clips(videos_NCTHW, self.num_clips))
        return head(features.unflatten(0, (-1, self.num_clips)))


def split_clips(videos_NCTHW: torch.Tensor, num_clips: int) -> torch.Tensor:
    """Cut each video into clips of equal length: `(N * J, C, T / J, H, W)`, channels last."""
    clips_NJTHWC = videos_NCTHW.movedim(1, -1).unflatten(1, (num_clips, -1))
    return clips_NJTHWC.flatten(0, 1).movedim(-1, 1)


def video_number(sample: ShardSample) -> int:
    """Return a number below 2^24, exact in float32, for the video that both views show.

    A sample that does not say how it was made counts as a video of its own.
    """
    node: Any = sample.meta.get("tree")
    sources: Any = sample.meta.get("sources")
    try:
        while node["op"] != "clip":
            node = node["inputs"][1 if node["op"] == "paste" else 0]  # of a paste, the action
        video_id = str(sources[node["source"]]["video_id"])
    except (KeyError, IndexError, TypeError):
        video_id = sample.key
    return zlib.crc32(video_id.encode()) % 2**24


def _are_regions(s: Any, e: Any, num_clips: int) -> bool:
    """Return whether both are lists of two whole numbers with `1 <= s <= e <= num_clips`."""
    if not all(isinstance(x, list) and [type(clip) for clip in x] == [int, int] for x in (s, e)):
        return False
    return all(1 <= first <= last <= num_clips for first, last in zip(s, e, strict=True))
