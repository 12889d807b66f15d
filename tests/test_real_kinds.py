"""Every new kind on real clips: planned, rendered and verified in full."""

import dataclasses
from pathlib import Path

import pytest

from manifests import probe_video, write_sources
from manifests.tables import write_segments
from synth import read_dataset, read_sample
from synth.job import render_plan
from synth.plan_files import write_plan
from synth.verify import verify_output

SMALL = "frame_stride = 2\nshort_side = [112, 128]\ncrop = 96\nseed = 5\n"
RECIPES = {
    "joint and boundary": f"[synth]\nkinds = {{joint = 1, boundary = 2}}\nframes = 8\n{SMALL}",
    "pal": f"[synth]\nkinds = {{pal = 1}}\nframes = 32\n{SMALL}",
    "clip_pair": f"[synth]\nkinds = {{clip_pair = 1}}\nframes = 8\n{SMALL}",
}
# file below `untrimmed`, class, seconds
SEGMENTS = [
    ("microsoft__sample.mp4", "walk", 0.0, 2.5),
    ("microsoft__sample.mp4", "stand", 2.0, 5.2),
    ("felixchenfy__exercise.avi", "walk", 3.0, 20.0),
    ("felixchenfy__exercise.avi", "stand", 15.0, 400.0),
    ("v-iashin__women_long_jump.mp4", "jump", 1.5, 30.0),
]
CLASSES = ("jump", "stand", "walk")
TRIMMED = ("asl_sign", "carving_ice", "hammering", "playing_guitar")


def write_clips(folder: Path, paths: list[Path]) -> Path:
    """Write the sources table of some clips; the class is the folder's name."""
    classes = sorted({path.parent.name for path in paths})
    videos = [
        dataclasses.replace(
            probe_video(str(path), check="packets"),
            video_id=path.name,
            label=path.parent.name,
            label_id=classes.index(path.parent.name),
        )
        for path in paths
    ]
    write_sources(folder / "sources.parquet", videos, classes)
    return folder / "sources.parquet"


def render_and_verify(folder: Path, recipe: str, sources: Path) -> Path:
    (folder / "recipe.toml").write_text(recipe)
    counts = write_plan(folder / "recipe.toml", sources, folder / "plan").record["counts"]
    report = render_plan(folder / "plan", folder / "out", workers=0)
    assert (report.rendered, report.rejected) == (counts["samples"], 0)
    assert verify_output(folder / "out", folder / "plan", deep=True).problems == []
    return folder / "out"


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_real_clips_render_and_verify(shared: Path, tmp_path: Path, name: str) -> None:
    clips = shared / "data" / "clips"
    paths = sorted(p for label in TRIMMED for p in (clips / "trimmed" / label).iterdir())
    sources = write_clips(tmp_path, paths)
    dataset = read_dataset(render_and_verify(tmp_path, RECIPES[name], sources))
    assert sum(map(len, dataset.shards)) == len(paths)


@pytest.mark.slow
def test_real_untrimmed_videos_become_annotated_windows(shared: Path, tmp_path: Path) -> None:
    untrimmed = shared / "data" / "clips" / "untrimmed"
    paths = [untrimmed / name for name in dict.fromkeys(row[0] for row in SEGMENTS)]
    sources = write_clips(tmp_path, paths)
    rows = [
        {"video_id": v, "label": c, "label_id": CLASSES.index(c), "start_seconds": s}
        | {"end_seconds": e}
        for v, c, s, e in SEGMENTS
    ]
    write_segments(tmp_path / "segments.parquet", rows, CLASSES)
    recipe = f"[synth]\nkinds = {{annotated = 1}}\nframes = 16\nsamples_per_video = 6\n{SMALL}"
    dataset = read_dataset(render_and_verify(tmp_path, recipe, sources))
    assert dataset.classes == CLASSES
    shown = set()
    for shard in dataset.shards:
        for offset, size in zip(shard.offsets, shard.sizes, strict=True):
            track = read_sample(shard.path, int(offset), int(size)).track()
            assert not track.exclusive
            shown.update(track.class_ids.tolist())
    assert shown == {0, 1, 2}
