"""One valid file of every kind that the project reads, and how it reads each."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from made_plans import CLASSES, made_plan, made_recipe
from made_shards import write_moving_shards, write_pasted_pairs
from test_checkpoint import record, tiny
from test_store import make_store

from features import FeatureStore, verify_store
from manifests import read_segments, read_sources, write_segments
from synth import read_dataset, read_sample, verify_output
from synth.codecs import EXTENSIONS
from synth.plan_files import read_plan, read_plan_sources
from synth.planned import check_row
from synth.recipe import read_recipe
from synth.status import read_status
from train import load_run
from train.checkpoint import read_resume, write_model, write_resume
from train.initial_weights import read_weights

Read = Callable[[], object]


@dataclass(frozen=True)
class Target:
    """A valid file, and what reads it."""

    path: Path
    read: Read


def read_samples(out: Path) -> None:
    """Read a folder of shards as a training does."""
    dataset = read_dataset(out)
    for shard in dataset.shards:
        for offset, size in zip(shard.offsets, shard.sizes, strict=True):
            sample = read_sample(shard.path, int(offset), int(size))
            sample.check_classes(len(dataset.classes))
            sample.frames()
            sample.track()


def read_whole_plan(folder: Path) -> None:
    """Read a plan as a rendering does, up to the decoding."""
    plan = read_plan(folder)
    table = read_plan_sources(plan, None if "sources" in plan.record else folder / "s.parquet")
    videos = {video.video_id: video for video in table}
    for _, rows in plan.shards():
        for row in rows.to_pylist():
            for codec in EXTENSIONS:
                check_row(row, videos, codec)


def read_store(path: Path) -> None:
    """Read all rows of a feature store."""
    store = FeatureStore.open(path)
    for video_id in store.video_ids[:8]:
        store[video_id]
        store.times(video_id)
        store.between(video_id, 0.0, 1.0)
        store.video(video_id)
    assert store.digest
    verify_store(path)


def shard_targets(folder: Path) -> dict[str, Target]:
    """Make folders of shards of every codec."""
    found = {}
    for codec in EXTENSIONS:
        out = write_moving_shards(folder / codec, 2, side=16, codec=codec)
        found[f"tar of {codec}"] = Target(
            out / "shard-000000.tar", lambda out=out: read_samples(out)
        )
    out = write_pasted_pairs(folder / "pairs", 1, side=16)
    found["tar of pairs"] = Target(out / "shard-000000.tar", lambda: read_samples(out))

    def read_all() -> None:
        verify_output(raw, deep=True, workers=0)
        read_status(raw)
        read_samples(raw)

    raw = folder / "raw"
    done = raw / "shard-000000.json"
    counts = {"planned": 2, "rejected": 0, "reasons": {}, "kinds": {"clip": 2}, "codec": "raw"}
    done.write_text(json.dumps(json.loads(done.read_text()) | counts))
    for name, file in (
        ("index of a shard", "shard-000000.parquet"),
        ("done record", "shard-000000.json"),
        ("dataset.json", "dataset.json"),
    ):
        found[name] = Target(raw / file, read_all)
    return found


def plan_targets(folder: Path) -> dict[str, Target]:
    """Make a plan, its tables and its recipe."""
    plan = made_plan(folder, 6).path.parent
    sources, segments = folder / "sources.parquet", folder / "segments.parquet"
    (plan / "s.parquet").write_bytes(sources.read_bytes())
    row = {"video_id": "v000", "label": "dive", "label_id": 1, "start_seconds": 0.5}
    write_segments(segments, [row | {"end_seconds": 1.5, "subset": None}] * 3, CLASSES)
    alone = folder / "ALONE"
    alone.mkdir()
    for name in ("plan.parquet", "s.parquet"):
        (alone / name).write_bytes((plan / name).read_bytes())
    recipe = made_recipe(folder)
    return {
        "plan.parquet": Target(alone / "plan.parquet", lambda: read_whole_plan(alone)),
        "plan.json": Target(plan / "plan.json", lambda: read_whole_plan(plan)),
        "sources.parquet": Target(sources, lambda: list(read_sources(sources))),
        "segments.parquet": Target(segments, lambda: read_segments(segments).to_pylist()),
        "recipe": Target(recipe, lambda: read_recipe(recipe)),
    }


def run_targets(run: Path) -> dict[str, Target]:
    """Make the files of a training run, and weights in torch's own format."""
    run.mkdir()
    write_model(run, tiny(), record(frames=4, height=32, width=32))
    write_resume(run, {"step": 3, "weights": {"a": torch.ones(2)}, "recipe": {"x": [1, "y"]}})
    weights = run / "weights.pt"
    torch.save({"model_state": {"a": torch.ones(2, 3)}}, weights)
    return {
        "model.json": Target(run / "model.json", lambda: load_run(run)),
        "model.safetensors": Target(run / "model.safetensors", lambda: load_run(run)),
        "resume.pt": Target(run / "resume.pt", lambda: read_resume(run)),
        "weights.pt": Target(weights, lambda: read_weights(weights)),
    }


def store_targets(path: Path) -> dict[str, Target]:
    """Make a feature store."""
    make_store(path, {"a/b": 70, "c": 60, "d": 1})
    files = {
        "attributes of a store": "zarr.json",
        "record of an array": "features/zarr.json",
        "index of a store": "index.parquet",
        "rows of a store": "features/c/0/0",
        "times of a store": "times/c/0/0",
    }
    return {name: Target(path / file, lambda: read_store(path)) for name, file in files.items()}


def make_targets(folder: Path) -> dict[str, Target]:
    """Make all of them, and read each once: what is imported late is imported now."""
    targets = shard_targets(folder / "shards") | plan_targets(folder / "plans")
    targets |= run_targets(folder / "run") | store_targets(folder / "s.zarr")
    for target in targets.values():
        target.read()
    return targets
