"""Instance discrimination on single clips: the unsupervised baseline that PAL compares with.

Source: MoCo (He et al., CVPR 2020), MoCo v2 (Chen et al., "Improved Baselines with Momentum
Contrastive Learning", 2020).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from synth import ShardSample

from .contrast import ContrastArguments
from .pal import Pal, video_number


@dataclass(frozen=True)
class MocoArguments(ContrastArguments):
    """What momentum contrast needs to know; queue and temperature default to PAL's."""

    num_clips: ClassVar[int] = 1
    temporal_layers: ClassVar[int] = 0


class Moco(Pal):
    """PAL with one clip a video, so that the clip is the region, and no temporal head."""

    wants = "pairs of single clips (kind 'clip_pair')"
    kind = "clip_pair"
    Arguments = MocoArguments

    def target(self, sample: ShardSample) -> np.ndarray:
        """Return the regions, the only clip of each view, and a number for the video."""
        return np.array([1, 1, 1, 1, video_number(sample)], np.float32)
