"""Names of sources that want to be more than names of files: nobody is called, nothing started."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hostile import TEXTS, texts
from hypothesis import given
from hypothesis import strategies as st
from made_videos import MadeVideos
from sandbox import attempt, fuzzed

from manifests import SourceVideo, VideoError, probe_video, resolve_path, scan_packets
from synth import read_frames

pytestmark = pytest.mark.slow

WAYS = (
    *("{}", "file:{}", "file://{}", "pipe:{}", "pipe://{}", "concat:{}|{}", "concat://{}|{}"),
    *("subfile,,start,0,end,9,,:{}", "subfile,,start,0,end,9,,:file://{}", "crypto:{}", "async:{}"),
    *("cache:{}", "data:video/mp4;base64,{}", "data://{}", "tcp://{}", "udp://{}", "rtmp://{}"),
    *("http://{}/a.mp4", "https://{}/a.mp4", "ftp://{}/a.mp4", "hls+http://{}/a.m3u8", "sftp://{}"),
    *("simplecache::http://{}/a", "filecache::file://{}", "zip://a::http://{}/a", "tar://a::{}"),
    *(
        "reference://{}",
        "github://a:b@{}/c",
        "git://{}",
        "smb://{}",
        "webhdfs://{}",
        "libarchive://{}",
    ),
    *("memory://a::http://{}/a", "s3://a::http://{}/a", "dir::http://{}", "{}\0", "-i {}", "../{}"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, list[object]]]:
    """Listen on loopback; return the address and those who called."""
    callers: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            while True:
                try:
                    client, address = listening.accept()
                except OSError:
                    return
                callers.append(address)
                client.close()

        threading.Thread(target=answer, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}", callers
        listening.shutdown(socket.SHUT_RDWR)


def read_as(path: str, video: SourceVideo) -> None:
    """Read a path in all ways that there are, whatever a table says of it."""
    for read in (
        lambda: scan_packets(path),
        lambda: probe_video(path, check="packets"),
        lambda: read_frames(replace(video, path=path), np.arange(4)),
        lambda: read_frames(replace(video, path=path, decoder="pyav"), np.arange(4)),
    ):
        try:
            read()
        except VideoError as err:
            said = str(err)
            assert said.isprintable()
            continue
        assert Path(path).is_file()  # what can be read is a file of that very name


@fuzzed(0.4, few=60)
@given(st.sampled_from(WAYS), st.sampled_from(["server", "file", "text"]), texts)
@pytest.mark.timeout(1800)
def test_paths_are_names_of_files(
    made_videos: MadeVideos,
    server: tuple[str, list[object]],
    tmp_path_factory: pytest.TempPathFactory,
    way: str,
    kind: str,
    text: str,
) -> None:
    clip = made_videos["plain"]
    video = SourceVideo(
        "v", "", num_frames=60, width=128, height=96, decoder="decord", end_frame=60
    )
    video = replace(video, num_bytes=clip.stat().st_size, fps_num=25)
    what = {"server": server[0], "file": str(clip), "text": text}[kind]
    path = resolve_path(way.replace("{}", what), str(tmp_path_factory.getbasetemp()))
    attempt("paths of sources", lambda: read_as(path, video))
    assert not server[1]


def test_texts_that_files_are_named_with_are_among_them() -> None:
    assert {"pipe:0", "../../x", "-i"} <= set(TEXTS)
