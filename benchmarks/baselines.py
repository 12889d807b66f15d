"""Rendering against what people do today with the same windows: two pipelines as one writes them.

On the fly, as the SSDet release does: a `DataLoader` decodes every window in every epoch, resizes
and crops it in float, and the batch is mixed. And Ray Data: `map_batches` over the plan rows, then
`write_webdataset`. Both use decord on one thread per worker, and as many workers as ours.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import decord
import numpy as np
import ray
import torch
from torch.nn.functional import interpolate

from synth.codecs import encode_filmstrip
from synth.job import render_plan
from synth.plan_files import read_plan, read_plan_sources, write_plan
from synth.tree import evaluate_frames
from synth.views import View, apply_view, resized_size
from train.objectives.manifold import FEWEST_FRAMES, draw_mixture, mix_maps

from .clips import write_recipe
from .measure import Row, interleaved, rate_row

BATCH = 8
FRAMES, CROP = 16, 224
LEAST = 2.0


class OnTheFly(torch.utils.data.Dataset[torch.Tensor]):
    """The first window of every row, decoded and augmented in float when it is asked for."""

    def __init__(self, rows: list[dict[str, Any]], paths: dict[str, str]) -> None:
        self.sources = [row["sources"][0] | {"num_frames": FRAMES} for row in rows]
        self.paths = paths

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> torch.Tensor:
        source = self.sources[index]
        clip_TCHW = torch.from_numpy(read_window(source, self.paths)).permute(0, 3, 1, 2) / 255
        view = source["view"]
        size = resized_size(clip_TCHW.shape[2], clip_TCHW.shape[3], view["short_side"])
        clip_TCHW = interpolate(clip_TCHW, size, mode="bilinear", align_corners=False)
        clip_TCHW = clip_TCHW[:, :, view["y"] :, view["x"] :][:, :, :CROP, :CROP]
        clip_TCHW = clip_TCHW.flip(3) if view["flip"] else clip_TCHW
        return ((clip_TCHW - 0.45) / 0.225).transpose(0, 1).contiguous()


def read_window(source: dict[str, Any], paths: dict[str, str]) -> np.ndarray:
    """Decode what a source shows, `(T, H, W, 3)` uint8."""
    reader = decord.VideoReader(paths[source["video_id"]], ctx=decord.cpu(0), num_threads=1)
    last = source["start_frame"] + source["num_frames"] * source["frame_stride"]
    return reader.get_batch(range(source["start_frame"], last, source["frame_stride"])).asnumpy()


def mixed_batches(data: OnTheFly, workers: int) -> Iterator[torch.Tensor]:
    """Yield float batches `(N, 3, T, H, W)`, each mixed in one of the four ways."""
    rng = np.random.default_rng(0)
    operations = list(FEWEST_FRAMES)
    for clips in torch.utils.data.DataLoader(data, BATCH, num_workers=workers):
        shape = (len(clips), clips.shape[2], clips.shape[4])
        operation: Any = operations[int(rng.integers(len(operations)))]
        yield mix_maps(clips, draw_mixture(rng, operation, shape))


def render_batch(batch: dict[str, Any], paths: dict[str, str]) -> dict[str, Any]:
    """Render plan rows as one writes it with Ray Data: every source of every row by itself."""
    decord.logging.set_level(decord.logging.QUIET)
    made: dict[str, Any] = {"__key__": [], "jpg": [], "json": []}
    for content in batch["row"]:
        row = json.loads(content)
        clips = []
        for source in row["sources"]:
            view = View(**source["view"])
            frames = [apply_view(frame, view) for frame in read_window(source, paths)]
            clips.append(np.stack(frames))
        made["__key__"].append(row["sample_key"])
        made["jpg"].append(encode_filmstrip(evaluate_frames(json.loads(row["tree"]), clips)))
        made["json"].append(json.dumps({"tree": row["tree"]}).encode())
    return {name: np.array(column, object) for name, column in made.items()}


def measure(folder: Path, sources: Path, workers: int) -> Iterator[Row]:
    """Measure ours and both pipelines on one plan, by turns."""
    recipe = write_recipe(folder / "baselines.toml", samples_per_video=4, samples_per_shard=16)
    write_plan(recipe, sources, folder / "baselines-plan")
    plan = read_plan(folder / "baselines-plan")
    paths = {video.video_id: video.path for video in read_plan_sources(plan, None)}
    rows = [row for _, shard in plan.shards() for row in shard.to_pylist()]
    data = OnTheFly(rows, paths)
    out, dataset = folder / "baselines", folder / "ray-data"

    def ours() -> None:
        shutil.rmtree(out, ignore_errors=True)
        render_plan(folder / "baselines-plan", out)

    def on_the_fly() -> None:
        for _ in mixed_batches(data, workers):
            pass

    def ray_data() -> None:
        shutil.rmtree(dataset, ignore_errors=True)
        items = [{"row": json.dumps(row)} for row in rows]
        made = ray.data.from_items(items, override_num_blocks=len(rows) // 16)
        made = made.map_batches(
            render_batch, batch_size=16, batch_format="numpy", fn_kwargs={"paths": paths}
        )
        made.write_webdataset(str(dataset), encoder=[])  # its members are bytes already

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    seconds = interleaved(2, ours, on_the_fly, ray_data)
    ray.shutdown()
    for name, theirs in zip(("DataLoader on the fly", "Ray Data"), seconds[1:], strict=True):
        yield rate_row(f"render against {name}", "samples", len(rows), seconds[0], theirs, LEAST)
