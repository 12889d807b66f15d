"""Open a video file for strict reading: what is damaged raises, nothing is concealed."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, cast

import av
import fsspec
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from fsspec.core import OpenFile

from .errors import UsageError, VideoError, VideoUnavailable
from .storage import OBJECT_STORES

# Formats that hold one video in one file; playlists and stills are not among them.
FORMATS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,mxf"
# What a disk says that does not answer, and a system that has no more to give.
AWAY = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY, errno.EMFILE, errno.ENFILE)
# Raise on damage, and check what checksums a stream has. The container's own quirks are forgiven.
STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}


def first_line(error: BaseException) -> str:
    """Return the first line of a library's message, without its own error numbers and paths."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).strip().splitlines()[0][:200]


@contextmanager
def open_video(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its video stream for strict reading: damage raises, one thread.

    Args:
        path: A local path or the URL of an object.

    Raises:
        VideoError: No such file, no bytes, not a video file, no video stream; and whatever FFmpeg
            finds wrong while the block runs.
    """
    try:
        with (
            _source(path) as source,
            av.open(source, "r", options={"format_whitelist": FORMATS}) as container,
        ):
            stream = _video_stream(container, path)
            stream.codec_context.options = STRICT
            stream.thread_type = "NONE"
            yield container, stream
    except av.FFmpegError as err:
        raise VideoError(path, f"cannot be read as video ({first_line(err)})") from err


@contextmanager
def _source(path: str) -> Iterator[str | BinaryIO]:
    if "://" in path:
        with open_bytes(path) as file:
            yield file
    else:
        # FFmpeg reads local files itself, which is faster; no name is taken for a protocol's.
        yield f"file:{path}"


@contextmanager
def open_bytes(path: str) -> Iterator[BinaryIO]:
    """Open a local path or the URL of an object for reading.

    Raises:
        VideoError: It cannot be opened, is a pipe or a device, or a URL of no object store.
        UsageError: This machine lacks the package that speaks the URL's protocol.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_open(path))
        except (OSError, ValueError) as err:  # ValueError: a NUL in the name
            raise cannot_open(path, err) from err
        except ImportError as err:  # the machine lacks something, the video is not to blame
            raise UsageError(f"{path!r} cannot be opened: {first_line(err)}") from err
        yield cast(BinaryIO, file)


def cannot_open(path: str, err: OSError | ValueError) -> VideoError:
    """Say why a video cannot be opened: is it the video, or is its disk or its store away?"""
    reason = f"cannot be opened ({first_line(err)})"
    if isinstance(err, FileNotFoundError):
        if "://" in path or os.path.isdir(os.path.dirname(path) or "."):
            return VideoError(path, reason)
        return VideoUnavailable(path, "its folder is not there")
    is_away = isinstance(err, OSError) and ("://" in path or err.errno in AWAY)
    return (VideoUnavailable if is_away else VideoError)(path, reason)


def _open(path: str) -> BinaryIO | OpenFile:
    """Open what a table names: no pipe or device, and no URL but an object's.

    fsspec's other protocols fetch from any host, write caches, and chain file systems.
    """
    if "://" not in path:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise VideoError(path, "is not a regular file")
        return open(path, "rb")
    if path.partition("://")[0] not in OBJECT_STORES or "::" in path:
        raise VideoError(path, f"is no URL of an object ({', '.join(OBJECT_STORES[:-1])})")
    return fsspec.open(path, "rb")


def _video_stream(container: InputContainer, path: str) -> VideoStream:
    """Return the video stream with the most pixels; a cover picture of a song is none."""
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None
    ]
    if not streams and container.streams.video and container.streams.video[0].codec_context is None:
        raise VideoError(path, "is of a codec that no decoder here knows")
    if not streams:
        kinds = sorted({stream.type for stream in container.streams} - {"video"})
        raise VideoError(path, f"has no video stream (only {', '.join(kinds) or 'a picture'})")
    return max(streams, key=lambda stream: stream.width * stream.height)  # the first of equals
