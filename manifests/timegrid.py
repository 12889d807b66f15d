"""The time grid: which frames stand behind snippet i, and which seconds it covers - and back.

Nothing else in this project turns seconds into snippets. Time comes from presentation times (pts),
never from `i / fps`, so the grid is right on videos of variable frame rate, on videos that do not
start at 0, and on parts of videos.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

# Containers round presentation times (Matroska: to 1 ms, so by up to 0.5 ms either way): a frame
# stamped this much after the instant asked for is still the frame that was meant to show there.
PTS_TOLERANCE_SECONDS = 1e-3
MAX_FPS = 500  # half the inverse of the tolerance


@dataclass(frozen=True, slots=True, eq=False)
class SampledFrames:
    """The frames that snippets are cut from, in order, each with the time it stands for.

    Attributes:
        frame_index_N: int64, presentation index in the file.
        start_seconds_N: float64, when it starts to stand.
        end_seconds_N: float64, when the next one takes over.
    """

    frame_index_N: np.ndarray
    start_seconds_N: np.ndarray
    end_seconds_N: np.ndarray

    def __len__(self) -> int:
        return len(self.frame_index_N)


def num_sampled_frames(duration_seconds: float, fps: Fraction) -> int:
    """Return how many frames a resampling to `fps` takes from `duration_seconds` of video.

    `max(1, ceil((duration_seconds - PTS_TOLERANCE_SECONDS) * fps))`: one for each instant `k / fps`
    before the end.

    # 10 s at 15 fps: 150; 10.04 s at 15 fps: 151 (the last instant is 150/15 = 10.0 s)
    """
    _check_fps(fps)
    return max(1, math.ceil((duration_seconds - PTS_TOLERANCE_SECONDS) * fps))


def sample_frames(
    pts_seconds_N: np.ndarray,
    end_seconds: float,
    fps: Fraction | None = None,
    start_seconds: float | None = None,
    first_frame: int = 0,
) -> SampledFrames:
    """Choose the frames of a video that snippets are cut from.

    With `fps=None` every frame is taken; it stands from its presentation time to the next frame's.
    With `fps`, sampled frame `k` is the frame that is *on screen* at `t_k = start + k / fps` - the
    last one with `pts <= t_k + PTS_TOLERANCE_SECONDS`, or the first one before anything shows - and
    it stands for `[t_k, t_k + 1 / fps)`. This is what a player shows, what decoders call "frame
    played at", and what extractors get that step through indices by `floor(k * native_fps / fps)`;
    it never looks into the future. (The fps filter of ffmpeg rounds to the nearest slot instead:
    half a slot later.)

    Args:
        pts_seconds_N: float64, presentation times, ascending.
        end_seconds: When the last frame stops to present.
        fps: Sampling rate, or None for the video's own frames.
        start_seconds: The first instant sampled with `fps`; None stands for `pts_seconds_N[0]`.
        first_frame: Presentation index in the file of `pts_seconds_N[0]`.

    Raises:
        ValueError: No frame, times that descend, or a rate outside `(0, 500]`.
    """
    pts_seconds_N = np.asarray(pts_seconds_N, np.float64)
    if len(pts_seconds_N) == 0 or np.any(np.diff(pts_seconds_N) < 0):
        raise ValueError("presentation times must be ascending and at least one")
    if fps is None:
        index_N = np.arange(first_frame, first_frame + len(pts_seconds_N), dtype=np.int64)
        last_end = max(end_seconds, float(pts_seconds_N[-1]))
        return SampledFrames(index_N, pts_seconds_N, np.append(pts_seconds_N[1:], last_end))
    start = float(pts_seconds_N[0]) if start_seconds is None else start_seconds
    num = num_sampled_frames(end_seconds - start, fps)
    ticks_N = np.arange(num + 1, dtype=np.int64) * fps.denominator / fps.numerator + start
    latest_N = ticks_N[:-1] + PTS_TOLERANCE_SECONDS
    index_N = np.searchsorted(pts_seconds_N, latest_N, side="right").astype(np.int64) - 1
    ends_N = np.maximum(np.minimum(ticks_N[1:], end_seconds), ticks_N[:-1])
    return SampledFrames(np.maximum(index_N, 0) + first_frame, ticks_N[:-1], ends_N)


@dataclass(frozen=True, slots=True)
class SnippetGrid:
    """Cut a sequence of sampled frames into snippets, one every `snippet_stride` frames.

    Attributes:
        snippet_len: Sampled frames behind one feature vector.
        snippet_stride: Sampled frames from the start of one snippet to that of the next.
        tail: What becomes of the end: "pad" keeps the last partial snippet and repeats the last
            frame in it; "drop" keeps only snippets that are full.
        alignment: "left": snippet `i` starts at sampled frame `i * snippet_stride`; "centre": its
            centre is there, and it starts `snippet_len // 2` frames earlier. At the start the
            first frame is then repeated, with "drop" too, so that row `i` is always the one at
            frame `i * snippet_stride`.
    """

    snippet_len: int
    snippet_stride: int
    tail: str = "pad"
    alignment: str = "left"

    def __post_init__(self) -> None:
        if self.snippet_len < 1 or self.snippet_stride < 1:
            raise ValueError(
                f"snippet_len and snippet_stride must be >= 1, got {self.snippet_len} and "
                f"{self.snippet_stride}"
            )
        if self.tail not in ("pad", "drop"):
            raise ValueError(f"tail must be 'pad' or 'drop', got {self.tail!r}")
        if self.alignment not in ("left", "centre"):
            raise ValueError(f"alignment must be 'left' or 'centre', got {self.alignment!r}")

    @property
    def _lead(self) -> int:
        """Return how many frames before frame `i * snippet_stride` snippet `i` starts."""
        return self.snippet_len // 2 if self.alignment == "centre" else 0

    def num_snippets(self, num_frames: int) -> int:
        """Return how many snippets `num_frames` sampled frames give.

        "drop": `floor((n - len) / stride) + 1`, and 0 when `n < len`.
        "pad": `ceil(max(n - max(len, stride), 0) / stride) + 1`, and 0 when `n = 0`: the fewest
        with which every frame is in a snippet (every frame that any snippet could reach, when
        `stride > len` leaves gaps). With "centre" alignment "pad" takes every snippet whose centre
        is a frame of the video, `ceil(n / stride)`, and "drop" those of them that end before `n`.

        # n=20, len=8, stride=8: drop 2, pad 3 (the third is 16 17 18 19 19 19 19 19)
        # the same, centred: drop 3 (the third is 12 ... 19), pad 3 (the first is 0 0 0 0 0 1 2 3)
        """
        if num_frames < 1:
            return 0
        if self.tail == "drop":
            reach = self.snippet_len - self._lead
            return max((num_frames - reach) // self.snippet_stride + 1, 0)
        if self.alignment == "centre":
            return -(-num_frames // self.snippet_stride)
        rest = max(num_frames - max(self.snippet_len, self.snippet_stride), 0)
        return -(-rest // self.snippet_stride) + 1

    def frame_positions(self, num_frames: int) -> np.ndarray:
        """Return the sampled frames of every snippet, int64 `(S, snippet_len)`, ends repeated."""
        marks_S = np.arange(self.num_snippets(num_frames), dtype=np.int64) * self.snippet_stride
        offsets_L = np.arange(self.snippet_len, dtype=np.int64) - self._lead
        return np.clip(marks_S[:, None] + offsets_L, 0, num_frames - 1)

    def times(self, frames: SampledFrames) -> np.ndarray:
        """Return start, centre and end of every snippet in seconds, float64 `(S, 3)`.

        Start is when the first frame starts to stand, end is when the last *real* frame (not a
        repeated one) stops, centre is their mean. Centres ascend strictly where times do.

        With "centre" alignment, where repeated frames would shift that mean, the centre is that of
        the whole snippet: when frame `i * snippet_stride` starts to stand, or, `snippet_len` being
        odd, the middle of the time that it stands for.
        """
        positions_SL = self.frame_positions(len(frames))
        start_S = frames.start_seconds_N[positions_SL[:, 0]]
        end_S = frames.end_seconds_N[positions_SL[:, -1]]
        centre_S = (start_S + end_S) / 2
        if self.alignment == "centre":
            marks_S = np.arange(len(start_S)) * self.snippet_stride
            centre_S = frames.start_seconds_N[marks_S]
            if self.snippet_len % 2:
                centre_S = (centre_S + frames.end_seconds_N[marks_S]) / 2
        return np.stack([start_S, centre_S, end_S], axis=1)


def snippets_between(times_S3: np.ndarray, t0: float, t1: float) -> range:
    """Return the snippets whose centre lies in `[t0, t1)`.

    Neighbouring intervals share no snippet and lose none. Labels use the same rule: a snippet
    carries the label of a segment when its centre lies in it.
    """
    first, end = np.searchsorted(times_S3[:, 1], [t0, t1], side="left")
    return range(int(first), max(int(end), int(first)))


def snippet_at(times_S3: np.ndarray, seconds: float) -> int:
    """Return the snippet whose centre is nearest to `seconds` (of two, the earlier).

    Raises:
        ValueError: There is no snippet.
    """
    if len(times_S3) == 0:
        raise ValueError("a video without snippets has none at any time")
    after = int(np.searchsorted(times_S3[:, 1], seconds, side="left"))
    if after == 0:
        return 0
    if after == len(times_S3):
        return after - 1
    before_seconds, after_seconds = times_S3[after - 1, 1], times_S3[after, 1]
    return after if after_seconds - seconds < seconds - before_seconds else after - 1


def _check_fps(fps: Fraction) -> None:
    if not 0 < fps <= MAX_FPS:
        raise ValueError(f"fps must be above 0 and at most {MAX_FPS}, got {fps}")
