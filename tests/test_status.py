"""`synth status`: what stands in a folder, why samples were rejected, and records that are none."""

import json
import shutil
from pathlib import Path
from typing import Any

import made_damage as made
import pytest
from made_dataset import RECIPE, make_sources, write_recipe

from manifests import SeamlineError, read_many
from synth import read_status, render_plan, write_plan


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with plan/ and out/, where one of three videos has gone and one was cut."""
    folder = tmp_path_factory.mktemp("status")
    recipe = RECIPE.replace("samples_per_shard = 6", "samples_per_shard = 2")
    write_plan(write_recipe(folder, recipe), make_sources(folder, 1), folder / "plan")
    (folder / "zoom" / "zoom_0.mp4").unlink()
    cut = folder / "turn" / "turn_0.mp4"
    cut.write_bytes(cut.read_bytes()[:-100])
    assert render_plan(folder / "plan", folder / "out", workers=0).rejected > 3
    return folder


@pytest.fixture
def out(home: Path, tmp_path: Path) -> Path:
    """Return a copy of the output folder, to be changed."""
    return Path(shutil.copytree(home / "out", tmp_path / "out"))


def test_reasons_have_counts_and_examples(home: Path, out: Path) -> None:
    rejected = [
        (row["key"], row["reason"].partition(": ")[0])
        for shard in made.numbers(out)
        for row in made.index_of(out, shard)
        if row["status"] == "rejected"
    ]
    status = read_status(out, home / "plan", num_examples=2)
    assert len(status.reasons) == 2
    for reason, count in status.reasons.items():
        keys = [key for key, why in rejected if why == reason]
        assert count == len(keys) > 0
        assert status.examples[reason] == keys[:2]
    assert status.samples == {
        "planned": 6,
        "rendered": 6 - len(rejected),
        "rejected": len(rejected),
    }
    assert status.is_complete


def test_a_shard_that_is_not_planned_does_not_count(home: Path, out: Path) -> None:
    before = read_status(out, home / "plan")
    made.add_shard(out)
    assert read_status(out, home / "plan") == before
    assert read_status(out) == before


def test_without_dataset_json_nothing_is_complete(home: Path, out: Path) -> None:
    (out / "dataset.json").unlink()
    assert (read_status(out).planned, read_status(out).is_complete) == (None, False)
    status = read_status(out, home / "plan")
    assert (status.done, status.planned, status.is_complete) == (3, 3, False)


@pytest.mark.parametrize(
    "changes",
    [
        {"planned": "two"},
        {"rendered": None},
        {"rejected": 1.5},
        {"reasons": ["cannot be opened"]},
        {"reasons": {"cannot be opened": "often"}},
    ],
)
def test_records_that_are_none_are_one_sentence(out: Path, changes: dict[str, Any]) -> None:
    made.set_record(out, 1, made.record_of(out, 1) | changes)
    with pytest.raises(SeamlineError, match="a done record must"):
        read_status(out)


@pytest.mark.parametrize("shards", [None, 3, ["0"], {"0": 1}])
def test_a_dataset_that_is_none_is_one_sentence(out: Path, shards: Any) -> None:
    (out / "dataset.json").write_text(json.dumps(made.dataset_of(out) | {"shards": shards}))
    with pytest.raises(SeamlineError, match="list of shard numbers"):
        read_status(out)


def test_records_are_read_many_at_a_time(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a network each call costs a round trip."""
    calls: list[int] = []

    def counting(paths: Any) -> list[bytes | None]:
        calls.append(len(paths))
        return read_many(paths)

    monkeypatch.setattr("synth.shards.read_many", counting)
    monkeypatch.setattr("synth.shards.RECORDS_AT_A_TIME", 2)
    assert read_status(out).done == 3
    assert calls == [2, 1]
