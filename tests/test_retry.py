"""Rejections are tried again where a source file is another now, and nowhere else."""

from pathlib import Path

import pytest
from made_dataset import digests, make_sources, write_recipe

from manifests import UsageError
from synth import read_dataset, render_plan, write_plan
from synth.shards import read_record
from synth.status import read_status
from synth.verify import verify_output

REASON = "changed since it was probed"


@pytest.mark.slow
def test_a_restored_file_is_tried_again(tmp_path: Path) -> None:
    sources = make_sources(tmp_path)
    plan, out, whole = (tmp_path / name for name in ("plan", "out", "whole"))
    write_plan(write_recipe(tmp_path), sources, plan)
    assert render_plan(plan, whole, workers=0).rejected == 0
    video = tmp_path / "turn" / "turn_1.mp4"
    content = video.read_bytes()
    video.write_bytes(content[:-100])
    assert 0 < render_plan(plan, out, workers=0).rejected < 18
    (found,) = read_status(out).reasons
    assert found.startswith(REASON)

    report = render_plan(plan, out, workers=0, retry_rejected=REASON)  # nothing changed yet
    assert (report.taken_back, report.done_before) == (0, report.num_shards)
    assert 0 < report.unchanged <= report.num_shards

    video.write_bytes(content)
    assert render_plan(plan, out, workers=0).done_before == report.num_shards  # not asked to
    again = render_plan(plan, out, workers=0, retry_rejected=REASON)
    assert (again.taken_back, again.unchanged) == (report.unchanged, 0)
    assert again.done_before == again.num_shards - again.taken_back
    assert (again.rendered, again.rejected) == (18, 0)
    assert digests(out) == digests(whole)


@pytest.mark.slow
def test_a_folder_is_unfinished_until_the_shards_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = make_sources(tmp_path)
    plan, out = tmp_path / "plan", tmp_path / "out"
    write_plan(write_recipe(tmp_path), sources, plan)
    video = tmp_path / "zoom" / "zoom_0.mp4"
    content = video.read_bytes()
    video.unlink()
    render_plan(plan, out, workers=0)
    records = [read_record(path) or {} for path in out.glob("shard-*.json")]
    assert {None} < {digest for r in records for digest in r["rejected_sources"].values()}
    video.write_bytes(content)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("synth.job.dispatch", killed)
    with pytest.raises(KeyboardInterrupt):
        render_plan(plan, out, workers=0, retry_rejected="cannot be opened")
    monkeypatch.undo()
    with pytest.raises(UsageError, match="not finished"):
        read_dataset(out)
    assert render_plan(plan, out, workers=0).rejected == 0
    assert verify_output(out, plan, deep=True).problems == []


@pytest.mark.slow
def test_wrong_use_is_one_sentence(tmp_path: Path) -> None:
    write_plan(write_recipe(tmp_path), make_sources(tmp_path), tmp_path / "plan")
    render_plan(tmp_path / "plan", tmp_path / "out", workers=0)
    with pytest.raises(UsageError, match="was rejected for a reason like 'no such file'"):
        render_plan(tmp_path / "plan", tmp_path / "out", retry_rejected="no such file")
    with pytest.raises(UsageError, match="not with --dry-run"):
        render_plan(tmp_path / "plan", tmp_path / "out", retry_rejected="x", dry_run=True)
