"""Run the ffmpeg program: one runner with a deadline, drained pipes and a process-group kill.

Argument lists are built with ffmpeg-python; the program is the one in the imageio-ffmpeg wheel.
"""

import os
import signal
import subprocess
from typing import Any

import ffmpeg
import imageio_ffmpeg

from .errors import SeamlineError


def run_ffmpeg(stream: Any, stdin: bytes | None = None, deadline_seconds: float = 120.0) -> bytes:
    """Run an ffmpeg-python `stream` and return what it wrote to stdout.

    Args:
        stream: Output node(s) built with ffmpeg-python.
        stdin: Bytes for its standard input, if it reads `pipe:`.
        deadline_seconds: After this the whole process group is killed.

    Raises:
        SeamlineError: The program failed or ran past the deadline; the message ends with the last
            line it printed.
    """
    command = ffmpeg.compile(
        stream,
        cmd=[imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin"]
        if stdin is None
        else imageio_ffmpeg.get_ffmpeg_exe(),
        overwrite_output=True,
    )
    command[1:1] = ["-hide_banner", "-loglevel", "error"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(stdin, timeout=deadline_seconds)
    except subprocess.TimeoutExpired as err:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise SeamlineError(f"ffmpeg ran past its deadline of {deadline_seconds:g} s") from err
    if process.returncode:
        last = stderr[-2000:].decode(errors="replace").strip().splitlines()[-1:]
        raise SeamlineError(f"ffmpeg failed with status {process.returncode}: {' '.join(last)}")
    return stdout
