"""Sources, segments and plans in an object store: the bytes of local ones, found beside them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_plans import CLASSES, made_recipe, made_sources, made_video, rows_on_disk
from made_videos import MadeVideos

from manifests import (
    UsageError,
    read_segments,
    read_sources,
    to_path,
    write_segments,
    write_sources,
)
from synth import write_plan
from synth.plan_files import Plan, read_plan, read_plan_sources

pytestmark = pytest.mark.slow

ANNOTATED: dict[str, Any] = {"kinds": "{annotated = 1}", "frames": 4, "frame_stride": 1}


def upload(local: Path, url: str) -> str:
    """Put a local file at a URL."""
    to_path(url).write_bytes(local.read_bytes())
    return url


@pytest.fixture
def remote(tmp_path: Path, bucket: str) -> Plan:
    """Return a plan in a bucket, of sources beside its folder."""
    sources = upload(made_sources(tmp_path), f"{bucket}/k400/sources.parquet")
    write_plan(made_recipe(tmp_path), sources, f"{bucket}/k400/PLAN")
    return read_plan(f"{bucket}/k400/PLAN")


def test_a_plan_in_a_bucket_has_the_bytes_of_a_local_one(
    remote: Plan, tmp_path: Path, bucket: str
) -> None:
    report = write_plan(tmp_path / "recipe.toml", tmp_path / "sources.parquet", tmp_path / "PLAN")
    local = read_plan(tmp_path / "PLAN")
    for name in ("plan.parquet", "plan.json"):
        assert remote.path.with_name(name).read_bytes() == local.path.with_name(name).read_bytes()
    assert (remote.digest, remote.record) == (local.digest, report.record)
    assert remote.num_samples == 12
    assert rows_on_disk(remote) == rows_on_disk(local)
    found = sorted(path.name for path in to_path(f"{bucket}/k400/PLAN").iterdir())
    assert found == ["plan.json", "plan.parquet"]


def test_a_plan_names_its_sources_beside_it(remote: Plan, tmp_path: Path, bucket: str) -> None:
    assert remote.record["sources"] == "../sources.parquet"
    table = read_plan_sources(remote, None)
    assert table.folder == f"{bucket}/k400"
    assert table[1].path == f"{bucket}/k400/dive/v001.mp4"
    write_plan(tmp_path / "recipe.toml", f"{bucket}/k400/sources.parquet", tmp_path / "PLAN")
    plan = read_plan(tmp_path / "PLAN")
    assert plan.record["sources"] == f"{bucket}/k400/sources.parquet"
    assert read_plan_sources(plan, None).digest == table.digest


def test_local_sources_of_a_remote_plan_are_named_absolute(tmp_path: Path, bucket: str) -> None:
    sources = made_sources(tmp_path)
    write_plan(made_recipe(tmp_path), sources, f"{bucket}/PLAN")
    plan = read_plan(f"{bucket}/PLAN")
    assert plan.record["sources"] == str(sources)
    assert len(read_plan_sources(plan, None)) == 12


def test_tables_round_trip(tmp_path: Path, bucket: str) -> None:
    local, url = tmp_path / "sources.parquet", f"{bucket}/a/sources.parquet"
    videos = [made_video(0, path="../v.mp4"), made_video(1, path="s3://else/v.mp4")]
    for path in (local, url):
        write_sources(path, videos, CLASSES)
    assert to_path(url).read_bytes() == local.read_bytes()
    here, there = read_sources(local), read_sources(url)
    assert (here.digest, here.classes) == (there.digest, there.classes)
    assert here.table.equals(there.table)
    assert [video.path for video in there] == [f"{bucket}/v.mp4", "s3://else/v.mp4"]
    row = {"video_id": "v000", "label": "dive", "label_id": 1, "start_seconds": 0.0}
    write_segments(f"{bucket}/segments.parquet", [{**row, "end_seconds": 1.5}], CLASSES)
    (segment,) = read_segments(f"{bucket}/segments.parquet").to_pylist()
    assert segment == {**row, "end_seconds": 1.5, "subset": None}


def test_a_table_cannot_name_videos_outside_of_its_bucket(bucket: str) -> None:
    url = f"{bucket}/a/sources.parquet"
    write_sources(url, [made_video(0, path="../../other/v.mp4")], CLASSES)
    table = read_sources(url)
    with pytest.raises(UsageError, match="must lead to an object of its bucket"):
        table[0]


def test_segments_and_videos_beside_a_remote_table(
    made_videos: MadeVideos, tmp_path: Path, bucket: str
) -> None:
    clip = made_videos["plain"]
    upload(Path(clip), f"{bucket}/set/v000.mp4")
    shutil.copy(clip, tmp_path / "v000.mp4")
    row = {"video_id": "v000", "label": "dive", "label_id": 1}
    for folder in (str(tmp_path), f"{bucket}/set"):
        write_sources(f"{folder}/sources.parquet", [made_video(0, path="v000.mp4")], CLASSES)
        segment = {**row, "start_seconds": 0.2, "end_seconds": 0.6}
        write_segments(f"{folder}/segments.parquet", [segment], CLASSES)
        write_plan(
            made_recipe(tmp_path, **ANNOTATED), f"{folder}/sources.parquet", f"{folder}/PLAN"
        )
    local, remote = read_plan(tmp_path / "PLAN"), read_plan(f"{bucket}/set/PLAN")
    assert remote.record == local.record
    assert remote.record["segments"] == "../segments.parquet"
    assert rows_on_disk(remote) == rows_on_disk(local)


def test_another_plan_in_the_same_place_is_told(remote: Plan, tmp_path: Path, bucket: str) -> None:
    sources, out = f"{bucket}/k400/sources.parquet", f"{bucket}/k400/PLAN"
    assert not write_plan(tmp_path / "recipe.toml", sources, out).replaced
    assert write_plan(made_recipe(tmp_path, seed=6), sources, out).replaced


def test_a_torn_or_foreign_object_is_no_plan(remote: Plan) -> None:
    content = remote.path.read_bytes()
    for bad in (b"", b"not parquet", content[:-9]):
        remote.path.write_bytes(bad)
        with pytest.raises(UsageError, match="not a plan"):
            read_plan(remote.path.parent)
    remote.path.write_bytes(content)
    remote.path.with_name("plan.json").write_text(json.dumps({"plan_digest": "0"}))
    with pytest.raises(UsageError, match=r"plan\.json is of another plan\.parquet"):
        read_plan(remote.path.parent)


READERS: list[tuple[Callable[[str], object], str]] = [
    (read_plan, "no plan.parquet in"),
    (read_sources, "no such table"),
    (read_segments, "no such table"),
]


@pytest.mark.parametrize(("read", "words"), READERS)
def test_what_is_not_there_is_one_sentence(
    read: Callable[[str], object], words: str, bucket: str
) -> None:
    for url in (f"{bucket}/none", f"{bucket}/no/such/folder", bucket):
        with pytest.raises(UsageError, match=words):
            read(url)
    with pytest.raises(UsageError, match="there is no bucket 's3://no-such-bucket'"):
        read("s3://no-such-bucket/none")


def test_a_missing_bucket_is_told_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no bucket"):
        write_plan(tmp_path / "no.toml", tmp_path / "no.parquet", "s3://no-such-bucket/PLAN")
    with pytest.raises(UsageError, match="there is no bucket"):
        write_sources("s3://no-such-bucket/sources.parquet", [made_video(0)], CLASSES)
