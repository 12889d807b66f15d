"""Restart a job that is done: how long it looks, and what the driver holds meanwhile."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from synth import render_plan
from synth.plan_files import read_plan, write_plan
from synth.render import ShardReport, tool_versions
from synth.shards import dump_json, shard_path

from .clips import write_recipe
from .measure import Row
from .memory import in_a_process

FEW_SHARDS = 1_000
TAR_BYTES = 5_000_000
DIGEST = "0" * 64  # nothing but `synth verify` reads the tars


def make_output(plan_folder: Path, out: Path) -> int:
    """Make the files of a finished job: done records, empty indices, tars that are all holes."""
    plan = read_plan(plan_folder)
    out.mkdir()
    num_shards = 0
    for shard, rows in plan.shards():
        kinds = Counter(rows["kind"].to_pylist())
        report = ShardReport(
            shard=shard, plan_digest=plan.digest, codec="filmstrip",
            planned=len(rows), rendered=len(rows), rejected=0, reasons={}, rejected_sources={},
            kinds=dict(sorted(kinds.items())), bytes=TAR_BYTES, sha256=DIGEST,
            index_sha256=DIGEST, versions=tool_versions(),
        )  # fmt: skip
        with shard_path(out, shard).open("wb") as tar:
            os.truncate(tar.fileno(), TAR_BYTES)
        shard_path(out, shard, "parquet").touch()
        shard_path(out, shard, "json").write_bytes(dump_json(vars(report)) + b"\n")
        num_shards += 1
    return num_shards


def restart(plan_folder: Path, out: Path) -> None:
    """Do what `synth render` does when it is called again."""
    report = render_plan(plan_folder, out)
    if not report.is_complete or report.done_before != report.num_shards:
        raise RuntimeError(f"not everything was found done: {report}")


def measure(folder: Path) -> Iterator[Row]:
    """Restart the job of the many samples that `memory.plan_row` planned, and a small one."""
    many = make_output(folder / "many_plan", folder / "many_out")
    seconds, peak = in_a_process(restart, folder / "many_plan", folder / "many_out")
    yield Row(
        f"restart with {many:,} finished shards",
        f"{seconds:,.1f} s",
        "",
        None,
        "< 30 s",
        seconds < 30,
    )
    plan = read_plan(folder / "many_plan")
    in_shard = plan.record["counts"]["videos"] // FEW_SHARDS
    recipe = write_recipe(folder / "few.toml", 1, samples_per_shard=in_shard)
    write_plan(recipe, folder / "many.parquet", folder / "few_plan")
    few = make_output(folder / "few_plan", folder / "few_out")
    _, least = in_a_process(restart, folder / "few_plan", folder / "few_out")
    yield Row(
        f"memory of the driver, {many:,} shards of {plan.num_samples:,} samples",
        f"{peak / 1e6:,.0f} MB",
        f"{least / 1e6:,.0f} MB ({few:,} shards)",
        least / peak,
        ">= 0.80",
        least >= 0.80 * peak,
    )
