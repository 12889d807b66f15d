"""The render job: the same bytes on any number of workers, after kills, and with bad sources."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_clips import six_sources
from made_dataset import KINDS, RECIPE, digests, make_sources, write_recipe
from made_shards import file_digest
from made_videos import MadeVideos, flip_bytes

from manifests import ShardError, UsageError
from synth import ShardSample, clip_reader, constant_track, read_dataset, read_frames, read_sample
from synth import dispatch as dispatch_module
from synth import render as render_module
from synth.job import render_plan
from synth.plan_files import read_plan, read_plan_sources, write_plan
from synth.planned import Rejected
from synth.recipe import CLIP_KINDS, PAIR_KINDS
from synth.render import render_samples
from synth.shards import TarWriter, dump_json, read_record, shard_path, write_index
from synth.status import read_status
from synth.verify import verify_output
from synth.views import View, apply_view


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sources.parquet, plan/ and shards/ (rendered without Ray)."""
    folder = tmp_path_factory.mktemp("dataset")
    sources = make_sources(folder)
    write_plan(write_recipe(folder), sources, folder / "plan")
    report = render_plan(folder / "plan", folder / "shards", workers=0)
    assert report.is_complete
    return folder


def test_every_planned_sample_is_rendered_and_verifies(dataset: Path) -> None:
    report = verify_output(dataset / "shards", dataset / "plan", deep=True)
    assert report.problems == []
    assert report.num_samples == 18
    opened = read_dataset(dataset / "shards")
    assert {kind for shard in opened.shards for kind in shard.kinds} <= set(KINDS)
    assert sum(map(len, opened.shards)) == 18


def test_a_clip_sample_shows_exactly_the_planned_frames(dataset: Path) -> None:
    plan = read_plan(dataset / "plan")
    videos = {video.video_id: video for video in read_plan_sources(plan, None)}
    shown = 0
    for shard in read_dataset(dataset / "shards").shards:
        for kind, offset, size in zip(shard.kinds, shard.offsets, shard.sizes, strict=True):
            if kind != "clip":
                continue
            sample = read_sample(shard.path, int(offset), int(size))
            (source,) = sample.meta["sources"]
            indices = source["start_frame"] + source["frame_stride"] * np.arange(8)
            frames = read_frames(videos[source["video_id"]], indices)
            expected = np.stack([apply_view(frame, View(**source["view"])) for frame in frames])
            difference = np.abs(sample.frames().astype(int) - expected)
            assert difference.mean() < 4  # JPEG only
            track = constant_track(source["label_id"], 8)
            assert np.array_equal(sample.track().weights_CT, track.weights_CT)
            shown += 1
    assert shown


def test_videos_are_decoded_once_per_group(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = clip_reader.frame_batches

    def counting(video, indices, batch=16):
        opened.append(video.video_id)
        return original(video, indices, batch)

    monkeypatch.setattr(clip_reader, "frame_batches", counting)
    plan = read_plan(dataset / "plan")
    table = read_plan_sources(plan, None)
    for _, rows in plan.shards():
        ids = {source["video_id"] for row in rows["sources"].to_pylist() for source in row}
        assert len(list(render_samples(rows.to_pylist(), table.select(ids), "raw"))) == len(rows)
    assert len(opened) == plan.record["counts"]["decodes"]


def test_a_small_budget_changes_no_pixel(dataset: Path) -> None:
    plan = read_plan(dataset / "plan")
    table = read_plan_sources(plan, None)
    _, rows = next(plan.shards())
    videos = {video.video_id: video for video in table}
    few = list(render_samples(rows.to_pylist(), videos, "raw", budget=1))
    many = list(render_samples(rows.to_pylist(), videos, "raw"))
    for one, other in zip(few, many, strict=True):
        assert not isinstance(one, Rejected)
        assert not isinstance(other, Rejected)
        assert np.array_equal(one.frames, other.frames)


@pytest.mark.slow
def test_ray_gives_the_bytes_of_this_process(dataset: Path, tmp_path: Path) -> None:
    """With one worker here; with two below, and wherever the tests kill something."""
    report = render_plan(dataset / "plan", tmp_path / "out", workers=1)
    assert report.is_complete
    assert digests(tmp_path / "out") == digests(dataset / "shards")


def test_running_again_renders_only_what_is_missing(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    render_plan(dataset / "plan", out, workers=0)
    stamp = shard_path(out, 0).stat().st_mtime_ns
    for name in (shard_path(out, 1), shard_path(out, 1, "json"), out / "dataset.json"):
        name.unlink()
    report = render_plan(dataset / "plan", out, workers=0)
    assert report.done_before == report.num_shards - 1
    assert shard_path(out, 0).stat().st_mtime_ns == stamp
    assert digests(out) == digests(dataset / "shards")


DRIVER = """
import sys
from synth.job import render_plan
render_plan(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]))
"""


def test_what_killed_drivers_leave_is_swept(dataset: Path, tmp_path: Path) -> None:
    """Unfinished writes of a shard, of the probe of the output, and of that probe's own write."""
    out = Path(shutil.copytree(dataset / "shards", tmp_path / "out"))
    left = (".shard-000000.tar.aa.part", ".shard-bb.part", "..shard-bb.part.cc.part")
    for name in left:
        (out / name).touch()
    render_plan(dataset / "plan", out, workers=0)
    assert not [name for name in left if (out / name).exists()]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_killed_driver_leaves_nothing_partial(dataset: Path, tmp_path: Path, seed: int) -> None:
    """SIGKILL at a random moment of a run without Ray, then run again: the same bytes."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", DRIVER, str(dataset / "plan"), str(out), "0"]
    rng = np.random.default_rng(seed)
    for _ in range(3):
        before = set(out.glob("*shard-*"))
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while process.poll() is None and not set(out.glob("*shard-*")) - before:
            time.sleep(0.002)  # until it has begun to write
        time.sleep(rng.random() * 0.4)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in out.glob("shard-*.json"):
            record = read_record(path)
            assert record is not None
            assert record["bytes"] == path.with_suffix(".tar").stat().st_size
    assert render_plan(dataset / "plan", out, workers=0).is_complete
    assert digests(out) == digests(dataset / "shards")


def test_a_source_that_fails_rejects_its_samples_only(tmp_path: Path) -> None:
    sources = make_sources(tmp_path)
    path = tmp_path / "turn" / "turn_1.mp4"
    broken = flip_bytes(path, tmp_path / "flipped.mp4", seed=1, count=200)
    path.write_bytes(broken.read_bytes())  # same size: damage that only decoding finds
    table = pq.read_table(sources)
    column = table.column_names.index("decoder")
    strict = table.set_column(column, "decoder", [["pyav"] * len(table)])
    pq.write_table(strict.replace_schema_metadata(table.schema.metadata), sources)
    write_plan(write_recipe(tmp_path), sources, tmp_path / "plan")
    report = render_plan(tmp_path / "plan", tmp_path / "out", workers=0)
    assert report.is_complete
    assert 0 < report.rejected < report.planned
    assert report.rendered + report.rejected == report.planned
    status = read_status(tmp_path / "out")
    assert sum(status.reasons.values()) == report.rejected
    rejected = [
        row
        for shard in range(report.num_shards)
        for row in pq.read_table(shard_path(tmp_path / "out", shard, "parquet")).to_pylist()
        if row["status"] == "rejected"
    ]
    assert all("turn_1" in row["video_ids"] and row["reason"] for row in rejected)
    assert verify_output(tmp_path / "out", tmp_path / "plan", deep=True).problems == []


EVERY_KIND = """
[synth]
frames = 8
frame_stride = 1
short_side = [48, 52]
crop = 48
samples_per_video = 4
samples_per_shard = 8
seed = 1
pal = {num_clips = 4}
[synth.kinds]
clip = 1
freeze = 1
mixup = 1
cutmix_window = 1
cutmix_view = 1
joint = 2
boundary = 3
pal = 2
clip_pair = 1
"""


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory, made_videos: MadeVideos) -> Path:
    """A folder with plan/ and shards/ of every kind but `annotated`, without loss."""
    folder = tmp_path_factory.mktemp("everything")
    write_plan(write_recipe(folder, EVERY_KIND), six_sources(made_videos), folder / "plan")
    report = render_plan(folder / "plan", folder / "shards", workers=0, codec="raw")
    assert (report.rendered, report.rejected) == (24, 0)
    return folder


def test_every_kind_renders_and_verifies(everything: Path) -> None:
    assert verify_output(everything / "shards", everything / "plan", deep=True).problems == []
    kinds = json.loads((everything / "shards" / "dataset.json").read_text())["kinds"]
    assert set(kinds) == {*CLIP_KINDS, *PAIR_KINDS}


def test_a_small_budget_changes_no_pixel_of_any_kind(everything: Path) -> None:
    plan = read_plan(everything / "plan")
    videos = {video.video_id: video for video in read_plan_sources(plan, None)}
    rows = [row for _, table in plan.shards() for row in table.to_pylist()]
    few = render_samples(rows, videos, "raw", budget=1)
    many = render_samples(rows, videos, "raw")
    for one, other in zip(few, many, strict=True):
        assert not isinstance(one, Rejected)
        assert not isinstance(other, Rejected)
        assert np.array_equal(one.frames, other.frames)


@pytest.mark.slow
def test_ray_gives_the_bytes_of_every_kind(everything: Path, tmp_path: Path) -> None:
    report = render_plan(everything / "plan", tmp_path / "out", workers=2, codec="raw")
    assert report.is_complete
    assert digests(tmp_path / "out") == digests(everything / "shards")


def forge(out: Path, change: Callable[[ShardSample], ShardSample | None]) -> str:
    """Change the first sample that `change` knows, keep every digest right; return its key."""
    dataset = json.loads((out / "dataset.json").read_text())
    for position, index in enumerate(read_dataset(out).shards):
        for path in (index.path, index.path.with_suffix(".parquet")):
            path.chmod(0o644)
        pairs = zip(index.offsets.tolist(), index.sizes.tolist(), strict=True)
        samples = [read_sample(index.path, *pair) for pair in pairs]
        forged = [change(sample) for sample in samples]
        if not any(forged):
            continue
        number = next(n for n, sample in enumerate(forged) if sample is not None)
        samples[number] = forged[number] or samples[number]
        rows = pq.read_table(index.path.with_suffix(".parquet")).to_pylist()
        with open(index.path, "wb") as file:
            tar = TarWriter(file)
            for row, sample in zip(rows, samples, strict=True):
                row["offset"] = tar.offset
                for extension, member in sample.members.items():
                    tar.add(f"{sample.key}.{extension}", member)
                tar.add(f"{sample.key}.json", dump_json(dict(sample.meta)))
                row["bytes"] = tar.offset - row["offset"]
            sha256, num_bytes = tar.close(), tar.offset
        write_index(index.path.with_suffix(".parquet"), rows)
        done = index.path.with_suffix(".json")
        record = json.loads(done.read_text()) | {"sha256": sha256, "bytes": num_bytes}
        record["index_sha256"] = file_digest(index.path.with_suffix(".parquet"))
        done.write_text(json.dumps(record))
        dataset["shard_digests"][position] = sha256
        (out / "dataset.json").write_text(json.dumps(dataset))
        return samples[number].key
    raise AssertionError("no sample to forge")


def edited(name: str, value: Callable[[Any], Any]) -> Callable[[ShardSample], ShardSample | None]:
    def change(sample: ShardSample) -> ShardSample | None:
        if sample.meta.get(name) is None:
            return None
        return replace(sample, meta={**sample.meta, name: value(sample.meta[name])})

    return change


def swapped(sample: ShardSample) -> ShardSample | None:
    if sample.meta["kind"] not in ("pal", "clip_pair"):
        return None
    (query, first), (key, second) = sample.members.items()
    return replace(sample, members={query: second, key: first})


FORGERIES = {
    "boundary_class": (edited("boundary_class", lambda found: (found + 1) % 4), "labels"),
    "change_point": (edited("change_point", lambda found: found + 1), "labels"),
    "s": (edited("s", lambda found: [found[0], found[1] % 3 + 1]), "labels"),
    "e": (edited("e", lambda found: [*found[::-1], 1]), "labels"),
    "clip_len": (edited("clip_len", lambda found: found + 1), "labels"),
    "weights": (edited("weights", lambda found: [[0.25] * 8 for _ in found]), "labels"),
    "query and key": (swapped, "pixels differ"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_deep_verify_finds_what_digests_cannot(everything: Path, tmp_path: Path, name: str) -> None:
    change, says = FORGERIES[name]
    shutil.copytree(everything / "shards", tmp_path / "out")
    key = forge(tmp_path / "out", change)
    assert verify_output(tmp_path / "out").problems == []  # every digest is right again
    (problem,) = verify_output(tmp_path / "out", everything / "plan", deep=True).problems
    assert f"sample {key}: " in problem
    assert says in problem


def test_output_of_another_plan_is_refused(dataset: Path, tmp_path: Path) -> None:
    other = RECIPE.replace("seed = 7", "seed = 8")
    write_plan(write_recipe(tmp_path, other), dataset / "sources.parquet", tmp_path / "plan")
    with pytest.raises(UsageError, match="another plan"):
        render_plan(tmp_path / "plan", dataset / "shards", workers=0)
    with pytest.raises(UsageError, match="codec"):
        render_plan(dataset / "plan", dataset / "shards", workers=0, codec="raw")


def test_a_plan_made_elsewhere_renders_as_it_says(dataset: Path, tmp_path: Path) -> None:
    rows = pq.read_table(dataset / "plan" / "plan.parquet")
    (tmp_path / "plan").mkdir()
    pq.write_table(rows.slice(0, 3), tmp_path / "plan" / "plan.parquet")
    with pytest.raises(UsageError, match="--sources"):
        render_plan(tmp_path / "plan", tmp_path / "out", workers=0)
    sources = dataset / "sources.parquet"
    report = render_plan(tmp_path / "plan", tmp_path / "out", workers=0, sources=sources)
    assert (report.rendered, report.planned) == (3, 3)
    assert len(read_dataset(tmp_path / "out").shards[0]) == 3


def test_malformed_rows_are_rejected_with_the_reason(dataset: Path, tmp_path: Path) -> None:
    rows = pq.read_table(dataset / "plan" / "plan.parquet").slice(0, 3).to_pylist()
    leaf = {"op": "clip", "source": 0}
    rows[0]["tree"] = json.dumps({"op": "freeze", "r": 1, "m": 99, "inputs": [leaf]})
    rows[1]["sources"][0]["start_frame"] = 10**9
    schema = pq.read_schema(dataset / "plan" / "plan.parquet")
    (tmp_path / "plan").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "plan" / "plan.parquet")
    sources = dataset / "sources.parquet"
    dry = render_plan(tmp_path / "plan", tmp_path / "out", sources=sources, dry_run=True)
    assert (dry.rendered, dry.rejected) == (0, 2)
    assert all(any(row["sample_key"] in why for why in dry.reasons) for row in rows[:2])
    report = render_plan(tmp_path / "plan", tmp_path / "out", workers=0, sources=sources)
    assert (report.rendered, report.rejected) == (1, 2)
    assert all(reason.startswith("invalid plan row") for reason in report.reasons)


def test_a_full_disk_loses_nothing_that_was_done(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rendering meets ENOSPC on the third shard; what is done stays, the next run finishes."""
    original = render_module.write_index
    calls = []

    def full(path, rows):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return original(path, rows)

    monkeypatch.setattr(render_module, "write_index", full)
    report = render_plan(dataset / "plan", tmp_path / "out", workers=0)
    assert next(iter(report.failed.values())).startswith("No space left on device")
    assert not (tmp_path / "out" / "dataset.json").exists()
    monkeypatch.setattr(render_module, "write_index", original)
    again = render_plan(dataset / "plan", tmp_path / "out", workers=0)
    assert again.done_before == again.num_shards - len(report.failed)
    assert digests(tmp_path / "out") == digests(dataset / "shards")


def test_a_shard_that_is_not_in_the_output_is_not_done(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker says that it made a shard, on a disk that only its node sees."""
    original = dispatch_module.render_shard

    def elsewhere(task):
        return original(replace(task, out=str(tmp_path / "node")) if task.shard == 1 else task)

    monkeypatch.setattr(dispatch_module, "render_shard", elsewhere)
    out = tmp_path / "out"
    report = render_plan(dataset / "plan", out, workers=0)
    assert not report.is_complete
    assert report.failed.keys() == {1}
    assert "all nodes must see the same folder" in report.failed[1]
    assert not (out / "dataset.json").exists()
    monkeypatch.undo()
    assert render_plan(dataset / "plan", out, workers=0).is_complete
    assert digests(out) == digests(dataset / "shards")


def test_a_shard_that_another_driver_made_meanwhile_is_done(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another driver ends first and sweeps what we were writing."""
    out, original = tmp_path / "out", dispatch_module.render_shard

    def swept(task):
        original(task)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a part")

    monkeypatch.setattr(dispatch_module, "render_shard", swept)
    report = render_plan(dataset / "plan", out, workers=0)
    assert report.is_complete
    assert digests(out) == digests(dataset / "shards")


@pytest.mark.parametrize("change", [{"planned": None}, {"rejected": "many"}, {"kinds": 3}])
def test_a_done_record_that_is_none_is_one_sentence(
    dataset: Path, tmp_path: Path, change: dict
) -> None:
    out = tmp_path / "out"
    shutil.copytree(dataset / "shards", out)
    path = shard_path(out, 1, "json")
    path.chmod(0o644)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ShardError, match="done record"):
        render_plan(dataset / "plan", out, workers=0)


@pytest.mark.parametrize("codec", ["h264", "raw"])
def test_other_codecs_verify(dataset: Path, tmp_path: Path, codec: str) -> None:
    render_plan(dataset / "plan", tmp_path / "out", workers=0, codec=codec)
    assert verify_output(tmp_path / "out", dataset / "plan", deep=True).problems == []


def test_verify_finds_a_flipped_bit_and_a_truncated_tar(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    render_plan(dataset / "plan", out, workers=0)
    path = shard_path(out, 1)
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[5000] ^= 4
    path.write_bytes(content)
    (problem,) = verify_output(out).problems
    assert "sha256" in problem
    path.write_bytes(content[:-512])
    (problem,) = verify_output(out).problems
    assert "bytes" in problem


def test_lost_and_truncated_shards_are_rendered_again(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    render_plan(dataset / "plan", out, workers=0)
    shard_path(out, 0).unlink()
    shard_path(out, 1, "parquet").unlink()
    shard_path(out, 2).chmod(0o644)
    os.truncate(shard_path(out, 2), 1000)
    status = read_status(out)
    assert (status.done, status.planned, status.is_complete) == (0, 3, False)
    assert render_plan(dataset / "plan", out, workers=0).done_before == 0
    assert read_status(out).is_complete
    assert digests(out) == digests(dataset / "shards")


def test_status_against_another_plan_is_refused(dataset: Path, tmp_path: Path) -> None:
    rows = pq.read_table(dataset / "plan" / "plan.parquet")
    pq.write_table(rows.slice(0, 3), tmp_path / "plan.parquet")
    with pytest.raises(UsageError, match="shards of another plan"):
        read_status(dataset / "shards", tmp_path)


def test_deep_verify_of_a_plan_made_elsewhere(dataset: Path, tmp_path: Path) -> None:
    sources = dataset / "sources.parquet"
    rows = pq.read_table(dataset / "plan" / "plan.parquet")
    pq.write_table(rows.slice(0, 3), tmp_path / "plan.parquet")
    render_plan(tmp_path, tmp_path / "out", workers=0, sources=sources)
    with pytest.raises(UsageError, match="--sources"):
        verify_output(tmp_path / "out", tmp_path, deep=True)
    report = verify_output(tmp_path / "out", tmp_path, deep=True, sources=sources)
    assert (report.num_samples, report.problems) == (3, [])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda row: row | {"kind": None}, "kind must have a value"),
        (lambda row: row | {"sources": None}, "sources must have a value"),
        (lambda row: row | {"shard": 2**40}, "not in range"),
        (lambda row: source_with(row, video_id="nobody"), "video 'nobody'"),
        (lambda row: source_with(row, label_id=3), "one of the 3 classes"),
        (lambda row: source_with(row, frame_stride=2**40), "not in range"),
    ],
)
def test_plans_that_cannot_be_meant_are_refused_at_once(
    dataset: Path, tmp_path: Path, change, says: str
) -> None:
    """What no row of the table can answer for ends before the first shard is written."""
    rows = pq.read_table(dataset / "plan" / "plan.parquet").slice(0, 2).to_pylist()
    pq.write_table(pa.Table.from_pylist([rows[0], change(rows[1])]), tmp_path / "plan.parquet")
    with pytest.raises(UsageError, match=says):
        render_plan(tmp_path, tmp_path / "out", workers=0, sources=dataset / "sources.parquet")
    assert not (tmp_path / "out").exists()


def source_with(row, **changes):
    return row | {"sources": [row["sources"][0] | changes]}


def test_a_negative_number_of_workers_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="workers must be >= 0"):
        render_plan(dataset / "plan", tmp_path / "out", workers=-1)


def test_dry_run_writes_nothing(dataset: Path, tmp_path: Path) -> None:
    report = render_plan(dataset / "plan", tmp_path / "out", dry_run=True)
    assert (report.num_shards, report.done_before, report.rejected) == (3, 0, 0)
    assert not (tmp_path / "out").exists()


def test_joining_a_cluster_that_is_not_there_is_said_soon(dataset: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(UsageError, match=r"no Ray cluster answers at '127.0.0.1:1'"):
        render_plan(dataset / "plan", tmp_path / "out", address="127.0.0.1:1")
    assert time.monotonic() - start < 15
