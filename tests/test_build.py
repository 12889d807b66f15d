"""Building the sources table: parallel, resumable, and unharmed by what decoders do."""

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from manifests import UsageError, read_sources, to_path
from manifests.build import build_sources, probe_one

pytestmark = pytest.mark.slow

# ------------------------------------------- what children run in place of a decoder, by file name


def scripted_probe(path: str, **request: Any) -> dict[str, Any]:
    """Do what the file's name says, and leave a mark beside it for every call."""
    name = Path(path).stem
    tried = Path(path).with_suffix(".tried")
    num_calls = len(tried.read_text()) if tried.exists() else 0
    tried.write_text("x" * (num_calls + 1))
    if name.startswith("exit"):
        os._exit(7)
    if name.startswith("crash") or (name.startswith("flaky") and num_calls == 0):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("hang"):
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        while True:
            pass
    if name.startswith("orphan") and num_calls == 0:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    print("libraries print to stdout too", flush=True)
    status = os.stat(path)
    if name.startswith("bad"):
        return {"num_bytes": status.st_size, "reason": "is damaged"}
    columns = {"num_frames": 10, "fps_num": 25, "codec": "h264", "end_frame": 10}
    stamp = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    if target := request.get("target"):
        if name.startswith("full") and num_calls == 0:
            return {"errno": errno.ENOSPC, "path": target}
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return {"num_bytes": status.st_size, "stamp": stamp, "columns": columns}


def tree(root: Path, *names: str) -> Path:
    (root / "run").mkdir(parents=True)
    for name in names:
        (root / f"run/{name}.mp4").write_text(name)
    return root


def num_calls(root: Path) -> dict[str, int]:
    return {path.stem: len(path.read_text()) for path in root.glob("run/*.tried")}


def forget_calls(root: Path) -> None:
    for path in root.glob("run/*.tried"):
        path.unlink()


def build(root: Path, out: Path | str, **options: Any):
    return build_sources(root, out, probe_file=scripted_probe, **options)


# ------------------------------------------------------------------------------- real probing


def test_made_files_good_and_bad(made_videos, tmp_path: Path) -> None:
    names = ["plain", "rotated_90", "cut_moov_last", "text", "empty", "audio_only"]
    for name in names:
        (tmp_path / "tree/run").mkdir(parents=True, exist_ok=True)
        shutil.copy(made_videos[name], tmp_path / f"tree/run/{name}.mp4")
    report = build_sources(tmp_path / "tree", tmp_path / "sources.parquet", workers=1)
    table = read_sources(tmp_path / "sources.parquet")
    rows = {video.video_id: video for video in table}
    assert sorted(rows) == sorted(names)
    assert {name for name in rows if rows[name].status == "ok"} == {"plain", "rotated_90"}
    assert (report.total, report.ok, report.rejected) == (6, 2, 4)
    assert sum(report.reasons.values()) == 4
    for name in ("cut_moov_last", "text", "empty", "audio_only"):
        assert rows[name].reason in report.reasons
        assert str(tmp_path) not in rows[name].reason
        assert rows[name].num_bytes == os.path.getsize(rows[name].path)
    plain, turned = rows["plain"], rows["rotated_90"]
    assert (plain.num_frames, plain.first_frame, plain.end_frame) == (60, 0, 60)
    assert (plain.width, plain.height, plain.rotation) == (128, 96, 0)
    assert (turned.width, turned.height) == (128, 96)
    assert turned.rotation in (90, 270)
    assert (plain.label, plain.label_id, table.classes) == ("run", 0, ("run",))
    assert sorted(os.listdir(tmp_path)) == ["sources.parquet", "tree"]


def test_a_part_of_a_video(made_videos, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    shutil.copy(made_videos["plain"], tmp_path / "videos/id.mp4")  # 2.4 s at 25 frames/s
    header = "label,youtube_id,time_start,time_end,split\n"
    (tmp_path / "list.csv").write_text(header + "run,id,1,2,val\nrun,id,5,9,val\nrun,no,1,2,val\n")
    report = build_sources(
        tmp_path / "list.csv", tmp_path / "s.parquet", videos=tmp_path / "videos", check="packets"
    )
    inside, beyond = read_sources(tmp_path / "s.parquet")
    assert (inside.first_frame, inside.end_frame, inside.num_frames) == (25, 50, 60)
    assert (inside.start_seconds, inside.end_seconds, inside.subset) == (1.0, 2.0, "val")
    assert beyond.status == "rejected"
    assert (report.missing, report.missing_examples) == (1, ("no_000001_000002",))
    assert Path(report.missing_path).read_text() == "no_000001_000002\n"


def test_what_is_not_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    reply = probe_one(str(tmp_path / "pipe.mp4"), None, None, "decode")
    assert reply == {"num_bytes": 0, "reason": "is not a file"}
    reply = probe_one(str(tmp_path / "gone.mp4"), None, None, "decode")
    assert reply == {"num_bytes": 0, "reason": "cannot be opened: No such file or directory"}


@pytest.mark.slow
def test_real_clips(shared: Path, tmp_path: Path) -> None:
    report = build_sources(shared / "data/clips/trimmed", tmp_path / "s.parquet")
    assert (report.total, report.ok, report.num_classes) == (36, 36, 24)
    with open(shared / "data/clips/clips.csv", newline="") as file:
        listed = {row["path"]: row for row in csv.DictReader(file)}
    for video in read_sources(tmp_path / "s.parquet"):
        row = listed[os.path.relpath(video.path, shared / "data/clips")]
        assert (video.num_frames, video.label) == (int(row["num_frames"]), row["label"])
        assert (video.width, video.height) == (int(row["width"]), int(row["height"]))
        assert video.num_bytes == int(row["bytes"])


def test_the_real_kinetics_list_with_three_videos(shared, made_videos, tmp_path: Path) -> None:
    annotations = shared / "data/annotations"
    with open(annotations / "kinetics-400_val.csv", newline="") as file:
        clips = list(csv.DictReader(file))[5::7000]
    for clip in clips:
        start, end = int(clip["time_start"]), int(clip["time_end"])
        folder = tmp_path / "videos" / clip["label"].replace(" ", "_")
        folder.mkdir(parents=True)
        shutil.copy(made_videos["plain"], folder / f"{clip['youtube_id']}_{start:06}_{end:06}.mp4")
    report = build_sources(
        annotations / "kinetics-400_val.csv",
        tmp_path / "sources.parquet",
        videos=tmp_path / "videos",
        classes=annotations / "kinetics-400_labels.txt",
        check="packets",
        workers=1,
    )
    assert (report.total, report.ok, report.missing) == (3, 3, 19_906 - 3)
    assert len(Path(report.missing_path).read_text().splitlines()) == 19_903
    table = read_sources(tmp_path / "sources.parquet")
    names = (annotations / "kinetics-400_labels.txt").read_text().splitlines()
    assert [names[video.label_id] for video in table] == [video.label for video in table]
    assert sorted(video.label for video in table) == sorted(clip["label"] for clip in clips)


# ------------------------------------------------------------------------------- crashes and kills


@pytest.mark.slow
def test_a_crash_is_a_row(tmp_path: Path, capfd) -> None:
    root = tree(tmp_path / "t", "a", "bad", "crash", "exit", "flaky", "hang", "z")
    report = build(root, tmp_path / "s.parquet", workers=2)
    assert report.reasons == {
        "is damaged": 1,
        "the decoder crashed (exit status 7)": 1,
        "the decoder crashed (segmentation fault)": 1,
        "the decoder ran past 120 s and 10 s per MB": 1,
    }
    rows = {video.video_id: video for video in read_sources(tmp_path / "s.parquet")}
    assert {name for name, row in rows.items() if row.status == "ok"} == {"a", "flaky", "z"}
    assert rows["crash"].num_bytes == len("crash")
    calls = {"a": 1, "bad": 1, "crash": 2, "exit": 2, "flaky": 2, "hang": 1, "z": 1}
    assert num_calls(root) == calls
    assert capfd.readouterr().out == ""  # stdout is for results


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    root, out = tree(tmp_path / "t", "a", "b", "c", "orphan", "z", "bad"), tmp_path / "s.parquet"
    program = (
        "from pathlib import Path; import sys; from test_build import build; "
        "build(Path(sys.argv[1]), Path(sys.argv[2]), workers=1)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", program, root, out],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    assert num_calls(root) == {"a": 1, "b": 1, "bad": 1, "c": 1, "orphan": 1}
    partial_path = tmp_path / "s.parquet.partial.jsonl"
    with open(partial_path, "a") as file:
        file.write('{"format": 1, "request": {"path": "half a li')
    (root / "run/b.mp4").write_text("another file")
    os.utime(root / "run/c.mp4", ns=(0, 0))

    report = build(root, out, workers=1)
    # again: what changed in size or in time, what was rejected, what was being read
    calls = {"a": 1, "b": 2, "bad": 2, "c": 2, "orphan": 2, "z": 1}
    assert num_calls(root) == calls
    assert (report.resumed, report.total, report.ok) == (1, 6, 5)
    assert not partial_path.exists()
    resumed = out.read_bytes()
    forget_calls(root)
    (root / "run/orphan.tried").write_text("x")
    build(root, out, workers=2)
    assert out.read_bytes() == resumed
    assert min(num_calls(root).values()) == 1  # a complete table is built anew


@pytest.mark.slow
def test_another_check_or_part_is_probed_again(tmp_path: Path) -> None:
    root, out = tree(tmp_path / "t", "a"), tmp_path / "s.parquet"
    status = (root / "run/a.mp4").stat()
    request = {
        "path": str(root / "run/a.mp4"),
        "start_seconds": None,
        "end_seconds": None,
        "check": "decode",
    }
    record = {
        "format": 1,
        "request": request,
        "stamp": {"size": status.st_size, "mtime_ns": status.st_mtime_ns},
        "reply": {"num_bytes": 1, "columns": {"num_frames": 99}},
    }
    for change, resumed in [
        ({"request": request | {"start_seconds": 1.0}}, 0),
        ({"request": request | {"check": "packets"}}, 0),
        ({"format": 0}, 0),
        ({}, 1),
    ]:
        (tmp_path / "s.parquet.partial.jsonl").write_text(json.dumps(record | change) + "\n")
        assert build(root, out).resumed == resumed
        assert read_sources(out)[0].num_frames == (99 if resumed else 10)


# ------------------------------------------------------------------------------- the table


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    root = tree(tmp_path / "t", *(f"{letter}{n}" for letter in "xab" for n in range(8)), "bad")
    build(root, tmp_path / "one.parquet", workers=1)
    build(root, tmp_path / "three.parquet", workers=3)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "three.parquet").read_bytes()
    ids = pq.read_table(tmp_path / "one.parquet").column("video_id").to_pylist()
    assert ids == sorted(ids)


@pytest.mark.slow
def test_paths_below_the_table_are_relative(tmp_path: Path) -> None:
    root = tree(tmp_path / "t", "a")
    for out, path in [
        (tmp_path / "s.parquet", "t/run/a.mp4"),
        (root / "s.parquet", "run/a.mp4"),
        (tmp_path / "t/ru" / "s.parquet", str(root / "run/a.mp4")),
        (tmp_path / "new/s.parquet", str(root / "run/a.mp4")),
    ]:
        build(root, out)
        assert pq.read_table(out).column("path").to_pylist() == [path]
        assert read_sources(out)[0].path == str(root / "run/a.mp4")


@pytest.mark.slow
def test_a_relative_source_gives_the_same_table(tmp_path: Path, monkeypatch) -> None:
    root = tree(tmp_path / "t", "a", "b")
    build(root, tmp_path / "absolute.parquet")
    monkeypatch.chdir(tmp_path)
    build(Path("t"), Path("relative.parquet"))
    assert Path("relative.parquet").read_bytes() == Path("absolute.parquet").read_bytes()


@pytest.mark.slow
def test_a_table_in_an_object_store(bucket: str, tmp_path: Path, monkeypatch) -> None:
    root = tree(tmp_path / "t", "a")
    (tmp_path / "list.csv").write_text(
        "label,youtube_id,time_start,time_end\nrun,a,0,10\nrun,gone,0,10\n"
    )
    monkeypatch.chdir(tmp_path)
    report = build(Path("list.csv"), f"{bucket}/deep/s.parquet", videos=root)
    assert report.missing_path == f"{bucket}/deep/s.parquet.missing.txt"
    table = read_sources(f"{bucket}/deep/s.parquet")
    assert [video.path for video in table] == [str(root / "run/a.mp4")]
    assert sorted(os.listdir(tmp_path)) == ["list.csv", "t"]
    (root / "run/gone.mp4").touch()
    assert build(Path("list.csv"), f"{bucket}/deep/s.parquet", videos=root).missing_path is None
    assert not to_path(f"{bucket}/deep/s.parquet.missing.txt").exists()


@pytest.mark.slow
def test_an_old_list_of_missing_videos_goes_away(tmp_path: Path) -> None:
    root, out = tree(tmp_path / "t", "id"), tmp_path / "s.parquet"
    (tmp_path / "list.csv").write_text(
        "label,youtube_id,time_start,time_end\nrun,id,0,10\nrun,id2,0,10\n"
    )
    assert build(tmp_path / "list.csv", out, videos=root).missing == 1
    (root / "run/id2.mp4").touch()
    report = build(tmp_path / "list.csv", out, videos=root)
    assert (report.missing, report.missing_path) == (0, None)
    assert not (tmp_path / "s.parquet.missing.txt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "--workers must be >= 1, got 0"),
        ({"check": "glance"}, "--check must be one of decode, packets, got 'glance'"),
        ({"format": "folders"}, "nearest is 'folder'"),
        ({"out": "t"}, "must be a file, but .* is a folder"),
        ({"source": "none"}, "no such folder or annotation file"),
        ({"source": "list.csv", "out": "list.csv"}, "must not overwrite the list"),
        ({"source": "list.csv", "videos": "t"}, "none of the 1 listed videos was found in"),
    ],
)
def test_wrong_use_writes_nothing(tmp_path: Path, options: dict, message: str) -> None:
    tree(tmp_path / "t", "a")
    (tmp_path / "list.csv").write_text("label,youtube_id,time_start,time_end\nrun,id,0,10\n")
    arguments = {"source": "t", "out": "new/s.parquet"} | options
    for name in {"source", "out", "videos"} & arguments.keys():
        arguments[name] = tmp_path / arguments[name]
    with pytest.raises(UsageError, match=message):
        build(arguments.pop("source"), arguments.pop("out"), **arguments)
    assert sorted(os.listdir(tmp_path)) == ["list.csv", "t"]
