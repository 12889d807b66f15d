"""The door: the commands `synth`, `train` and `features`. It parses, calls one function, prints."""

import contextlib
import dataclasses
import errno
import json
import math
import os
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

# Read by OpenMP when torch is loaded: threads that wait spinning starve the decoders beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


class LocalPath(click.Path):
    """A path on this machine: a URL would silently become a folder called `s3:`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Turn a word of the command line into a path; wrong use if it is a URL."""
        if "://" in str(value):
            self.fail(f"must be a local path, got the URL {str(value)!r}", param, ctx)
        return super().convert(value, param, ctx)


class StreamList(click.ParamType):
    """Runs by stream name: `rgb=RUN1,flow=RUN2`."""

    name = "NAME=RUN,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Turn a word of the command line into paths by name; wrong use unless each has both."""
        pairs = [part.partition("=") for part in str(value).split(",")]
        if not all(name and path for name, _, path in pairs):
            self.fail(f"must be NAME=RUN,NAME=RUN,..., got {value!r}", param, ctx)
        named = {name: ANY.convert(path, param, ctx) for name, _, path in pairs}
        if len(named) < len(pairs):
            self.fail(f"names of streams must differ, got {value!r}", param, ctx)
        return named


FOLDER = LocalPath(file_okay=False, path_type=Path)
FILE = LocalPath(path_type=Path)
ANY = LocalPath(path_type=Path)
PLACE = click.Path(path_type=str)  # a local path or a URL of an object store
RAN_BUT_INCOMPLETE = 1
WRONG_USE = 2
DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

store_to_write = click.option(
    "--store", type=ANY, required=True, help="Store to write, made or resumed."
)
sampling_rate = click.option(
    "--fps", help="Resample by presentation time, e.g. 15 or 30000/1001 (default: native)."
)
decoding_threads = click.option(
    "--workers", type=int, help="Decoding threads (default: one per core, at most 8)."
)
one_run = click.option(
    "--checkpoint", type=ANY, help="Folder of a training run, or a saved program (.pt2)."
)
several_runs = click.option(
    "--streams", type=StreamList(), help="Several runs instead, each a range of channels."
)
device = click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), help="Default: cuda if there is one."
)
segments_table = click.option("--segments", type=PLACE, help="Annotated segments (.parquet).")
beside = click.option(
    "--concat",
    "beside",
    type=ANY,
    multiple=True,
    help="Another store, whose channels follow those of STORE (two-stream).",
)
as_json = click.option("--json", "is_json", is_flag=True, help="Print one JSON object on stdout.")
max_rejected = click.option(
    "--max-rejected",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Largest share of rejected videos or samples that still counts as success.",
)


class Setting(click.ParamType):
    """`NAME=VALUE`; a value that is a number becomes one."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Turn a word of the command line into a name and a value; wrong use unless it has both."""
        name, _, text = str(value).partition("=")
        if not name or not text:
            self.fail(f"must be NAME=VALUE, got {value!r}", param, ctx)
        for number in (int, float):
            with contextlib.suppress(ValueError):
                return name, number(text)
        return name, text


class Command(click.Command):
    """A command whose errors are one sentence, and whose help ends with an example as it is."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example under a heading of its own, unwrapped."""
        if self.epilog:
            with formatter.section("Example"):
                for line in self.epilog.split("\n\n"):
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; say what is wrong in one sentence and exit as the contract says."""
        from manifests import SeamlineError, storage_errors

        try:
            return super().invoke(ctx)
        except SeamlineError as err:
            click.echo(f"Error: {err}", err=True)
            ctx.exit(WRONG_USE)
        except BrokenPipeError:
            raise  # the reader of stdout has seen enough; click ends quietly
        except storage_errors() as err:
            keys = ("strerror", "filename", "errno")  # what object stores raise lacks them
            what, name, number = (getattr(err, key, None) for key in keys)
            click.echo(f"Error: {f'{what}: {name!r}' if name else err}", err=True)
            ctx.exit(RAN_BUT_INCOMPLETE if number in DISK_TROUBLE else WRONG_USE)


class Door(click.Group):
    """A group of such commands."""

    command_class = Command


def show(report: Any, lines: Iterable[str], is_json: bool) -> None:
    """Print a report: its lines for people, or one JSON object."""
    if is_json:
        click.echo(json.dumps(plain(report), allow_nan=False))
    else:
        for line in lines:
            click.echo(line)


def plain(value: Any) -> Any:
    """Turn a report into what JSON has: records to objects, NaN to null, anything else to text."""
    if dataclasses.is_dataclass(value):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def finish(ok: bool, sentence: str) -> None:
    """End with status 1 and a sentence on stderr unless everything was done."""
    if not ok:
        click.echo(sentence, err=True)
        sys.exit(RAN_BUT_INCOMPLETE)


def reasons(counts: dict[str, int]) -> list[str]:
    """Say how often each reason occurred, the commonest first."""
    return [f"  {count:,} x {why}" for why, count in sorted(counts.items(), key=lambda x: -x[1])]


def show_stored(report: Any, store: Path, unit: str, is_json: bool) -> None:
    """Print what a store got, and end with status 1 if videos are missing from it."""
    lines = [
        f"{store}: {report.num_snippets:,} {unit} of {report.num_videos:,} videos, "
        f"{report.num_extracted:,} computed now in {report.seconds:.1f} s",
        *(f"  rejected {video_id}: {why}" for video_id, why in report.rejected[:10]),
        *(f"  shard {shard} failed: {why}" for shard, why in list(report.failed.items())[:10]),
    ]
    show(report, lines, is_json)
    failed = len(report.failed)
    finish(not failed, f"{failed:,} shards are missing, the others are kept: run it again")
    finish(report.ok, f"{len(report.rejected):,} of {report.num_videos:,} videos were rejected")


@click.group(cls=Door)
@click.version_option(package_name="seamline")
def synth() -> None:
    """Turn trimmed action clips into shards of temporally rich pretraining samples."""


@synth.command(
    epilog="synth manifest kinetics400/train -o sources.parquet\n\n"
    "synth manifest kinetics-400_val.csv --videos kinetics400/val -o sources.parquet\n\n"
    "synth manifest activity_net.v1-3.min.json --videos anet/ -o sources.parquet"
)
@click.argument("source", type=ANY)
@click.option("-o", "--out", type=PLACE, required=True, help="Sources table to write (.parquet).")
@click.option(
    "--format",
    help="Layout of SOURCE; guessed if left out: kinetics, ucf101, hmdb51, thumos14, activitynet, "
    "multithumos, charades, folder.",
)
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
@click.option(
    "--transcode",
    "transcode_to",
    type=FOLDER,
    help="Re-encode every good video into this folder, for fast windows, and list these files.",
)
@max_rejected
@as_json
def manifest(source: Path, out: str, max_rejected: float, is_json: bool, **options: Any) -> None:
    """Make the table of source videos of SOURCE, a folder tree or official annotations.

    Temporal annotations become segments.parquet beside the table.
    """
    from manifests import build_sources

    report = build_sources(source, out, **options)
    lines = [
        f"{report.path}: {report.ok:,} of {report.total:,} videos are ok, {report.num_classes:,} "
        f"classes, {report.seconds:.1f} s",
        *reasons(report.reasons),
    ]
    if report.missing:
        lines.append(f"{report.missing:,} listed videos are missing: {report.missing_path}")
    if report.segments is not None:
        lines.append(f"{report.segments_path}: {report.segments:,} segments")
    lines += reasons(report.oddities)
    show(report, lines, is_json)
    finish(
        report.rejected <= max_rejected * report.total,
        f"{report.rejected:,} of {report.total:,} videos were rejected, more than --max-rejected "
        f"{max_rejected:g}",
    )


@synth.command(epilog="synth plan demo-ssdet.toml sources.parquet -o plan/")
@click.argument("recipe", type=FILE)
@click.argument("sources", type=PLACE)
@click.option("-o", "--out", type=PLACE, required=True, help="Folder of the plan.")
@click.option(
    "--segments", type=PLACE, help="For kind annotated (default: segments.parquet beside SOURCES)."
)
@max_rejected
@as_json
def plan(
    recipe: Path,
    sources: str,
    out: str,
    segments: str | None,
    max_rejected: float,
    is_json: bool,
) -> None:
    """Draw every random number of RECIPE over the videos of SOURCES."""
    from synth import write_plan

    report = write_plan(recipe, sources, out, segments)
    counts = report.record["counts"]
    lines = [
        f"{out}: {counts['samples']:,} samples in {counts['shards']:,} shards from "
        f"{counts['videos']:,} videos",
        *(f"  {count:,} x {kind}" for kind, count in counts["kinds"].items()),
        *(f"    {count:,} x {op}" for op, count in counts.get("boundary_classes", {}).items()),
        f"{counts['decodes']:,} decoding passes, {counts['decodes_per_sample']:.2f} per sample",
    ]
    if report.replaced:
        lines.append(f"{out} held another plan, which this one replaces")
    if counts["too_short"]:
        lines.append(f"{counts['too_short']:,} videos are too short for the recipe and left out")
    if counts.get("alone_in_class"):
        lines.append(
            f"{counts['alone_in_class']:,} videos are the only one of their class: others take "
            f"their turn in same_class"
        )
    for what in ("segments_of_unknown_videos", "segments_without_frames"):
        if counts.get(what):
            lines.append(f"{counts[what]:,} {what.replace('_', ' ')} are left out")
    if counts.get("unreadable"):
        lines.append(f"{counts['unreadable']:,} videos cannot be read and are left out")
    show(report.record, lines, is_json)
    finish(
        report.rejected_share <= max_rejected,
        f"the plan is written, but {counts['too_short'] + counts.get('unreadable', 0):,} videos "
        f"are too short or cannot be read, more than --max-rejected {max_rejected:g}",
    )


@synth.command(epilog="synth render plan/ shards/ --workers 32")
@click.argument("plan", type=PLACE)
@click.argument("out", type=PLACE)
@click.option("--sources", type=PLACE, help="Sources table, for a plan that does not name it.")
@click.option("--codec", default="filmstrip", show_default=True, help="filmstrip, h264 or raw.")
@click.option(
    "--workers", type=int, help="Most shards at a time (default: all cores; 0: here, without Ray)."
)
@click.option("--address", help="Join a running Ray cluster, for example 'auto'.")
@click.option("--dry-run", is_flag=True, help="Check everything and count; render nothing.")
@click.option(
    "--decode-seconds",
    type=float,
    default=600.0,
    show_default=True,
    help="Stop a decoder that needs longer for a video, and reject the video.",
)
@click.option(
    "--memory-gb",
    type=float,
    default=1.0,
    show_default=True,
    help="Memory of a render process: Ray starts what fits; one that takes more is ended.",
)
@click.option(
    "--retry-rejected",
    metavar="REASON",
    help="Render shards again that rejected samples for REASON, if their source files changed.",
)
@max_rejected
@as_json
def render(
    plan: str, out: str, dry_run: bool, max_rejected: float, is_json: bool, **options: Any
) -> None:
    """Render PLAN into the shards of OUT; run it again to finish what is missing."""
    from synth import render_plan

    report = render_plan(plan, out, dry_run=dry_run, **options)
    missing = report.num_shards - report.done_before if dry_run else len(report.failed)
    shards = f", {missing:,} of {report.num_shards:,} shards {'to do' if dry_run else 'missing'}"
    lines = [
        f"{out}: {report.rendered:,} of {report.planned:,} samples rendered, "
        f"{report.rejected:,} rejected{'' if report.is_interrupted else shards}",
        *reasons(report.reasons),
    ]
    if report.taken_back or report.unchanged:
        lines.append(
            f"of the shards with such rejections, {report.taken_back:,} were taken back, and the "
            f"source files of {report.unchanged:,} are what they were"
        )
    show(report, lines, is_json)
    if dry_run:
        return
    failed = "".join(f"\n  shard {shard}: {why}" for shard, why in list(report.failed.items())[:5])
    finish(
        not report.failed,
        f"{len(report.failed):,} shards could not be rendered; the finished ones are kept, run the "
        f"same command again:{failed}",
    )
    finish(
        not report.is_interrupted,
        "interrupted: what was begun is finished; run the same command again for the rest",
    )
    finish(
        report.rejected <= max_rejected * report.planned,
        f"{report.rejected:,} of {report.planned:,} samples were rejected, more than "
        f"--max-rejected {max_rejected:g}",
    )


@synth.command(epilog="synth status shards/ --plan plan/")
@click.argument("out", type=PLACE)
@click.option("--plan", "plan_folder", type=PLACE, help="Count against this plan.")
@as_json
def status(out: str, plan_folder: str | None, is_json: bool) -> None:
    """Say what is done, rejected and missing in OUT."""
    from synth import read_status

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
@click.argument("out", type=PLACE)
@click.option("--plan", "plan_folder", type=PLACE, help="Check against this plan.")
@click.option("--deep", is_flag=True, help="Decode every sample; with --plan, render it again.")
@click.option("--sources", type=PLACE, help="Sources table, for a plan that does not name it.")
@click.option("--workers", type=int, help="Processes (default: all cores if --deep; 0: here).")
@click.option("--address", help="Join a running Ray cluster, for example 'auto'.")
@as_json
def verify(out: str, plan_folder: str | None, is_json: bool, **options: Any) -> None:
    """Check every byte, digest and count of OUT."""
    from synth import verify_output

    report = verify_output(out, plan_folder, **options)
    lines = [
        f"{out}: {report.num_shards:,} shards, {report.num_samples:,} samples, "
        f"{len(report.problems):,} problems",
        *(f"  {problem}" for problem in report.problems),
        *report.notes,
    ]
    show(report, lines, is_json)
    finish(not report.problems, f"{str(out)!r} is not what its records say")


@synth.command(epilog="synth preview shards/ -o preview.html")
@click.argument("out", type=PLACE)
@click.option("-o", "--page", type=FILE, required=True, help="HTML page to write.")
@click.option(
    "--samples", type=click.IntRange(1), default=3, show_default=True, help="Of each kind."
)
@as_json
def preview(out: str, page: Path, samples: int, is_json: bool) -> None:
    """Draw samples of OUT: film strips, label curves, changes, both views of a pair."""
    from synth import write_preview

    report = write_preview(out, page, samples_per_kind=samples)
    show(report, [f"wrote {page}"], is_json)


@synth.command(epilog="synth demo demo/")
@click.argument("folder", type=FOLDER)
@click.option("--workers", type=int, help="Processes (default: all cores).")
@as_json
def demo(folder: Path, workers: int | None, is_json: bool) -> None:
    """Run the whole way on data it makes itself: clips, plan, shards, training, features."""
    from features import run_demo

    report = run_demo(folder, workers=workers)
    show(report, report.lines(), is_json)


@click.command(
    cls=Command,
    epilog="train ssdet-x3d-m-k400.toml --shards shards/ --out run/ --init X3D_M.pyth",
)
@click.argument("recipe", type=FILE)
@click.option("--shards", type=PLACE, required=True, help="Folder written by `synth render`.")
@click.option("-o", "--out", type=FOLDER, required=True, help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Go on with a run that was killed.")
@click.option("--init", type=ANY, help="Initial weights: a file, or another run's folder.")
@click.option(
    "--teacher", "teachers", type=FOLDER, multiple=True, help="Run to distil from; give each."
)
@device
@click.option("--workers", default=1, show_default=True, help="Data-parallel processes, on Ray.")
@click.option("--address", help="Join a running Ray cluster, for example 'auto'.")
@click.option("--cache", type=FOLDER, help="Where shards of a URL lie (default: temporary).")
@click.option("--cache-gb", default=20.0, show_default=True, help="Gigabytes of shards kept there.")
@click.version_option(package_name="seamline")
@as_json
def train(recipe: Path, shards: str, out: Path, is_json: bool, **options: Any) -> None:
    """Train the network of RECIPE on shards; under torchrun, as one of its processes."""
    from train import train_model

    report = train_model(recipe, shards, out, **options)
    if report.rank:  # of several processes of torchrun the first one reports
        sys.exit(0 if report.finished else RAN_BUT_INCOMPLETE)
    scores = ", ".join(f"{name} {score:.4f}" for name, score in report.scores.items())
    lines = [
        *report.notes,
        f"{out}: step {report.step:,} of {report.num_steps:,}, {report.clips_per_second:,.1f} "
        f"clips/s, loss {report.loss:.4f}",
    ]
    if report.num_held_out:
        lines.append(f"held out ({report.num_held_out:,} samples): {scores}")
    show(report, lines, is_json)
    finish(report.finished, f"interrupted: go on with `train {recipe} ... --out {out} --resume`")


@click.group(cls=Door)
@click.version_option(package_name="seamline")
def features() -> None:
    """Turn untrimmed videos into a store of snippet features, and export it."""


@features.command(
    epilog="features extract sources.parquet --checkpoint run/ --store features.zarr --fps 15\n\n"
    "features extract sources.parquet --streams rgb=run/,boundary=bsp/ --store both.zarr\n\n"
    "features extract sources.parquet --checkpoint videomae.pt2 --store features.zarr"
)
@click.argument("sources", type=PLACE)
@one_run
@several_runs
@store_to_write
@click.option("--snippet-len", type=int, help="Frames of a snippet (default: the run's own).")
@click.option("--snippet-stride", type=int, help="Frames between snippets (default: half of it).")
@sampling_rate
@click.option("--tail", type=click.Choice(["pad", "drop"]), default="pad", show_default=True)
@click.option(
    "--alignment",
    type=click.Choice(["left", "centre"]),
    default="left",
    show_default=True,
    help="Where in its snippet frame i * stride stands.",
)
@click.option("--per-frame", is_flag=True, help="A row per sampled frame, of runs that have them.")
@click.option(
    "--short-side",
    type=int,
    help="Shorter side of resized frames (default: the encoder's, else the crop's).",
)
@click.option(
    "--crop", type=click.Choice(["centre", "three", "ten"]), default="centre", show_default=True
)
@click.option(
    "--crop-pooling",
    type=click.Choice(["mean", "keep"]),
    default="mean",
    show_default=True,
    help="Average the crops, or keep them side by side.",
)
@click.option("--batch", type=int, help="Snippets per forward pass (default: by device).")
@device
@decoding_threads
@click.option(
    "--actors",
    type=int,
    help="Ray actors that share the shards (default: this process if there is one GPU at most and "
    "no --address, else one per GPU, or per node without GPUs; 0: this process).",
)
@click.option("--address", help="Join a running Ray cluster, for example 'auto'.")
@click.option(
    "--decode-seconds",
    type=float,
    default=120.0,
    show_default=True,
    help="An actor's decoder that is silent for so long is ended.",
)
@max_rejected
@as_json
def extract(
    sources: str,
    checkpoint: Path | None,
    streams: dict[str, Path] | None,
    store: Path,
    fps: str | None,
    is_json: bool,
    **options: Any,
) -> None:
    """Extract a feature vector per snippet of every video of SOURCES."""
    from features import extract_features
    from manifests import read_sources

    runs = one_of(checkpoint, streams)
    report = extract_features(read_sources(sources), runs, store, fps=rate(fps), **options)
    show_stored(report, store, "snippets", is_json)


def one_of(checkpoint: Path | None, streams: dict[str, Path] | None) -> Any:
    """Return the run, or the runs by name, that the command line gives; wrong use unless one."""
    from manifests import UsageError

    if (checkpoint is None) == (streams is None):
        raise UsageError("give one of --checkpoint and --streams")
    return checkpoint if streams is None else streams


@features.command(
    epilog="features predict sources.parquet --checkpoint run/ --store scores.zarr --fps 6\n\n"
    "features predict sources.parquet --checkpoint freeze/ --checkpoint mixup/ --store scores.zarr"
)
@click.argument("sources", type=PLACE)
@click.option(
    "--checkpoint",
    "checkpoints",
    type=FOLDER,
    required=True,
    multiple=True,
    help="Folder of a training run; several are an ensemble, whose probabilities are averaged.",
)
@store_to_write
@sampling_rate
@click.option("--window-stride", type=int, help="Frames between windows (default: half of one).")
@click.option("--batch", type=int, help="Windows per forward pass (default: by device).")
@device
@decoding_threads
@max_rejected
@as_json
def predict(
    sources: str,
    checkpoints: tuple[Path, ...],
    store: Path,
    fps: str | None,
    is_json: bool,
    **options: Any,
) -> None:
    """Write class probabilities of every frame of the videos of SOURCES as a store."""
    from features import predict_frames
    from manifests import read_sources

    report = predict_frames(read_sources(sources), checkpoints, store, fps=rate(fps), **options)
    show_stored(report, store, "frames", is_json)


def rate(text: str | None) -> Fraction | None:
    """Parse a frame rate, or none; wrong use if it is no number."""
    from features import parse_rate
    from manifests import UsageError

    try:
        return None if text is None else parse_rate(text)
    except ValueError as err:
        raise UsageError(f"--{err}") from err


@features.command(epilog="features info features.zarr")
@click.argument("store", type=ANY)
@as_json
def info(store: Path, is_json: bool) -> None:
    """Say what is in STORE and how it was made."""
    from features import describe_store

    record = describe_store(store)
    show(record, (f"{name}: {value}" for name, value in record.items()), is_json)


@features.command("verify", epilog="features verify features.zarr")
@click.argument("store", type=ANY)
@as_json
def verify_features(store: Path, is_json: bool) -> None:
    """Read every row of STORE and check it against its digests."""
    from features import verify_store

    report = verify_store(store)
    lines = [
        f"{store}: {report.num_rows:,} rows of {report.num_videos:,} videos, "
        f"{len(report.damaged):,} damaged, {report.num_rejected:,} rejected when extracted",
        *(f"  {video_id}: {why}" for video_id, why in report.damaged),
    ]
    show(report, lines, is_json)
    finish(report.ok, f"{len(report.damaged):,} videos of {str(store)!r} are damaged")


@features.command(epilog="features diff mine.zarr theirs.zarr")
@click.argument("store_a", type=ANY)
@click.argument("store_b", type=ANY)
@as_json
def diff(store_a: Path, store_b: Path, is_json: bool) -> None:
    """Say what differs between two stores, and how far apart their rows are."""
    from features import compare_stores

    report = compare_stores(store_a, store_b)
    show(report.to_dict(), report.lines(), is_json)
    finish(report.is_equal, f"{str(store_a)!r} and {str(store_b)!r} differ")


@features.command(
    epilog="features export features.zarr npy/\n\n"
    "features export features.zarr af/ --format actionformer --segments segments.parquet"
)
@click.argument("store", type=ANY)
@click.argument("out", type=FOLDER)
@click.option("--format", "layout", default="npy", show_default=True, help="Whose files to write.")
@segments_table
@click.option("--rule", help="How to average into 100 bins: jjboy or mmaction2.")
@click.option("--prefix", help="Before every video id (default: the tool's habit).")
@click.option("--resize", type=int, help="Rows of every video, resized linearly.")
@beside
@as_json
def export(
    store: Path,
    out: Path,
    layout: str,
    segments: str | None,
    beside: tuple[Path, ...],
    is_json: bool,
    **options: Any,
) -> None:
    """Write STORE as files that another tool reads, with its annotations and configuration."""
    from features import FeatureStore, export_store

    opened = FeatureStore.open(store, *beside)
    report = export_store(opened, out, layout, annotations(segments), **options)
    line = (
        f"{out}: {report.num_videos:,} videos, {report.num_rows:,} rows, {report.num_bytes:,} bytes"
    )
    show(report, [line, *report.notes], is_json)


def annotations(segments: str | None) -> Any:
    """Read a table of annotated segments, if one is given."""
    from features import read_annotations

    return None if segments is None else read_annotations(segments)


@features.command(
    epilog="features probe features.zarr --segments segments.parquet -o page.html\n\n"
    "features probe features.zarr --segments segments.parquet --head gtad --detections found.json"
    "\n\nfeatures probe rgb.zarr --concat boundary.zarr --segments segments.parquet --head pdan"
)
@click.argument("store", type=ANY)
@click.option("--segments", type=PLACE, required=True, help="Annotated segments (.parquet).")
@click.option(
    "--head",
    default="linear",
    show_default=True,
    help="Head to train: linear, super_events, tgm, pdan or ms_tct (scores per row), gtad, "
    "gtad-anet or bmn (segments).",
)
@click.option("--train-subset", default="train", show_default=True)
@click.option("--test-subset", default="test", show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--epochs", type=int, help="Passes over the training videos (default: the paper's).")
@click.option("--lr", type=float, help="Learning rate at the start (default: the paper's).")
@click.option(
    "--argument",
    "arguments",
    type=Setting(),
    multiple=True,
    help="Of the network, for example width=128; give each.",
)
@device
@click.option("--trained", type=FOLDER, help="Score this head, of --save; train none.")
@click.option(
    "--class-scores",
    type=ANY,
    help="Classes of proposals: scores of whole videos (.json), or another store to learn them on.",
)
@click.option("-o", "--page", type=FILE, help="Write a page of scores and timelines (.html).")
@click.option("--pictures", type=FOLDER, help="Draw a timeline per test video into it (.png).")
@click.option("--scores", type=FILE, help="Write the scores of every row (.json, .txt).")
@click.option("--detections", type=FILE, help="Write detections as the official JSON.")
@click.option("--save", type=FOLDER, help="Keep the head.")
@beside
@as_json
def probe(
    store: Path,
    segments: str,
    head: str,
    page: Path | None,
    pictures: Path | None,
    scores: Path | None,
    detections: Path | None,
    save: Path | None,
    arguments: tuple[tuple[str, Any], ...],
    class_scores: Path | None,
    beside: tuple[Path, ...],
    is_json: bool,
    **options: Any,
) -> None:
    """Train a head on STORE and score it on held-out videos, against chance."""
    from features import FeatureStore, check_kept, keep
    from features import probe as probe_with

    kept = {"page": page, "scores": scores, "save": save, "detections": detections}
    check_kept(head, kept)
    opened = FeatureStore.open(store, *beside)
    if class_scores is not None and class_scores.is_dir():
        options["class_scores"] = FeatureStore.open(class_scores)
    else:
        options["class_scores"] = class_scores
    report = probe_with(opened, annotations(segments), head, arguments=dict(arguments), **options)
    written = keep(report, pictures=pictures, **kept)
    show(report.to_dict(), [*report.lines(), *(f"wrote {path}" for path in written)], is_json)


@features.command(
    epilog="features evaluate found.json activity_net.v1-3.min.json --metric activitynet "
    "--subset validation\n\n"
    "features evaluate found.json segments.parquet --metric thumos-activitynet --subset test"
)
@click.argument("predictions", type=FILE)
@click.argument("truth", type=ANY)
@click.option(
    "--metric",
    required=True,
    help="Whose rule: activitynet, opentad, proposals, thumos, thumos-activitynet, multithumos, "
    "charades-dense, charades-sampled, charades, grounding-lgi, grounding-2d-tan or crosstask.",
)
@click.option("--subset", help="Score the videos of this subset (default: all).")
@click.option(
    "--tiou",
    "tious",
    type=float,
    multiple=True,
    help="Threshold (default: those of the rule); give each.",
)
@click.option(
    "--max-proposals",
    type=float,
    default=100,
    show_default=True,
    help="Largest average number of proposals per video.",
)
@click.option("--drop-unknown", is_flag=True, help="Leave out labels that TRUTH lacks.")
@click.option(
    "--lengths", type=FILE, help="Sources table or annotation that states the lengths of videos."
)
@as_json
def evaluate(
    predictions: Path,
    truth: Path,
    metric: str,
    tious: tuple[float, ...],
    is_json: bool,
    **options: Any,
) -> None:
    """Score PREDICTIONS against TRUTH by the rule of a public evaluator.

    PREDICTIONS is the file that the evaluator reads: {results: ...} in JSON for detections and
    proposals, or lines of the THUMOS'14 kit (.txt); an array (rows, classes) per video in .npz or
    .json for scores per frame; 'id frame scores' in lines for charades; a list of ranked segments
    per sentence in .json for grounding. TRUTH is the dataset's own annotation file or folder, or a
    segments.parquet.
    """
    from features import EvaluationOptions, evaluate_files

    chosen = EvaluationOptions(tious=tious or None, **options)
    report = evaluate_files(metric, predictions, truth, chosen)
    show(report.to_dict(), report.lines(), is_json)


@features.command(
    epilog="features similarity features.zarr pictures/ --segments segments.parquet\n\n"
    "features similarity features.zarr pictures/ --checkpoint run/ --sources sources.parquet"
)
@click.argument("store", type=ANY)
@click.argument("out", type=FOLDER)
@segments_table
@one_run
@several_runs
@click.option("--sources", type=PLACE, help="With the run: also draw re-timed copies.")
@click.option("--video", "videos", multiple=True, help="Which (default: the first 8); give each.")
@device
@as_json
def similarity(
    store: Path,
    out: Path,
    segments: str | None,
    checkpoint: Path | None,
    streams: dict[str, Path] | None,
    sources: str | None,
    videos: tuple[str, ...],
    device: str | None,
    is_json: bool,
) -> None:
    """Draw how similar the snippets of each video are, as it is and re-timed."""
    from features import FeatureStore, draw_similarity
    from manifests import read_sources

    report = draw_similarity(
        FeatureStore.open(store),
        out,
        annotations=annotations(segments),
        checkpoint=one_of(checkpoint, streams) if checkpoint or streams else None,
        sources=None if sources is None else read_sources(sources),
        videos=videos or None,
        device=device,
    )
    show(report.to_dict(), report.lines(), is_json)


@features.command(epilog="features boundary features.zarr segments.parquet -o boundary.png")
@click.argument("store", type=ANY)
@click.argument("segments", type=PLACE)
@click.option("-o", "--picture", type=FILE, required=True, help="PNG to write.")
@click.option("--subset", help="Only videos of this subset.")
@click.option(
    "--tolerance",
    "tolerance_seconds",
    type=float,
    default=0.0,
    show_default=True,
    help="Seconds from a boundary that still count as at it.",
)
@beside
@as_json
def boundary(
    store: Path,
    segments: str,
    picture: Path,
    beside: tuple[Path, ...],
    is_json: bool,
    **options: Any,
) -> None:
    """Draw how much neighbouring snippets differ at annotated boundaries and away from them."""
    from features import FeatureStore, draw_boundaries

    opened = FeatureStore.open(store, *beside)
    report = draw_boundaries(opened, annotations(segments), picture, **options)
    show(report.to_dict(), report.lines(), is_json)
