"""A tiny plan whose rows never change unless somebody means it.

The digest is over the canonical JSON of the rows, not over Parquet bytes, which vary with pyarrow.
After a wanted change of what is drawn, regenerate and say so in CHANGELOG.md:

    python tests/test_golden.py > tests/golden_plan.json
"""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_plans import CLASSES, made_video

from manifests import SourceTable
from manifests.tables import SOURCES_SCHEMA
from synth.plan import Row, draw_plan
from synth.recipe import KINDS, FreezeRecipe, PalRecipe, Recipe
from synth.selection import select_candidates

GOLDEN_PATH = Path(__file__).with_name("golden_plan.json")
ALL_KINDS = {"clip": 1.0, "freeze": 1.0, "mixup": 2.0, "cutmix_window": 2.0, "cutmix_view": 1.0}
SMALL = {"kinds": ALL_KINDS, "short_side": (40, 48), "crop": 32, "samples_per_shard": 8}
NEW_KINDS = {"joint": 1.0, "boundary": 2.0, "pal": 1.0, "clip_pair": 1.0}
# Of the video at position n: two classes that share the frames 30..39.
SEGMENTS = {n: np.array([[n % 3, 10, 40], [(n + 1) % 3, 30, 60]]) for n in range(9)}
RECIPES = {
    "every kind": Recipe(**SMALL, seed=2023),
    "two windows a video": Recipe(**SMALL, frames=8, frame_stride=2, samples_per_video=2, seed=1),
    "two segments": Recipe(
        kinds={"freeze": 1.0}, freeze=FreezeRecipe(segments=2), short_side=(40, 40), crop=32
    ),
    "joint, boundary and pairs": Recipe(
        **{**SMALL, "kinds": NEW_KINDS}, frames=8, frame_stride=2, samples_per_video=3, seed=4
    ),
    "pal": Recipe(
        **{**SMALL, "kinds": {"pal": 1.0}}, frames=40, pal=PalRecipe(num_clips=5), seed=9
    ),
    "annotated": Recipe(
        **{**SMALL, "kinds": {"annotated": 1.0}}, frames=8, frame_stride=3, samples_per_video=4
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
    recipe = RECIPES[name]
    videos, _ = select_candidates(recipe, made_table(), "sources.parquet")
    shards = list(draw_plan(recipe, replace(videos, segments=SEGMENTS)))
    rows = [row for shard in shards for row in shard.rows]
    decodes = sum(shard.num_decodes for shard in shards)
    digest = hashlib.sha256(canonical(rows)).hexdigest()
    kinds = dict(sorted(Counter(row["kind"] for row in rows).items()))
    counts = {"samples": len(rows), "decodes": decodes, "kinds": kinds}
    return {**counts, "sha256": digest, "first_row": rows[0]}


@pytest.mark.parametrize("name", RECIPES)
def test_plan_is_the_golden_one(name: str) -> None:
    golden = json.loads(GOLDEN_PATH.read_text(encoding="utf-8"))
    assert json.loads(json.dumps(describe(name))) == golden[name]


def test_golden_plans_draw_every_kind() -> None:
    golden = json.loads(GOLDEN_PATH.read_text(encoding="utf-8"))
    assert set(KINDS) == {kind for plan in golden.values() for kind in plan["kinds"]}


def test_golden_file_holds_these_plans_and_no_other() -> None:
    golden = json.loads(GOLDEN_PATH.read_text(encoding="utf-8"))
    assert list(golden) == list(RECIPES)


if __name__ == "__main__":
    print(json.dumps({name: describe(name) for name in RECIPES}, indent=1))
