"""`synth verify` finds every damage, also where an adversary repaired all digests and counts."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import made_damage as made
import numpy as np
import pytest
import s3fs
from click.testing import CliRunner
from made_dataset import RECIPE, make_sources, write_recipe

import cli
from synth import read_status, render_plan, verify_output, write_plan, write_preview
from synth.render import render_samples
from synth.verify_shard import ShardCheck, ShardFindings

pytestmark = pytest.mark.slow

CODECS = ("filmstrip", "raw", "h264")
SMALL = RECIPE.replace("samples_per_shard = 6", "samples_per_shard = 2")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a plan of six samples, its output by codec, and one with rejections."""
    folder = tmp_path_factory.mktemp("verify")
    write_plan(write_recipe(folder, SMALL), make_sources(folder, 1), folder / "plan")
    for codec in CODECS:
        assert render_plan(folder / "plan", folder / codec, workers=0, codec=codec).rendered == 6
    broken = tmp_path_factory.mktemp("rejected")
    write_plan(write_recipe(broken, SMALL), make_sources(broken, 1), broken / "plan")
    video = broken / "turn" / "turn_0.mp4"
    video.write_bytes(video.read_bytes()[:-100])
    report = render_plan(broken / "plan", broken / "out", workers=0)
    assert 0 < report.rejected < 6
    (folder / "rejecting").symlink_to(broken)
    return folder


def folders(home: Path, kind: str) -> tuple[Path, Path]:
    """Return the output folder and the plan of a kind: a codec, or "rejecting"."""
    if kind == "rejecting":
        return home / kind / "out", home / kind / "plan"
    return home / kind, home / "plan"


@pytest.mark.parametrize("kind", [*CODECS, "rejecting"])
def test_intact_folders_have_no_problem(home: Path, kind: str) -> None:
    out, plan = folders(home, kind)
    for plan_folder in (plan, None):
        for deep in (False, True):
            report = verify_output(out, plan_folder, deep=deep)
            assert (report.problems, report.notes, report.num_shards) == ([], [], 3)


Damage = Callable[[Path], str]
# Found without the plan too, whatever was repaired.
PLAIN: dict[str, Damage] = {
    "kind in the json": made.edit_meta("kind", lambda kind: "mixup" if kind == "clip" else "clip"),
    "frames in the json": made.edit_meta("num_frames", lambda number: number + 1),
    "labels": made.edit_meta("weights", lambda rows: [[0.25] * len(rows[0]) for _ in rows]),
    "class": made.edit_meta("class_ids", lambda ids: [(ids[0] + 1) % 3] if len(ids) == 1 else None),
    "no class": made.edit_meta("class_ids", lambda _: []),
    "spaces in the json": made.space_json,
    "json first": made.json_first,
    "samples reordered": made.reorder_samples,
    "hidden between": made.hide("between"),
    "hidden in a sample": made.hide("in a sample"),
    "hidden last": made.hide("last"),
    "hidden after the end": made.hide("after"),
    "rows overlap": made.overlap,
    "another video": made.edit_index(video_ids=["nobody"]),
    "no key": made.edit_index(key=None),
    "no such status": made.edit_index(status="fine"),
    "negative size": made.edit_index(bytes=-512),
    "huge size": made.edit_index(bytes=2**60),
    "stray file": made.add_file,
    "another plan's record": made.edit_record("plan_digest", "0" * 64),
    "another codec's record": made.edit_record("codec", "png"),
}
# Found at once, but nothing is wrong any more when all is repaired.
NAIVE: dict[str, Damage] = {
    "truncated": made.truncate,
    "swapped tars": made.swap_files("tar"),
    "swapped tars and indices": made.swap_files("tar", "parquet"),
    "no tar": made.remove("tar"),
    "no index": made.remove("parquet"),
    "no record": made.remove("json"),
    "no tar and index": made.remove("tar", "parquet"),
    "extra tar": made.add_tar,
    "record of another shard": made.edit_record("shard", 2),
    "record counts": made.edit_record("rendered", 1),
    "record kinds": made.edit_record("kinds", {"clip": 2.0}),
    "record reasons": made.edit_record("reasons", {"tired": 1}),
    "record sources": made.edit_record("rejected_sources", {"zoom_0": None}),
    "index digest": made.edit_record("index_sha256", "0" * 64),
    "dataset shards": made.edit_dataset("shards", lambda shards: shards[:-1]),
    "dataset order": made.edit_dataset("shards", lambda shards: shards[::-1]),
    "dataset shard twice": made.edit_dataset("shards", lambda shards: [0, *shards]),
    "dataset shards no list": made.edit_dataset("shards", lambda shards: "012"),
    "dataset digests": made.edit_dataset("shard_digests", lambda digests: digests[::-1]),
    "dataset counts": made.edit_dataset("counts", lambda counts: counts | {"rendered": 5}),
    "dataset samples": made.edit_dataset("num_samples", lambda number: number + 1),
    "dataset kinds": made.edit_dataset("kinds", lambda kinds: kinds | {"pal": 1}),
}
# Found with the plan alone when all is repaired.
PLANNED: dict[str, Damage] = {
    "tree": made.edit_meta("tree", made.edit_tree),
    "start frame": made.edit_meta("sources", made.edit_start),
    "kind everywhere": made.edit_kind,
    "a tile": made.spoil_tile,
    "a tile by others": made.spoil_tile_by_others,
    "swapped pixels": made.swap_pixels,
    "swapped shards": made.swap_files("tar", "parquet", "json"),
    "no shard": made.remove("tar", "parquet", "json"),
    "extra shard": made.add_shard,
    "good sample rejected": made.reject,
    "classes": made.edit_dataset("classes", lambda names: [*names[1:], names[0]]),
}
REJECTING: dict[str, Damage] = {
    "rejected sample rendered": made.accept,
    "another reason": made.another_reason,
}


def problems(out: Path, named: str, plan: Path | None, deep: bool) -> list[str]:
    """Return what `synth verify` says; the damage must be named, every problem one sentence."""
    found = verify_output(out, plan, deep=deep).problems
    assert any(re.match(named, problem) for problem in found), (named, found)
    assert all("\n" not in problem and len(problem) < 400 for problem in found), found
    return found


@pytest.mark.parametrize("name", [*PLAIN, *NAIVE, *PLANNED])
def test_plain_damage_is_found_at_once(home: Path, tmp_path: Path, name: str) -> None:
    """No digest is repaired: no deep look is needed, and the plan only for class names."""
    out = tmp_path / "out"
    shutil.copytree(home / "filmstrip", out)
    named = {**PLAIN, **NAIVE, **PLANNED}[name](out)
    shard = re.match(r"shard \d+", named)
    problems(out, shard[0] if shard else named, home / "plan" if name == "classes" else None, False)


@pytest.mark.parametrize(
    ("codec", "name"),
    [("filmstrip", name) for name in (*PLAIN, *PLANNED)]
    + [
        pytest.param(codec, name, marks=pytest.mark.slow)
        for codec in ("raw", "h264")
        for name in ("labels", *PLANNED)
    ],
)
def test_repaired_damage_is_found(home: Path, tmp_path: Path, codec: str, name: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(home / codec, out)
    named = {**PLAIN, **PLANNED}[name](out)
    made.repair(out)
    problems(out, named, home / "plan", True)
    if name in PLAIN:
        shard = re.match(r"shard \d+", named)
        problems(out, shard[0] if shard else named, None, True)


@pytest.mark.parametrize("name", REJECTING)
def test_rejections_are_checked(home: Path, tmp_path: Path, name: str) -> None:
    out, plan = folders(home, "rejecting")
    shutil.copytree(out, tmp_path / "out")
    named = REJECTING[name](tmp_path / "out")
    assert verify_output(tmp_path / "out").problems
    made.repair(tmp_path / "out")
    problems(tmp_path / "out", named, plan, True)


def test_what_hung_a_decoder_is_not_tried_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, plan = folders(home, "rejecting")
    shutil.copytree(out, tmp_path / "out")
    stopped = 0
    for shard in made.numbers(tmp_path / "out"):
        rows = made.index_of(tmp_path / "out", shard)
        for row in rows:
            if row["status"] == "rejected":
                row["reason"] = "decoding was stopped: it did not end in 600 s"
                stopped += 1
        made.set_index(tmp_path / "out", shard, rows)
    made.repair(tmp_path / "out")
    tried: list[str] = []

    def noting(rows: list[dict[str, Any]], *rest: Any) -> Iterator[Any]:
        tried.extend(source["video_id"] for row in rows for source in row["sources"])
        return render_samples(rows, *rest)

    monkeypatch.setattr("synth.verify_shard.render_samples", noting)
    report = verify_output(tmp_path / "out", plan, deep=True)
    assert report.problems == []
    assert report.notes[0].startswith(f"{stopped} rejected samples were not tried again")
    assert tried
    assert "turn_0" not in tried


@pytest.mark.parametrize(
    "codec", ["filmstrip", *(pytest.param(codec, marks=pytest.mark.slow) for codec in CODECS[1:])]
)
def test_a_flipped_bit_is_found_in_every_region(home: Path, tmp_path: Path, codec: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(home / codec, out)
    path = made.shard_path(out, 1)
    intact = {name: made.shard_path(out, 1, name).read_bytes() for name in made.SUFFIXES}
    rng = np.random.default_rng(5)
    regions = made.regions(path)
    assert {"header mtime", "padding of json", "pixels", "end"} <= set(regions)
    for region, places in regions.items():
        made.flip(path, int(rng.choice(places)), int(rng.integers(8)))
        assert any("shard 1: the sha256" in problem for problem in verify_output(out).problems)
        if region.startswith("header") and region != "header size":
            made.fix_checksums(path)
        made.repair(out)
        named = "shard 1: its tar must end" if region == "end" else r"shard 1: sample \d{8}: "
        problems(out, named, home / "plan", True)
        for name, content in intact.items():
            made.shard_path(out, 1, name).write_bytes(content)
        made.repair(out)
    assert verify_output(out, home / "plan", deep=True).problems == []


@pytest.fixture(scope="module")
def damaged(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a damage in each of its three shards, the last one to both samples."""
    out = tmp_path_factory.mktemp("damaged") / "out"
    shutil.copytree(home / "filmstrip", out)
    made.json_first(out)
    made.edit_kind(out)
    made.swap_pixels(out)
    made.repair(out)
    return out


@pytest.mark.slow
@pytest.mark.usefixtures("two_workers")
def test_any_number_of_workers_says_the_same(home: Path, damaged: Path) -> None:
    report = verify_output(damaged, home / "plan", deep=True, workers=0)
    assert verify_output(damaged, home / "plan", deep=True, workers=2) == report
    shards = [problem.partition(":")[0] for problem in report.problems]
    assert sorted(set(shards)) == ["shard 0", "shard 1", "shard 2"]
    assert shards == sorted(shards)


@pytest.mark.slow
@pytest.mark.usefixtures("two_workers")
def test_a_worker_that_dies_costs_one_shard(
    home: Path, damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(check: ShardCheck) -> ShardFindings:
        """Stand in for a check whose decoder takes the process along."""
        if check.shard == 1:
            os._exit(1)
        return ShardFindings(check.shard)

    monkeypatch.setattr("synth.verify.check_shard", die)
    problems = verify_output(damaged, home / "plan", workers=2).problems
    (said,) = (problem for problem in problems if problem.startswith("shard"))
    assert said.startswith("shard 1: it could not be checked: ")


def upload(folder: Path, bucket: str) -> str:
    """Copy a folder into a bucket; return its URL there."""
    s3fs.S3FileSystem().put(f"{folder}/", f"{bucket}/{folder.name}/", recursive=True)
    return f"{bucket}/{folder.name}"


def test_an_object_store_is_checked_like_a_folder(
    home: Path, damaged: Path, bucket: str, tmp_path: Path
) -> None:
    sources, plan = home / "sources.parquet", upload(home / "plan", bucket)
    intact, other = upload(home / "filmstrip", bucket), upload(damaged, bucket)
    assert verify_output(intact, plan, deep=True, sources=sources).problems == []
    assert verify_output(other, plan, deep=True, sources=sources) == verify_output(
        damaged, home / "plan", deep=True
    )
    assert read_status(intact, plan) == read_status(home / "filmstrip", home / "plan")
    page = write_preview(intact, f"{bucket}/page.html").path
    write_preview(home / "filmstrip", tmp_path / "page.html")
    assert page.read_bytes() == (tmp_path / "page.html").read_bytes()


def test_the_command_says_what_is_wrong_and_exits_with_1(home: Path, damaged: Path) -> None:
    command = ["verify", str(damaged), "--plan", str(home / "plan"), "--deep", "--workers", "0"]
    result = CliRunner().invoke(cli.synth, command)
    assert result.exit_code == 1
    assert result.stdout.count("\n  shard ") == 4
    assert result.stderr.endswith("is not what its records say\n")
