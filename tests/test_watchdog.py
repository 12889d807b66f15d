"""A decoder that hangs is ended, named, and its video rejected."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from made_dataset import digests, make_sources, write_recipe

from manifests import UsageError
from synth import render_plan, write_plan
from synth.verify import read_status
from synth.watchdog import expired_video, watched

HANG = """
import pathlib, re, sys, time
from synth.watchdog import watched
with watched("a video", pathlib.Path(sys.argv[1]), 0.3):
    {block}
"""
HOLDS_THE_LOCK = "re.match('(a+)+$', 'a' * 64 + 'b')"  # C code that never lets Python run


@pytest.mark.slow
@pytest.mark.parametrize("block", [HOLDS_THE_LOCK, "time.sleep(60)"])
def test_a_process_that_hangs_is_ended_and_says_where(tmp_path: Path, block: str) -> None:
    record = tmp_path / "record"
    command = [sys.executable, "-c", HANG.format(block=block), str(record)]
    assert subprocess.run(command, timeout=30, check=False).returncode == 1
    assert expired_video(record) == "a video"
    assert not record.exists()


@pytest.mark.slow
def test_a_process_that_ends_otherwise_accuses_no_video(tmp_path: Path) -> None:
    record = tmp_path / "record"
    command = [sys.executable, "-c", HANG.format(block="__import__('os')._exit(9)"), str(record)]
    assert subprocess.run(command, timeout=30, check=False).returncode == 9
    assert record.exists()
    assert expired_video(record) is None
    assert expired_video(record) is None


def test_nothing_is_left_of_a_block_that_ends(tmp_path: Path) -> None:
    with watched("v", tmp_path / "record", 60):
        assert (tmp_path / "record").read_text() == "v\n"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), watched("v", tmp_path / "record", 60):
        raise KeyError
    assert expired_video(tmp_path / "record") is None


@pytest.mark.slow
def test_a_source_that_hangs_is_rejected_and_the_rest_rendered(tmp_path: Path) -> None:
    """A pipe that nobody writes to: whoever opens it waits for ever."""
    os.mkfifo(tmp_path / "pipe.mp4")
    sources = make_sources(tmp_path)
    write_plan(write_recipe(tmp_path), sources, tmp_path / "plan")
    table = pq.read_table(sources)
    rows = table.to_pylist()
    rows[2] |= {"path": str(tmp_path / "pipe.mp4"), "decoder": "pyav", "num_bytes": 0}
    hanging = table.from_pylist(rows, table.schema)
    pq.write_table(hanging, tmp_path / "hanging.parquet")
    write_plan(tmp_path / "recipe.toml", tmp_path / "hanging.parquet", tmp_path / "hanging")
    report = render_plan(tmp_path / "hanging", tmp_path / "out", workers=2, decode_seconds=4)
    assert report.is_complete
    assert 0 < report.rejected < report.planned == report.rendered + report.rejected
    assert set(report.reasons) == {"decoding was stopped"}
    assert sum(read_status(tmp_path / "out").reasons.values()) == report.rejected
    assert not list((tmp_path / "out").glob(".*"))
    once = digests(tmp_path / "out")
    again = render_plan(tmp_path / "hanging", tmp_path / "out", workers=1, decode_seconds=4)
    assert (again.done_before, again.rejected) == (again.num_shards, report.rejected)
    assert digests(tmp_path / "out") == once


def test_a_deadline_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the decoding of a video needs more than 0 s"):
        render_plan(tmp_path, tmp_path / "out", decode_seconds=0)
