"""The door: the commands `synth`, `train` and `features`. It parses, calls one function, prints."""

import dataclasses
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from manifests.errors import SeamlineError

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(path_type=Path)
ANY = click.Path(path_type=Path)
RAN_BUT_INCOMPLETE = 1
WRONG_USE = 2

as_json = click.option("--json", "is_json", is_flag=True, help="Print one JSON object on stdout.")
max_rejected = click.option(
    "--max-rejected",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Largest share of rejected videos or samples that still counts as success.",
)


class Command(click.Command):
    """A command whose errors are one sentence, and whose help ends with an example as it is."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.epilog:
            with formatter.section("Example"):
                formatter.write_text(self.epilog)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SeamlineError as err:
            click.echo(f"Error: {err}", err=True)
            ctx.exit(WRONG_USE)
        except OSError as err:
            what = f"{err.strerror}: {err.filename!r}" if err.filename else str(err)
            click.echo(f"Error: {what}", err=True)
            ctx.exit(RAN_BUT_INCOMPLETE)


class Door(click.Group):
    """A group of such commands."""

    command_class = Command


def show(report: Any, lines: Iterable[str], is_json: bool) -> None:
    """Print a report: its lines for people, or one JSON object."""
    if is_json:
        record = dataclasses.asdict(report) if dataclasses.is_dataclass(report) else report
        click.echo(json.dumps(record, default=str))
    else:
        for line in lines:
            click.echo(line)


def finish(ok: bool, sentence: str) -> None:
    """End with status 1 and a sentence on stderr unless everything was done."""
    if not ok:
        click.echo(sentence, err=True)
        sys.exit(RAN_BUT_INCOMPLETE)


def reasons(counts: dict[str, int]) -> list[str]:
    """Say how often each reason occurred, the commonest first."""
    return [f"  {count:,} x {why}" for why, count in sorted(counts.items(), key=lambda x: -x[1])]


@click.group(cls=Door)
@click.version_option(package_name="seamline")
def synth() -> None:
    """Turn trimmed action clips into shards of temporally rich pretraining samples."""


@synth.command(
    epilog="synth manifest kinetics400/train -o sources.parquet\n\n"
    "synth manifest kinetics-400_val.csv --videos kinetics400/val -o sources.parquet"
)
@click.argument("source", type=ANY)
@click.option("-o", "--out", type=FILE, required=True, help="Sources table to write (.parquet).")
@click.option("--format", "layout", help="Layout of SOURCE; guessed if left out.")
@click.option("--videos", type=FOLDER, help="Where the files of an annotation file are.")
@click.option("--classes", type=FILE, help="File with a class name per line, in id order.")
@click.option("--workers", type=int, help="Processes that probe (default: one per core).")
@click.option(
    "--check",
    type=click.Choice(["decode", "packets"]),
    default="decode",
    show_default=True,
    help="decode: every frame, so that damage is found now; packets: much faster.",
)
@max_rejected
@as_json
def manifest(
    source: Path,
    out: Path,
    layout: str | None,
    videos: Path | None,
    classes: Path | None,
    workers: int | None,
    check: Any,
    max_rejected: float,
    is_json: bool,
) -> None:
    """Make the table of source videos of SOURCE, a folder tree or an annotation file."""
    from manifests import build_sources

    report = build_sources(
        source, out, format=layout, videos=videos, classes=classes, workers=workers, check=check
    )
    lines = [
        f"{report.path}: {report.ok:,} of {report.total:,} videos are ok, {report.num_classes:,} "
        f"classes, {report.seconds:.1f} s",
        *reasons(report.reasons),
    ]
    if report.missing:
        lines.append(f"{report.missing:,} listed videos are missing: {report.missing_path}")
    show(report, lines, is_json)
    finish(
        report.rejected <= max_rejected * report.total,
        f"{report.rejected:,} of {report.total:,} videos were rejected, more than --max-rejected "
        f"{max_rejected:g}",
    )


@synth.command(epilog="synth plan demo.toml sources.parquet -o plan/")
@click.argument("recipe", type=FILE)
@click.argument("sources", type=FILE)
@click.option("-o", "--out", type=FOLDER, required=True, help="Folder of the plan.")
@max_rejected
@as_json
def plan(recipe: Path, sources: Path, out: Path, max_rejected: float, is_json: bool) -> None:
    """Draw every random number of RECIPE over the videos of SOURCES."""
    from synth.plan_files import write_plan

    report = write_plan(recipe, sources, out)
    counts = report.record["counts"]
    lines = [
        f"{out}: {counts['samples']:,} samples in {counts['shards']:,} shards from "
        f"{counts['videos']:,} videos",
        *(f"  {count:,} x {kind}" for kind, count in counts["kinds"].items()),
        f"{counts['decodes']:,} decoding passes, {counts['decodes_per_sample']:.2f} per sample",
    ]
    if counts["too_short"]:
        lines.append(f"{counts['too_short']:,} videos are too short for the recipe and left out")
    show(report.record, lines, is_json)
    finish(
        report.rejected_share <= max_rejected,
        f"{counts['too_short']:,} videos are too short, more than --max-rejected {max_rejected:g}",
    )


@synth.command(epilog="synth render plan/ shards/ --workers 32")
@click.argument("plan", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option("--sources", type=FILE, help="Sources table, for a plan that does not name it.")
@click.option("--codec", default="filmstrip", show_default=True, help="filmstrip, h264 or raw.")
@click.option("--workers", type=int, help="Processes (default: all cores; 0: here, without Ray).")
@click.option("--address", help="Join a running Ray cluster, for example 'auto'.")
@click.option("--dry-run", is_flag=True, help="Check everything and count; render nothing.")
@max_rejected
@as_json
def render(
    plan: Path,
    out: Path,
    sources: Path | None,
    codec: str,
    workers: int | None,
    address: str | None,
    dry_run: bool,
    max_rejected: float,
    is_json: bool,
) -> None:
    """Render PLAN into the shards of OUT; run it again to finish what is missing."""
    from synth.job import render_plan

    report = render_plan(
        plan,
        out,
        sources=sources,
        codec=codec,
        workers=workers,
        address=address,
        dry_run=dry_run,
    )
    missing = report.num_shards - report.done_before if dry_run else len(report.failed)
    lines = [
        f"{out}: {report.rendered:,} of {report.planned:,} samples rendered, "
        f"{report.rejected:,} rejected, {missing:,} of {report.num_shards:,} shards "
        f"{'to do' if dry_run else 'missing'}",
        *reasons(report.reasons),
    ]
    show(report, lines, is_json)
    if dry_run:
        return
    failed = [f"  shard {shard}: {why}" for shard, why in list(report.failed.items())[:5]]
    finish(
        not report.failed,
        "\n".join(
            [
                f"{len(report.failed):,} shards could not be rendered; the finished ones are kept, "
                f"run the same command again:",
                *failed,
            ]
        ),
    )
    finish(
        report.rejected <= max_rejected * report.planned,
        f"{report.rejected:,} of {report.planned:,} samples were rejected, more than "
        f"--max-rejected {max_rejected:g}",
    )


@synth.command(epilog="synth status shards/ --plan plan/")
@click.argument("out", type=FOLDER)
@click.option("--plan", "plan_folder", type=FOLDER, help="Count against this plan.")
@as_json
def status(out: Path, plan_folder: Path | None, is_json: bool) -> None:
    """Say what is done, rejected and missing in OUT."""
    from synth.verify import read_status

    report = read_status(out, plan_folder)
    of = "" if report.planned is None else f" of {report.planned:,}"
    lines = [
        f"{out}: {report.done:,}{of} shards done, {report.samples['rendered']:,} samples rendered, "
        f"{report.samples['rejected']:,} rejected",
        *(
            f"{line}, for example {', '.join(report.examples[line.partition(' x ')[2]])}"
            for line in reasons(report.reasons)
        ),
    ]
    show(report, lines, is_json)
    finish(report.is_complete, "the rendering is not finished: run `synth render` again")


@synth.command(epilog="synth verify shards/ --plan plan/ --deep")
@click.argument("out", type=FOLDER)
@click.option("--plan", "plan_folder", type=FOLDER, help="Check against this plan.")
@click.option("--deep", is_flag=True, help="Decode every sample; with --plan, render it again.")
@as_json
def verify(out: Path, plan_folder: Path | None, deep: bool, is_json: bool) -> None:
    """Check every digest and count of OUT."""
    from synth.verify import verify_output

    report = verify_output(out, plan_folder, deep=deep)
    lines = [
        f"{out}: {report.num_shards:,} shards, {report.num_samples:,} samples, "
        f"{len(report.problems):,} problems",
        *(f"  {problem}" for problem in report.problems),
    ]
    show(report, lines, is_json)
    finish(not report.problems, f"{str(out)!r} is not what its records say")


@synth.command(epilog="synth preview shards/ -o preview.html")
@click.argument("out", type=FOLDER)
@click.option("-o", "--page", type=FILE, required=True, help="HTML page to write.")
@click.option("--samples", type=click.IntRange(1), default=3, show_default=True, help="Per kind.")
@as_json
def preview(out: Path, page: Path, samples: int, is_json: bool) -> None:
    """Draw samples of OUT: film strips with the label curves under them."""
    from synth.preview import write_preview

    report = write_preview(out, page, samples_per_kind=samples)
    show(report, [f"wrote {page}"], is_json)


@synth.command(epilog="synth demo demo/")
@click.argument("folder", type=FOLDER)
@click.option("--workers", type=int, help="Processes (default: all cores).")
@as_json
def demo(folder: Path, workers: int | None, is_json: bool) -> None:
    """Run the whole way on data it makes itself: clips, plan, shards, training, features."""
    from features.demo import run_demo

    report = run_demo(folder, workers=workers)
    show(report, report.lines(), is_json)
