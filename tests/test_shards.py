"""Shards: tars that any reader opens, samples by offset, and hostile or damaged files."""

import hashlib
import io
import json
import os
import signal
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import av
import numpy as np
import pytest
import webdataset as wds
from made_shards import moving_clip, write_moving_shards, write_shards

from manifests import ShardError, UsageError
from synth import LabelTrack, constant_track, read_dataset, read_sample
from synth.codecs import EXTENSIONS, encode_filmstrip, encode_raw
from synth.dataset import read_shard_index
from synth.shards import (
    ShardSample,
    TarWriter,
    parse_sample,
    shard_path,
)

DEADLINE_SECONDS = 5


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """Fail a test that hangs, instead of waiting for the suite's limit."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"still running after {DEADLINE_SECONDS} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(DEADLINE_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def tar_bytes(*members: tuple[str, bytes], close: bool = False) -> bytes:
    file = io.BytesIO()
    writer = TarWriter(file)
    for name, content in members:
        writer.add(name, content)
    if close:
        writer.close()
    return file.getvalue()


def soft_sample() -> tuple[np.ndarray, LabelTrack, tuple[str, ...], str]:
    weights = np.array([[1.0, 0.7, 0.1, 0.0], [0.0, 0.3, 0.2, 1.0]])
    return moving_clip(1, 5), LabelTrack(np.array([1, 3]), weights), ("v1", "v2"), "mixup"


def test_tar_is_what_tarfile_reads() -> None:
    members = [("a.jpg", b"x" * 700), ("a.json", b"{}"), ("b.npy", b""), ("b.json", b"y" * 512)]
    content = tar_bytes(*members, close=True)
    assert len(content) % tarfile.RECORDSIZE == 0
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        infos = tar.getmembers()
        assert [(info.name, tar.extractfile(info).read()) for info in infos] == members
        assert {(info.mtime, info.uid, info.gid, info.uname, info.gname) for info in infos} == {
            (0, 0, 0, "", "")
        }
        assert all(info.isreg() for info in infos)


def test_writer_offsets_and_digest_are_those_of_the_bytes() -> None:
    file = io.BytesIO()
    writer = TarWriter(file)
    writer.add("a.json", b"z" * 513)
    assert writer.offset == len(file.getvalue()) == 512 + 1024
    digest = writer.close()
    assert digest == hashlib.sha256(file.getvalue()).hexdigest()
    assert writer.offset == len(file.getvalue())


@pytest.mark.parametrize("codec", EXTENSIONS)
def test_samples_by_offset_are_those_of_tarfile(tmp_path: Path, codec: str) -> None:
    out = write_moving_shards(tmp_path / "out", 6, samples_per_shard=4, codec=codec)
    dataset = read_dataset(out)
    assert [len(index) for index in dataset.shards] == [4, 2]
    for index in dataset.shards:
        with tarfile.open(index.path) as tar:
            members = {info.name: tar.extractfile(info).read() for info in tar.getmembers()}
        for key, offset, size in zip(index.keys, index.offsets, index.sizes, strict=True):
            sample = read_sample(index.path, int(offset), int(size))
            assert sample.key == key
            assert dict(sample.members) == {
                EXTENSIONS[codec]: members[f"{key}.{EXTENSIONS[codec]}"]
            }
            assert sample.meta == json.loads(members[f"{key}.json"])
            assert sample.frames().shape == (4, 32, 32, 3)


def test_open_descriptor_and_path_read_the_same(tmp_path: Path) -> None:
    out = write_shards(tmp_path / "out", [soft_sample()])
    index = read_dataset(out).shards[0]
    place = int(index.offsets[0]), int(index.sizes[0])
    descriptor = os.open(index.path, os.O_RDONLY)
    try:
        assert read_sample(descriptor, *place) == read_sample(index.path, *place)
    finally:
        os.close(descriptor)


def test_label_track_round_trip_is_exact(tmp_path: Path) -> None:
    frames, track, video_ids, kind = soft_sample()
    out = write_shards(tmp_path / "out", [(frames, track, video_ids, kind)], codec="raw")
    index = read_dataset(out).shards[0]
    assert index.kinds == (kind,)
    assert index.video_ids == (video_ids,)
    sample = read_sample(index.path, int(index.offsets[0]), int(index.sizes[0]))
    np.testing.assert_array_equal(sample.track().class_ids, track.class_ids)
    np.testing.assert_array_equal(sample.track().weights_CT, track.weights_CT)
    np.testing.assert_array_equal(sample.frames(), frames)


def decode_mp4(member: bytes) -> np.ndarray:
    with av.open(io.BytesIO(member)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("codec", EXTENSIONS)
def test_plain_webdataset_reads_the_shards(tmp_path: Path, codec: str) -> None:
    if codec == "filmstrip":
        pytest.importorskip("PIL", reason="webdataset's own image decoder needs pillow")
    samples = [
        (moving_clip(number % 4, number), constant_track(number % 4, 4), (f"v{number}",), "clip")
        for number in range(5)
    ]
    out = write_shards(tmp_path / "out", samples, samples_per_shard=5, codec=codec)
    reader = wds.WebDataset(str(shard_path(out, 0)), shardshuffle=False).decode(
        "rgb8", wds.handle_extension("mp4", decode_mp4)
    )
    read = list(reader)
    assert [sample["__key__"] for sample in read] == [f"{number:08d}" for number in range(5)]
    for (frames, track, _, kind), sample in zip(samples, read, strict=True):
        shown = np.asarray(sample[EXTENSIONS[codec]]).reshape(frames.shape)
        assert np.abs(shown.astype(float) - frames).mean() < 6
        assert sample["json"]["kind"] == kind
        assert sample["json"]["class_ids"] == track.class_ids.tolist()
        assert sample["json"]["weights"] == track.weights_CT.tolist()


def test_done_record_is_what_makes_a_shard_finished(tmp_path: Path) -> None:
    out = write_moving_shards(tmp_path / "out", 4)
    shard_path(out, 0, "json").unlink()
    with pytest.raises(ShardError, match="not finished"):
        read_dataset(out)


def test_unfinished_or_absent_folders_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        read_dataset(tmp_path / "absent")
    with pytest.raises(UsageError, match="not finished"):
        read_dataset(tmp_path)


def test_shard_of_another_plan_is_refused(tmp_path: Path) -> None:
    out = write_moving_shards(tmp_path / "out", 4)
    with pytest.raises(ShardError, match="another plan: 'made'"):
        read_shard_index(out, 0, "other")


@pytest.mark.parametrize("change", ["truncated", "longer", "missing", "empty"])
def test_tar_of_another_length_is_refused(tmp_path: Path, change: str) -> None:
    out = write_moving_shards(tmp_path / "out", 4)
    path = shard_path(out, 0)
    content = path.read_bytes()
    changed = {"truncated": content[:-512], "longer": content + b"\0", "empty": b""}
    path.unlink()
    if change != "missing":
        path.write_bytes(changed[change])
    with pytest.raises(ShardError, match=r"shard-000000\.tar must have .* render it again"):
        read_dataset(out)


def test_truncated_sample_is_refused(tmp_path: Path) -> None:
    out = write_moving_shards(tmp_path / "out", 1)
    index = read_dataset(out).shards[0]
    size = index.path.stat().st_size
    with pytest.raises(ShardError, match="truncated"):
        read_sample(index.path, size - 512, 1024)


def with_size_field(content: bytes, field: bytes) -> bytes:
    """Return a tar whose first member claims the size in `field`, with a right checksum."""
    header = bytearray(content[:512])
    header[124:136] = field
    checksum = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    header[148:156] = b"%06o\0 " % checksum
    return bytes(header) + content[512:]


def base256(size: int) -> bytes:
    if size >= 0:
        return b"\x80" + size.to_bytes(11, "big")
    return b"\xff" + (256**11 + size).to_bytes(11, "big")


@pytest.mark.parametrize("size", [-1, -512, -1024, -(10**6), 11, 10**12, 2**80])
def test_member_sizes_that_lie_are_refused_and_never_hang(size: int) -> None:
    content = tar_bytes(("a.jpg", b"x" * 10), ("a.json", b'{"num_frames":1}'))
    content = with_size_field(content, base256(size))
    if size == 11:  # a size that still leads to the next header is no lie that headers can show
        assert len(parse_sample(content, len(content)).members["jpg"]) == 11
        return
    with pytest.raises(ShardError, match="sample"):
        parse_sample(content, len(content))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(1024),
        b"garbage " * 128,
        b"\xff" * 1024,
        tar_bytes(("a.jpg", b"x")),
        tar_bytes(("a.json", b"not json")),
        tar_bytes(("a.json", b"[" * 100_000 + b"]" * 100_000)),
        tar_bytes(("a.json", b"[]")),
        tar_bytes(("a.json", b"3")),
        tar_bytes(("a.json", b"\xff\xfe")),
        tar_bytes(("a.jpg", b""), ("b.json", b"{}")),
        tar_bytes(("a.jpg", b""), ("a.json", b"{}"))[:-600],
    ],
    ids=lambda content: repr(content[:16]) + str(len(content)),
)
def test_bytes_that_are_no_sample_are_refused(content: bytes) -> None:
    with pytest.raises(ShardError, match="sample"):
        parse_sample(content, len(content))


def test_random_damage_is_a_sample_or_a_shard_error(tmp_path: Path) -> None:
    out = write_shards(tmp_path / "out", [soft_sample()], codec="raw")
    index = read_dataset(out).shards[0]
    content = index.path.read_bytes()[: int(index.sizes[0])]
    rng = np.random.default_rng(3)
    headers = [*range(512), *range(len(content) - 1024, len(content))]
    for _ in range(400):
        damaged = bytearray(content)
        for place in rng.choice(headers, 2):
            damaged[place] = rng.integers(256)
        try:
            sample = parse_sample(bytes(damaged), len(damaged))
            sample.frames()
            sample.track()
        except ShardError:
            continue


NAN = float("nan")
GOOD_META = {"num_frames": 1, "class_ids": [0], "weights": [[1.0]]}
BAD_METAS: list[dict[str, Any]] = [
    {},
    {"num_frames": None},
    {"num_frames": "one"},
    {"num_frames": NAN},
    {"num_frames": float("inf")},
    {"num_frames": -1},
    {"num_frames": 10**18},
    {"num_frames": [1]},
]
BAD_LABELS: list[dict[str, Any]] = [
    {"class_ids": None},
    {"class_ids": ["a"]},
    {"class_ids": [0.5]},
    {"class_ids": [2**70]},
    {"class_ids": [[0]]},
    {"class_ids": [0, 0], "weights": [[0.5], [0.5]]},
    {"weights": None},
    {"weights": [["x"]]},
    {"weights": [[NAN]]},
    {"weights": [[2.0]]},
    {"weights": [[-1.0]]},
    {"weights": [[0.5, 0.5]]},
    {"weights": [[0.5], [0.5]]},
    {"weights": {"0": [1.0]}},
]


def sample_of(meta: Mapping[str, Any], *extra: tuple[str, bytes]) -> Any:
    clip = encode_raw(np.zeros((1, 2, 2, 3), np.uint8))
    members = [("a.npy", clip), *extra, ("a.json", json.dumps(meta).encode())]
    content = tar_bytes(*members)
    return parse_sample(content, len(content))


def test_the_good_meta_behind_the_bad_ones_reads() -> None:
    sample = sample_of(GOOD_META)
    assert sample.frames().shape == (1, 2, 2, 3)
    assert sample.track().weights_CT.tolist() == [[1.0]]


@pytest.mark.parametrize("meta", BAD_METAS, ids=str)
def test_wrong_number_of_frames_in_the_meta_is_a_shard_error(meta: dict[str, Any]) -> None:
    meta = {**GOOD_META, **meta} if meta else {}
    with pytest.raises(ShardError, match=r"\w+ \w+"):
        sample_of(meta).frames()
    with pytest.raises(ShardError, match=r"\w+ \w+"):
        sample_of(meta).track()


@pytest.mark.parametrize("meta", BAD_LABELS, ids=str)
def test_wrong_labels_in_the_meta_are_a_shard_error(meta: dict[str, Any]) -> None:
    with pytest.raises(ShardError, match=r"\w+ \w+"):
        sample_of({**GOOD_META, **meta}).track()


def pair_of(query: np.ndarray, key: np.ndarray) -> ShardSample:
    members = {"query.npy": encode_raw(query), "key.npy": encode_raw(key)}
    return ShardSample("a", members, {"num_frames": 2})


def test_a_pair_decodes_to_query_and_key() -> None:
    query, key = np.full((2, 4, 6, 3), 7, np.uint8), np.full((2, 4, 6, 3), 9, np.uint8)
    assert np.array_equal(pair_of(query, key).frames(), np.stack([query, key]))


def test_a_pair_of_jpegs_decodes_into_given_memory() -> None:
    frames = np.full((2, 16, 16, 3), 90, np.uint8)
    jpeg = encode_filmstrip(frames)
    sample = ShardSample("a", {"query.jpg": jpeg, "key.jpg": jpeg}, {"num_frames": 2})
    out = np.zeros((2, 2, 16, 16, 3), np.uint8)
    assert sample.frames(out=out) is out
    assert np.array_equal(out, np.stack([frames, frames]))


def test_members_that_are_no_pair_are_refused() -> None:
    with pytest.raises(ShardError, match="no clip and no pair"):
        sample_of(GOOD_META, ("a.key.npy", b"")).frames()
    frames = np.zeros((2, 4, 6, 3), np.uint8)
    with pytest.raises(ShardError, match="differ in size"):
        pair_of(frames, frames[:, :2]).frames()


@pytest.mark.parametrize("class_ids", [1, "0", {"0": 1}, [True], [4], [-1], [0.0]])
def test_class_ids_that_are_no_classes_are_refused(class_ids: Any) -> None:
    with pytest.raises(ShardError, match="class"):
        sample_of({**GOOD_META, "class_ids": class_ids}).check_classes(4)
