"""The record of what goes in: a source video."""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class SourceVideo:
    """One row of the sources table (`docs/formats.md` says what each column means).

    `path` is resolved: what a decoder can open. `first_frame` and `end_frame` are the presentation
    frames, half-open, of the part that is meant (the whole file unless the annotation says times).
    """

    video_id: str
    path: str
    label: str | None = None
    label_id: int | None = None
    subset: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    num_frames: int = 0
    fps_num: int = 0
    fps_den: int = 1
    duration_seconds: float = 0.0
    width: int = 0
    height: int = 0
    rotation: int = 0
    codec: str = ""
    is_vfr: bool = False
    num_bytes: int = 0
    status: str = "ok"
    reason: str | None = None
    decoder: str = "pyav"
    first_frame: int = 0
    end_frame: int = 0

    @property
    def fps(self) -> Fraction:
        """Average presentation rate in frames per second."""
        return Fraction(self.fps_num, self.fps_den)
