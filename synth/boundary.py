"""Boundary-sensitive synthesis: put a known boundary into a video, or leave it without one.

Source: BSP (Xu et al., "Boundary-sensitive Pre-training for Temporal Localization in Videos",
ICCV 2021), section 3.2, Eq. 1-3. A sample has `2 tau` frames and one of four classes: the action
changes, the video changes within an action, the speed changes, nothing changes. Frames are counted
from 1, as in the paper.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .cutmix import round_half_up
from .labels import LabelTrack, add_tracks
from .mixup import Overlap, check_frame_sizes, mixing_weights, mixup_frames, mixup_labels

BOUNDARY_CLASSES = ("diff_class", "same_class", "diff_speed", "same_speed")  # class id = position
LONGEST_TAU = 2048  # frames; a slow gamma would make any length out of a few frames
FASTEST = 1024  # times the video's own rate; keeps the rounding of source frames exact


def draw_eps(rng: np.random.Generator, tau: int, low: int, high: int) -> int:
    """Draw `eps`, half the length of the diff-class transition, uniform in [low, high].

    Raises:
        ValueError: Not `1 <= low <= high < tau`.
    """
    _check_tau(tau)
    if not 1 <= low <= high < tau:
        raise ValueError(f"eps needs 1 <= low <= high < tau ({tau}), got [{low}, {high}]")
    return int(rng.integers(low, high + 1))


def draw_speed(rng: np.random.Generator, tau: int, gammas: Sequence[float]) -> tuple[int, float]:
    """Draw `t` uniform in [2, 2 tau - 2] and `gamma` uniform among `gammas`, for diff-speed.

    Raises:
        ValueError: A senseless `tau` or gamma, or no gamma at all.
    """
    _check_tau(tau)
    _check_gammas(gammas)
    t = int(rng.integers(2, 2 * tau - 1))
    return t, float(gammas[int(rng.integers(len(gammas)))])


def diff_class_overlap(tau: int, eps: int) -> Overlap:
    """Return how the two clips of diff-class lie in time, as in Volume MixUp's first scenario.

    Source: BSP Eq. 1. Both clips have `tau + eps` frames and clip 2 starts `tau - eps` after clip
    1; SSDet's `(n1 - t) / (n1 - r)` is then BSP's `w1 = (tau + eps - i) / (2 eps)`.

    Raises:
        ValueError: Not `1 <= eps < tau`, or `tau` out of bounds.
    """
    _check_tau(tau)
    if not 1 <= eps < tau:
        raise ValueError(f"eps must be in [1, tau - 1] with tau {tau}, got {eps}")
    return Overlap(n1=tau + eps, n2=tau + eps, r=tau - eps)


def diff_class_weights(tau: int, eps: int) -> np.ndarray:
    """Return `w1(i)`, the weight of clip 1 on every frame, `(2 tau,)` float64; clip 2 has the rest.

    # tau=4, eps=2: w1 = 1 1 3/4 1/2 1/4 0 0 0; clip 1 shows its frames 1..5, clip 2 its 2..6

    Raises:
        ValueError: As `diff_class_overlap`.
    """
    return mixing_weights(diff_class_overlap(tau, eps))


def diff_class_frames(
    frames1_THWC: np.ndarray, frames2_THWC: np.ndarray, tau: int, eps: int
) -> np.ndarray:
    """Dissolve a clip into one of another class around the middle; uint8, rounded to nearest.

    Source: BSP Eq. 1. `f1[i]` up to `tau - eps`, `w1(i) f1[i] + w2(i) f2[i - tau + eps]` up to
    `tau + eps`, `f2[i - tau + eps]` after.

    Args:
        frames1_THWC: Clip 1, uint8, at least `tau + eps` frames.
        frames2_THWC: Clip 2, the same.
        tau: Half the length of the sample in frames.
        eps: Half the length of the transition in frames.

    Raises:
        ValueError: Numbers out of bounds, clips that are too short or of different sizes.
    """
    return mixup_frames(frames1_THWC, frames2_THWC, diff_class_overlap(tau, eps))


def diff_class_labels(track1: LabelTrack, track2: LabelTrack, tau: int, eps: int) -> LabelTrack:
    """Mix the labels with the same weights `w1` and `w2 = 1 - w1`."""
    return mixup_labels(track1, track2, diff_class_overlap(tau, eps))


def same_class_frames(frames1_THWC: np.ndarray, frames2_THWC: np.ndarray, tau: int) -> np.ndarray:
    """Join `tau` frames of one video and `tau` of another of its class, without a transition.

    Source: BSP Eq. 2.

    Raises:
        ValueError: `tau` out of bounds, clips that are too short or of different sizes.
    """
    _check_same_class(tau, len(frames1_THWC), len(frames2_THWC))
    check_frame_sizes(frames1_THWC, frames2_THWC)
    return np.concatenate([frames1_THWC[:tau], frames2_THWC[:tau]])


def same_class_labels(track1: LabelTrack, track2: LabelTrack, tau: int) -> LabelTrack:
    """Label the first `tau` frames as clip 1 and the last `tau` as clip 2."""
    _check_same_class(tau, track1.num_frames, track2.num_frames)
    s = np.arange(2 * tau)
    return add_tracks(
        track1.take(np.minimum(s, tau - 1)).scale(np.where(s < tau, 1.0, 0.0)),
        track2.take(np.maximum(s - tau, 0)).scale(np.where(s < tau, 0.0, 1.0)),
    )


def diff_speed_index(tau: int, t: int, gamma: float) -> np.ndarray:
    """Return for each output frame its source frame, from 0, `(2 tau,)` int64.

    Source: BSP Eq. 3. Frame `i` up to `t`, `nearest(t + gamma (i - t))` after; ties go up.

    # tau=4, t=3, gamma=2: frames 1 2 3 5 7 9 11 13, from 0: 0 1 2 4 6 8 10 12
    # tau=4, t=3, gamma=1/2: frames 1 2 3 4 4 5 5 6 (3.5 and 4.5 go up), from 0: 0 1 2 3 3 4 4 5

    Raises:
        ValueError: Numbers out of bounds.
    """
    _check_speed(tau, t, gamma)
    i = np.arange(1, 2 * tau + 1)
    return np.where(i <= t, i, round_half_up(t + gamma * (i - t))) - 1


def speed_length(tau: int, t: int, gamma: float) -> int:
    """Return how many frames of its video diff-speed reads: its last source frame, from 1.

    # tau=4, t=3: 13 for gamma 2, 6 for gamma 1/2

    Raises:
        ValueError: Numbers out of bounds.
    """
    _check_speed(tau, t, gamma)
    return int(round_half_up(t + gamma * (2 * tau - t)))


def longest_speed(tau: int, gammas: Sequence[float]) -> int:
    """Return the most frames that diff-speed reads over every `t` and every gamma.

    # tau=4: 26 for gamma 4 (t=2), 7 for gamma 1/2 (t=6)

    Raises:
        ValueError: A senseless `tau` or gamma, or no gamma at all.
    """
    _check_tau(tau)
    _check_gammas(gammas)
    # The last source frame is linear in t before it is rounded, so one end of t reads the most.
    return max(speed_length(tau, t, gamma) for gamma in gammas for t in (2, 2 * tau - 2))


def diff_speed_frames(frames_THWC: np.ndarray, tau: int, t: int, gamma: float) -> np.ndarray:
    """Play the video at its own rate up to frame `t` and at `gamma` times that rate after it.

    Raises:
        ValueError: Numbers out of bounds, or a clip too short for `gamma` (never clamped).
    """
    _check_diff_speed(len(frames_THWC), tau, t, gamma)
    return frames_THWC[diff_speed_index(tau, t, gamma)]


def diff_speed_labels(track: LabelTrack, tau: int, t: int, gamma: float) -> LabelTrack:
    """Return the labels of the frames that are shown."""
    _check_diff_speed(track.num_frames, tau, t, gamma)
    return track.take(diff_speed_index(tau, t, gamma))


def same_speed_frames(frames_THWC: np.ndarray, tau: int) -> np.ndarray:
    """Return `2 tau` frames of a video at its own rate, a copy.

    Raises:
        ValueError: `tau` out of bounds, or a clip too short.
    """
    _check_same_speed(len(frames_THWC), tau)
    return frames_THWC[: 2 * tau].copy()


def same_speed_labels(track: LabelTrack, tau: int) -> LabelTrack:
    """Return the labels of the first `2 tau` frames."""
    _check_same_speed(track.num_frames, tau)
    return track.take(np.arange(2 * tau))


def change_point(op: str, node: Mapping[str, Any]) -> float | None:
    """Return the change point `mu` of a tree node, in frames from 1; None where nothing changes.

    It lies between two frames: `tau + 1/2` of diff-class and same-class, `t + 1/2` of diff-speed.

    # {"tau": 4, "t": 3, "gamma": 2}: 3.5, between frames 3 and 4

    Raises:
        ValueError: An op that is not of this module, or a number that is missing or senseless.
    """
    if op not in BOUNDARY_CLASSES:
        raise ValueError(f"op must be one of {list(BOUNDARY_CLASSES)}, got {op!r}")
    if op == "same_speed":
        return None
    name = "t" if op == "diff_speed" else "tau"
    frame = node.get(name)
    if not (isinstance(frame, int | float) and 2 <= frame <= 2 * LONGEST_TAU):
        raise ValueError(f"{name} of {op!r} must be in [2, {2 * LONGEST_TAU}], got {frame!r}")
    return frame + 0.5


def _check_tau(tau: int) -> None:
    if not 2 <= tau <= LONGEST_TAU:
        raise ValueError(f"tau must be in [2, {LONGEST_TAU}], got {tau}")


def _check_gammas(gammas: Sequence[float]) -> None:
    if not len(gammas):
        raise ValueError("diff-speed needs at least one gamma, got none")
    for gamma in gammas:
        _check_gamma(gamma)


def _check_gamma(gamma: float) -> None:
    if not 0 < gamma <= FASTEST or gamma == 1:
        raise ValueError(f"gamma must be in (0, {FASTEST}] and not 1, got {gamma}")


def _check_speed(tau: int, t: int, gamma: float) -> None:
    _check_tau(tau)
    _check_gamma(gamma)
    if not 2 <= t <= 2 * tau - 2:
        raise ValueError(f"t must be in [2, 2 tau - 2] with tau {tau}, got {t}")


def _check_same_class(tau: int, length1: int, length2: int) -> None:
    _check_tau(tau)
    if min(length1, length2) < tau:
        raise ValueError(
            f"same-class reads {tau} frames of each clip, got clips of {length1} and {length2}"
        )


def _check_diff_speed(length: int, tau: int, t: int, gamma: float) -> None:
    needed = speed_length(tau, t, gamma)
    if length < needed:
        raise ValueError(
            f"diff-speed with tau {tau}, t {t} and gamma {gamma} reads {needed} frames, got a "
            f"clip of {length}"
        )


def _check_same_speed(length: int, tau: int) -> None:
    _check_tau(tau)
    if length < 2 * tau:
        raise ValueError(f"same-speed reads {2 * tau} frames, got a clip of {length}")
