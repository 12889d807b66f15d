"""Cut the source clips of rows out of their videos, each video decoded once for many rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType

import numpy as np

from manifests import SourceVideo, VideoError, VideoUnavailable

from .frames import frame_batches
from .planned import PlannedSample, PlannedSource, Rejected
from .views import Scratch

Watch = Callable[[str], AbstractContextManager[None]]
Use = tuple[int, int]  # row position in the shard, position among the row's sources


def unwatched(video_id: str) -> AbstractContextManager[None]:
    """Let the decoding of a video take as long as it takes."""
    return nullcontext()


class ClipReader:
    """Cut the source clips of consecutive rows, decoding each video once for all coming rows.

    Args:
        samples: The rows.
        budget: Bytes of clips that may be held.
        failed: Reasons by video that is known to fail.
        watch: Guards the decoding of a video.
    """

    def __init__(
        self,
        samples: Sequence[PlannedSample | Rejected],
        budget: int,
        failed: Mapping[str, str] = MappingProxyType({}),
        watch: Watch = unwatched,
    ) -> None:
        self._samples = samples
        self._budget = budget
        self._watch = watch
        self._clips: dict[Use, np.ndarray] = {}
        self._failed = dict(failed)
        self._scratch = Scratch()
        self.num_decodes = 0

    def read(self, position: int) -> list[np.ndarray]:
        """Return the source clips of the row at `position`; rows must be asked for in order.

        Raises:
            VideoError: A source of this row cannot be decoded.
        """
        sample = self._samples[position]
        assert isinstance(sample, PlannedSample)
        for slot, source in enumerate(sample.sources):
            if source.video.video_id in self._failed:
                break
            if (position, slot) not in self._clips:
                self._decode(source.video, position)
        clips = [self._clips.pop((position, slot), None) for slot in range(len(sample.sources))]
        for source in sample.sources:
            if source.video.video_id in self._failed:
                raise VideoError(source.video.path, self._failed[source.video.video_id])
        return [clip for clip in clips if clip is not None]

    def _decode(self, video: SourceVideo, position: int) -> None:
        """Cut every view of `video` that the coming rows show, in one decoding pass."""
        wanted: dict[int, list[tuple[np.ndarray, PlannedSource]]] = {}
        uses = []
        for use, source in self._coming_uses(video, position):
            clip = self._clips[use] = np.empty((source.num_frames, *source.size, 3), np.uint8)
            uses.append(use)
            for k, index in enumerate(source.indices):
                wanted.setdefault(index, []).append((clip[k], source))
        self.num_decodes += 1
        try:
            with self._watch(video.video_id):
                for indices, frames in frame_batches(video, np.array(sorted(wanted), np.int64)):
                    for index, frame_HWC in zip(indices.tolist(), frames, strict=True):
                        for slot, source in wanted[index]:
                            source.cut(frame_HWC, slot, self._scratch)
        except VideoUnavailable as err:
            raise OSError(str(err)) from err  # no fault of the video: nothing is rejected for it
        except (VideoError, ValueError) as err:
            self._failed[video.video_id] = err.reason if isinstance(err, VideoError) else str(err)
            for use in uses:
                del self._clips[use]

    def _coming_uses(
        self, video: SourceVideo, position: int
    ) -> Iterator[tuple[Use, PlannedSource]]:
        held = 0
        for later in range(position, len(self._samples)):
            sample = self._samples[later]
            if isinstance(sample, Rejected):
                continue
            held += sample.num_bytes
            if held > self._budget and later > position:
                return
            for slot, source in enumerate(sample.sources):
                if source.video.video_id == video.video_id:
                    yield (later, slot), source
