"""Where tables and plans say that files are: beside them, here or in a bucket."""

import errno
import os
from pathlib import Path

import pytest
import s3fs

from manifests import UsageError, at_place, check_bucket, relative_path, resolve_path, to_path


@pytest.mark.parametrize(
    ("path", "folder", "found"),
    [
        ("a.mp4", "/videos", "/videos/a.mp4"),
        ("../a.mp4", "/videos", "/videos/../a.mp4"),
        ("/else/a.mp4", "/videos", "/else/a.mp4"),
        ("s3://else/a.mp4", "/videos", "s3://else/a.mp4"),
        ("a.mp4", "s3://bucket", "s3://bucket/a.mp4"),
        ("a.mp4", "s3://bucket/", "s3://bucket/a.mp4"),
        ("b/a.mp4", "s3://bucket/c", "s3://bucket/c/b/a.mp4"),
        ("../b/./a.mp4", "s3://bucket/c/d", "s3://bucket/c/b/a.mp4"),
        ("../../a.mp4", "s3://bucket/c/d", "s3://bucket/a.mp4"),
        ("a.mp4", "s3://bucket/c/../d", "s3://bucket/d/a.mp4"),
        ("/else/a.mp4", "s3://bucket/c", "/else/a.mp4"),
        ("https://host/a.mp4", "s3://bucket/c", "https://host/a.mp4"),
    ],
)
def test_paths_are_beside_what_names_them(path: str, folder: str, found: str) -> None:
    assert resolve_path(path, folder) == found


@pytest.mark.parametrize("path", ["../a.mp4", "../../other/a.mp4", "b/../../../x", "..", ".", ""])
def test_no_path_leads_out_of_its_bucket(path: str) -> None:
    with pytest.raises(UsageError, match="must lead to an object of its bucket"):
        resolve_path(path, "s3://bucket")


@pytest.mark.parametrize(
    ("path", "folder", "relative"),
    [
        ("/a/sources.parquet", "/a/plan", "../sources.parquet"),
        ("/a/plan/sources.parquet", "/a/plan", "sources.parquet"),
        ("/a/sources.parquet", "/a/plans/1", "/a/sources.parquet"),
        ("s3://b/sources.parquet", "s3://b/plan", "../sources.parquet"),
        ("s3://b/sources.parquet", "s3://b/plans/1", "../../sources.parquet"),
        ("s3://b/k/sources.parquet", "s3://b/", "k/sources.parquet"),
        ("s3://b/sources.parquet", "s3://other/plan", "s3://b/sources.parquet"),
        ("s3://b/sources.parquet", "gs://b/plan", "s3://b/sources.parquet"),
        ("s3://b/sources.parquet", "/a/plan", "s3://b/sources.parquet"),
        ("/a/sources.parquet", "s3://b/plan", "/a/sources.parquet"),
    ],
)
def test_what_stands_beside_is_named_relative(path: str, folder: str, relative: str) -> None:
    if "gs:" in folder:
        pytest.importorskip("gcsfs")
    assert relative_path(path, folder) == relative
    assert os.path.normpath(resolve_path(relative, folder)) == os.path.normpath(path)


def test_a_bucket_that_is_not_there_is_one_sentence(bucket: str, tmp_path: Path) -> None:
    check_bucket(tmp_path / "none")
    check_bucket(to_path(bucket) / "none" / "plan.json")
    with pytest.raises(UsageError, match="there is no bucket 's3://no-such-bucket'"):
        check_bucket(to_path("s3://no-such-bucket/plan"))


@pytest.fixture
def fresh_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next connection to S3 read the environment again."""
    monkeypatch.setattr(s3fs.S3FileSystem, "cachable", False)
    monkeypatch.setenv("HOME", "/nonexistent")  # credentials of whoever runs the tests
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.usefixtures("fresh_connection")
def test_missing_credentials_are_one_sentence(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(UsageError, match=r"cannot be reached: .*credentials") as caught:
        check_bucket(to_path(bucket) / "plan")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("fresh_connection")
def test_a_store_that_does_not_answer_is_one_sentence(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(UsageError, match=r"cannot be reached: Could not connect"):
        check_bucket(to_path(bucket) / "plan")


def test_local_errors_stay_what_they_are(tmp_path: Path, bucket: str) -> None:
    with pytest.raises(PermissionError), at_place(tmp_path):
        raise PermissionError(errno.EACCES, "refused")
    with pytest.raises(UsageError, match="cannot be reached: refused"), at_place(to_path(bucket)):
        raise PermissionError(errno.EACCES, "refused")
    with pytest.raises(OSError, match="space"), at_place(to_path(bucket)):
        raise OSError(errno.ENOSPC, "no space left")  # of the temporary file, on this machine
