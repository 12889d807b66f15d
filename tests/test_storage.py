"""Tests of files and objects: complete under their names, read many at a time."""

import errno
import tempfile
from pathlib import Path

import pytest

from manifests import UsageError, atomic_writer, file_sizes, read_many, to_path, write_atomic


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.getfixturevalue("bucket") if request.param == "s3" else str(tmp_path / "out")


def test_what_is_written_is_read(folder: str) -> None:
    out = to_path(folder)
    for name, content in {"a-1.json": b"{}", "a-2.json": b"[1]", "b.tar": b"x" * 9}.items():
        write_atomic(out / name, content)
    assert file_sizes(out, "a-", ".json") == {"a-1.json": 2, "a-2.json": 3}
    assert read_many([out / "a-2.json", out / "none", out / "b.tar"]) == [b"[1]", None, b"x" * 9]
    assert (out / "b.tar").stat().st_size == 9


def test_a_folder_that_is_not_there_is_empty(folder: str) -> None:
    out = to_path(folder) / "none"
    assert file_sizes(out, "", "") == {}
    assert read_many([out / "a"]) == [None]


def test_a_failed_block_leaves_nothing(folder: str) -> None:
    out = to_path(folder)

    def write_half() -> None:
        with atomic_writer(out / "a") as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert file_sizes(out, "", "") == {}


def test_a_block_that_succeeds_replaces_what_was_there(folder: str) -> None:
    out = to_path(folder)
    for content in (b"first", b"second"):
        with atomic_writer(out / "a") as file:
            file.write(content)
            assert read_many([out / "a"]) != [content]  # not before the block has ended
        assert read_many([out / "a"]) == [content]
    assert file_sizes(out, "", "") == {"a": 6}


@pytest.mark.parametrize("url", ["http://host/out", "pipe:///out", "ftp://host/out", "file:///out"])
def test_urls_of_other_kinds_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="must be local or in an object store"):
        to_path(url)


def test_a_package_that_is_not_installed() -> None:
    with pytest.raises(UsageError, match=r"'gs://bucket/out' cannot be opened"):
        to_path("gs://bucket/out")


def test_a_store_that_does_not_answer_is_no_empty_folder(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = to_path(bucket) / "out"
    write_atomic(out / "a", b"1")

    async def busy(*words: object, **named: object) -> None:
        raise OSError(errno.EBUSY, "Please reduce your request rate")

    monkeypatch.setattr(type(out.fs), "_lsdir", busy)
    with pytest.raises(OSError, match="reduce your request rate"):
        file_sizes(out, "", "")


@pytest.mark.parametrize("url", ["s3://", "s3:///", "s3://bucket/out[1]", "s3://bucket/*"])
def test_urls_that_name_no_one_place_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="must name a bucket"):
        to_path(url)


def test_an_upload_leaves_nothing_behind(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary file has no name: a process that is killed leaves none either."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with atomic_writer(to_path(bucket) / "a") as file:
        file.write(b"content")
        assert list(tmp_path.iterdir()) == []
    assert read_many([to_path(bucket) / "a"]) == [b"content"]
