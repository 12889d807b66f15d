"""The detection heads by name: network, recipe, what it sees of a video, and its post-processing.

Source: Xu et al., "G-TAD", CVPR 2020; Lin et al., "BMN", ICCV 2019; the sizes and settings of
their public programs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from manifests import UsageError

from ..heads import (
    BMN,
    BMN_RECIPE,
    GTAD,
    GTAD_ANET,
    GTAD_ANET_RECIPE,
    GTAD_THUMOS,
    GTAD_THUMOS_RECIPE,
    BMNArguments,
    DetectorRecipe,
    GTADArguments,
    duration_cells,
    end_cells,
)
from .detection_windows import DetectionWindow, bsn_window, linear_window, sliding_windows
from .postprocessing import (
    Kept,
    Proposals,
    decode_bmn,
    decode_gtad_anet,
    decode_gtad_thumos,
    soft_nms_bmn,
    soft_nms_gtad,
)

Outputs = tuple[np.ndarray, np.ndarray, np.ndarray]  # map, starts, ends of one window
LONGEST_GTAD_BINS = 60  # the THUMOS program drops 300 frames and more, at 5 frames a bin
NUM_BMN_PROPOSALS = 100  # of the 101 that its suppression collects


@dataclass(frozen=True, slots=True)
class DetectorSizes:
    """How large a head is built.

    Attributes:
        temporal_scale: Bins of a window, or that a video is rescaled to.
        max_duration: Bins of the longest segment; BMN has no such limit.
        hidden_dim: Channels of the first layers; those of the map follow at the paper's ratios.
    """

    temporal_scale: int
    max_duration: int
    hidden_dim: int = 256


@dataclass(frozen=True, slots=True)
class DetectionHead:
    """One tool, whole.

    Attributes:
        sizes: Of the paper.
        recipe: Of the paper.
        build: Network of a feature length and sizes.
        cells: Start and end in bins of the segments of the map, by sizes.
        cut: Windows of a video, from its id, rows, times and the bins of a window.
        select: Proposals of a video in seconds, best first, from its windows, what the network
            said of them, and the end of the video in seconds.
    """

    sizes: DetectorSizes
    recipe: DetectorRecipe
    build: Callable[[int, DetectorSizes], nn.Module]
    cells: Callable[[DetectorSizes], np.ndarray]
    cut: Callable[[str, np.ndarray, np.ndarray, int], list[DetectionWindow]]
    select: Callable[[Sequence[DetectionWindow], Sequence[Outputs], float], Proposals]

    def resize(
        self,
        temporal_scale: int | None = None,
        max_duration: int | None = None,
        hidden_dim: int | None = None,
    ) -> DetectorSizes:
        """Return the sizes of the paper with some of them changed, durations in proportion."""
        paper = self.sizes
        scale = paper.temporal_scale if temporal_scale is None else temporal_scale
        share = max(round(paper.max_duration * scale / paper.temporal_scale), 1)
        return DetectorSizes(
            scale,
            share if max_duration is None else max_duration,
            paper.hidden_dim if hidden_dim is None else hidden_dim,
        )

    def network(self, feature_dim: int, sizes: DetectorSizes) -> nn.Module:
        """Build the network.

        Raises:
            UsageError: It cannot be built for these features or sizes.
        """
        try:
            return self.build(feature_dim, sizes)
        except ValueError as err:
            advice = (
                "; extract with a backbone of another width, or lay a second store beside this one"
                if "feature_dim" in str(err)
                else ""
            )
            raise UsageError(f"{err}{advice}") from err


def _build_gtad(paper: GTADArguments) -> Callable[[int, DetectorSizes], nn.Module]:
    def build(feature_dim: int, sizes: DetectorSizes) -> nn.Module:
        arguments = GTADArguments(
            feature_dim,
            sizes.temporal_scale,
            sizes.max_duration,
            paper.inner_bins,
            paper.context_bins,
            paper.kernel_size,
            sizes.hidden_dim,
            2 * sizes.hidden_dim,
            sizes.hidden_dim // 2,
        )
        return GTAD(arguments)

    return build


def _build_bmn(feature_dim: int, sizes: DetectorSizes) -> nn.Module:
    hidden = sizes.hidden_dim
    return BMN(
        BMNArguments(
            feature_dim,
            sizes.temporal_scale,
            hidden_dim=hidden,
            map_hidden_dim=2 * hidden,
            map_dim=hidden // 2,
        )
    )


def _duration_cells(sizes: DetectorSizes) -> np.ndarray:
    return duration_cells(sizes.max_duration, sizes.temporal_scale)


def _end_cells(sizes: DetectorSizes) -> np.ndarray:
    return end_cells(sizes.temporal_scale)


def _half_overlapping(
    video_id: str, feats_SD: np.ndarray, times_S3: np.ndarray, num_bins: int
) -> list[DetectionWindow]:
    return sliding_windows(video_id, feats_SD, times_S3, num_bins, max(num_bins // 2, 1))


def _one_linear(
    video_id: str, feats_SD: np.ndarray, times_S3: np.ndarray, num_bins: int
) -> list[DetectionWindow]:
    return [linear_window(video_id, feats_SD, times_S3, num_bins)]


def _one_bsn(
    video_id: str, feats_SD: np.ndarray, times_S3: np.ndarray, num_bins: int
) -> list[DetectionWindow]:
    return [bsn_window(video_id, feats_SD, times_S3, num_bins)]


def _in_seconds(
    window: DetectionWindow, found: Proposals, end_seconds: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return segments in bins, scores, and segments in seconds, cut to the video.

    What lies outside, in the padding of a short video, is left out.
    """
    seconds_N2 = np.clip(window.seconds_of(found.segments_N2), 0.0, end_seconds)
    inside_N = seconds_N2[:, 0] < seconds_N2[:, 1]
    return found.segments_N2[inside_N], found.scores_N[inside_N], seconds_N2[inside_N]


def _select_gtad_thumos(
    windows: Sequence[DetectionWindow], outputs: Sequence[Outputs], end_seconds: float
) -> Proposals:
    """Suppress in every window, then in the union of what is left, in bins of the video."""
    bins, seconds, scores = [], [], []
    for window, (map_2DT, _, _) in zip(windows, outputs, strict=True):
        found = decode_gtad_thumos(map_2DT)
        bins_N2, scores_N, seconds_N2 = _in_seconds(window, found, end_seconds)
        index_K, scores_K = _suppress_thumos(bins_N2, scores_N)
        bins.append(bins_N2[index_K] + window.first_bin)
        seconds.append(seconds_N2[index_K])
        scores.append(scores_K)
    index_K, scores_K = _suppress_thumos(np.concatenate(bins), np.concatenate(scores))
    return Proposals(np.concatenate(seconds)[index_K], scores_K)


def _suppress_thumos(segments_N2: np.ndarray, scores_N: np.ndarray) -> Kept:
    return soft_nms_gtad(segments_N2, scores_N, 0.46, 200, LONGEST_GTAD_BINS)


def _select_gtad_anet(
    windows: Sequence[DetectionWindow], outputs: Sequence[Outputs], end_seconds: float
) -> Proposals:
    """Pair peaks of starts and ends; suppress on the scale of the video."""
    (window,), ((map_2DT, start_T, end_T),) = windows, outputs
    found = decode_gtad_anet(start_T, end_T, map_2DT)
    bins_N2, scores_N, seconds_N2 = _in_seconds(window, found, end_seconds)
    index_K, scores_K = soft_nms_gtad(bins_N2, scores_N, 0.8, 100)
    return Proposals(seconds_N2[index_K], scores_K)


def _select_bmn(
    windows: Sequence[DetectionWindow], outputs: Sequence[Outputs], end_seconds: float
) -> Proposals:
    """Take all pairs; suppress with a threshold that grows with the share of the video."""
    (window,), ((map_2SE, start_T, end_T),) = windows, outputs
    found = decode_bmn(start_T, end_T, map_2SE)
    bins_N2, scores_N, seconds_N2 = _in_seconds(window, found, end_seconds)
    kept = soft_nms_bmn(bins_N2 / len(start_T), scores_N)
    index_K, scores_K = (part[:NUM_BMN_PROPOSALS] for part in kept)
    return Proposals(seconds_N2[index_K], scores_K)


DETECTION_HEADS = {
    "gtad": DetectionHead(
        DetectorSizes(GTAD_THUMOS.temporal_scale, GTAD_THUMOS.max_duration),
        GTAD_THUMOS_RECIPE,
        _build_gtad(GTAD_THUMOS),
        _duration_cells,
        _half_overlapping,
        _select_gtad_thumos,
    ),
    "gtad-anet": DetectionHead(
        DetectorSizes(GTAD_ANET.temporal_scale, GTAD_ANET.max_duration),
        GTAD_ANET_RECIPE,
        _build_gtad(GTAD_ANET),
        _duration_cells,
        _one_linear,
        _select_gtad_anet,
    ),
    "bmn": DetectionHead(
        DetectorSizes(BMNArguments().temporal_scale, BMNArguments().temporal_scale),
        BMN_RECIPE,
        _build_bmn,
        _end_cells,
        _one_bsn,
        _select_bmn,
    ),
}
