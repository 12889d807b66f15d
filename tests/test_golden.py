"""A tiny plan whose rows never change unless somebody means it.

The digest is over the canonical JSON of the rows, not over Parquet bytes, which vary with pyarrow.
After a wanted change of what is drawn, regenerate and say so in CHANGELOG.md:

    python tests/test_golden.py > tests/golden_plan.json
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from made_plans import CLASSES, drawn_rows, made_video

from manifests import SourceTable
from manifests.tables import SOURCES_SCHEMA
from synth.plan import Row
from synth.recipe import FreezeRecipe, Recipe

GOLDEN_PATH = Path(__file__).with_name("golden_plan.json")
ALL_KINDS = {"clip": 1.0, "freeze": 1.0, "mixup": 2.0, "cutmix_window": 2.0, "cutmix_view": 1.0}
SMALL = {"kinds": ALL_KINDS, "short_side": (40, 48), "crop": 32, "samples_per_shard": 8}
RECIPES = {
    "every kind": Recipe(**SMALL, seed=2023),
    "two windows a video": Recipe(**SMALL, frames=8, frame_stride=2, samples_per_video=2, seed=1),
    "two segments": Recipe(
        kinds={"freeze": 1.0}, freeze=FreezeRecipe(segments=2), short_side=(40, 40), crop=32
    ),
}


def made_table() -> SourceTable:
    """Return a sources table of nine made videos, in memory."""
    videos = [
        made_video(number, num_frames=90 + number, end_frame=90 + number) for number in range(9)
    ]
    columns = [
        pa.array([getattr(video, field.name) for video in videos], field.type)
        for field in SOURCES_SCHEMA
    ]
    return SourceTable(pa.Table.from_arrays(columns, schema=SOURCES_SCHEMA), CLASSES, ".")


def canonical(rows: list[Row]) -> bytes:
    """Return the rows as JSON that has one spelling."""
    return json.dumps(rows, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def describe(name: str) -> dict[str, Any]:
    """Return what is kept of one plan: its digest, and its first row for a person to read."""
    rows, decodes = drawn_rows(made_table(), RECIPES[name])
    digest = hashlib.sha256(canonical(rows)).hexdigest()
    return {"samples": len(rows), "decodes": decodes, "sha256": digest, "first_row": rows[0]}


@pytest.mark.parametrize("name", RECIPES)
def test_plan_is_the_golden_one(name: str) -> None:
    golden = json.loads(GOLDEN_PATH.read_text(encoding="utf-8"))
    assert json.loads(json.dumps(describe(name))) == golden[name]


def test_golden_file_holds_these_plans_and_no_other() -> None:
    golden = json.loads(GOLDEN_PATH.read_text(encoding="utf-8"))
    assert list(golden) == list(RECIPES)


if __name__ == "__main__":
    print(json.dumps({name: describe(name) for name in RECIPES}, indent=1))
