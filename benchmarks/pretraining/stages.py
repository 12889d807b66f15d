"""The stages of the experiment: each makes one folder from settings and folders, and can go on.

All of them are the library's own verbs: demo videos, plan, render, train, extract; the scores are
those of `tasks.py`. They run in processes of their own, a core each.
"""

import json
import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from features import FeatureStore, extract_features
from manifests import (
    SeamlineError,
    build_sources,
    make_demo_videos,
    read_segments,
    read_sources,
    write_atomic,
)
from synth import render_plan, write_plan
from train import load_run, train_model

from .cache import Stage
from .grid import Snippets
from .records import write_scores
from .tasks import AVERAGED, TASKS, Encoded

RECIPE, SHARDS, RUN, STORE, SCORES = "recipe.toml", "shards", "run", "features.zarr", "scores.json"


def begin_worker(threads: int, log: Path) -> None:
    """Keep a process to its share of the cores, and its progress lines to a file."""
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.stderr = open(log, "a", buffering=1, encoding="utf-8")  # noqa: SIM115


def _end_with_parent() -> None:
    """End when whoever started this process is gone: nothing is made for nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def make_videos(settings: Mapping[str, Any], inputs: Sequence[Path], out: Path) -> None:
    """Draw the videos and probe them."""
    videos = make_demo_videos(out / "videos", **settings)
    build_sources(videos.trimmed_folder, out / "trimmed.parquet", workers=1)
    build_sources(videos.untrimmed_folder, out / "untrimmed.parquet", workers=1)
    shutil.copyfile(videos.segments_path, out / "segments.parquet")


def make_shards(settings: Mapping[str, Any], inputs: Sequence[Path], out: Path) -> None:
    """Plan and render; `settings` are `[synth]`, `inputs` the videos."""
    (videos,) = inputs
    write_recipe(out / RECIPE, synth=settings)
    is_annotated = "annotated" in settings["kinds"]
    if not (out / "plan" / "plan.json").exists():
        write_plan(
            out / RECIPE,
            videos / ("untrimmed.parquet" if is_annotated else "trimmed.parquet"),
            out / "plan",
            videos / "segments.parquet" if is_annotated else None,
        )
    report = render_plan(out / "plan", out / SHARDS, workers=0)
    if report.rejected:
        raise SeamlineError(f"{report.rejected} samples of {out} were rejected")


def make_run(settings: Mapping[str, Any], inputs: Sequence[Path], out: Path) -> None:
    """Train; `inputs` are the shards, the run to start from if it `has_init`, then teachers.

    The class layer starts anew in every run: what it knows would favour those who need the same.
    """
    shards, *others = inputs
    teachers = [at / RUN for at in others]
    init = out / "encoder.safetensors" if settings["has_init"] else None
    if init:
        write_encoder(teachers.pop(0), init)
    write_recipe(out / RECIPE, train=settings["train"])
    report = train_model(
        out / RECIPE,
        shards / SHARDS,
        out / RUN,
        resume=(out / RUN).exists(),
        init=init,
        teachers=teachers,
    )
    if not report.finished:
        raise SeamlineError(f"the training in {out} was stopped at step {report.step}")


def write_encoder(run: Path, path: Path) -> None:
    """Write the weights of a run but for those of its class layer."""
    backbone = load_run(run).backbone
    weights = {
        name: weight.contiguous()
        for name, weight in backbone.state_dict().items()
        if not name.startswith(f"{backbone.classifier}.")
    }
    write_atomic(path, safetensors.torch.save(weights))


def make_store(settings: Mapping[str, Any], inputs: Sequence[Path], out: Path) -> None:
    """Extract the long videos' features, those of all kept models; `inputs` are videos and run."""
    videos, run = inputs
    snippets = Snippets(**settings["snippets"])
    report = extract_features(
        read_sources(videos / "untrimmed.parquet"),
        encoders_at(run, settings["steps"]),
        out / STORE,
        fps=snippets.rate,
        snippet_len=snippets.snippet_len,
        snippet_stride=snippets.snippet_stride,
        batch=snippets.batch,
        workers=1,
        actors=0,
    )
    if report.rejected or not report.ok:
        raise SeamlineError(f"{len(report.rejected)} videos have no features in {out}")


def make_scores(settings: Mapping[str, Any], inputs: Sequence[Path], out: Path) -> None:
    """Do one downstream task; `inputs` are the videos, then stores, then runs."""
    videos, *others = inputs
    steps = settings.get("steps", ())
    encoded = Encoded(
        stores=[
            FeatureStore.open(at / STORE).select([stream_name(step)])
            for at, step in zip(others, steps, strict=False)
        ],
        runs=[at / RUN for at in others[len(steps) :]],
        sources=videos / "untrimmed.parquet",
        segments=read_segments(videos / "segments.parquet"),
        snippets=Snippets(**settings["snippets"]),
        head=settings["head"],
        seed=settings["seed"],
    )
    tasks = AVERAGED if settings["average"] else TASKS
    write_scores(out / SCORES, tasks[settings["task"]](encoded))


STAGES: dict[str, Stage] = {
    "videos": make_videos,
    "shards": make_shards,
    "run": make_run,
    "store": make_store,
    "scores": make_scores,
}


def encoders_at(run: Path, steps: Sequence[int]) -> dict[str, Path]:
    """Return the folders of a run's models after so many steps, the last its end, by stream."""
    early, last = steps[:-1], steps[-1]
    folders = {stream_name(step): run / RUN / f"step-{step:06d}" for step in early}
    return folders | {stream_name(last): run / RUN}


def stream_name(step: int) -> str:
    """Return what the features of a model are called in the store of its run."""
    return f"step-{step}"


def write_recipe(path: Path, **tables: Mapping[str, Any]) -> None:
    """Write tables as TOML: numbers, texts, booleans, lists and tables of them."""
    text = "".join(f"[{name}]\n{_lines(table)}\n" for name, table in tables.items())
    path.write_text(text, encoding="utf-8")


def _lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in table.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)  # TOML writes numbers, booleans and plain texts as JSON does
