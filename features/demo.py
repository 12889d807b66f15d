"""`synth demo`: the whole way on data it makes itself, with the functions the commands call."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.resources import as_file, files
from pathlib import Path

from manifests import build_sources, make_demo_videos, read_segments, read_sources
from synth import render_plan, write_plan, write_preview
from train import train_model

from .annotations import Annotations
from .exports import export_store
from .extraction.extract import extract_features
from .pictures.boundaries import draw_boundaries
from .pictures.similarity import draw_similarity
from .pictures.timeline_page import draw_timelines
from .probing.probe_frames import probe_store
from .store.feature_store import FeatureStore

RECIPE = "demo-ssdet.toml"
FPS = Fraction(15, 2)  # the recipe shows every second of 15 frames per second
SNIPPET_STRIDE = 4
BOUNDARY_SECONDS = 0.5  # a change shows in all the snippets that overlap it
NUM_DRAWN = 2


@dataclass
class DemoReport:
    """What the demo made, where, how fast, and what it is worth.

    Attributes:
        folder: Everything lies in here.
        made: One line per stage: what it made.
        seconds: Wall time of each stage.
        pictures: Pages to open.
        map: Per-snippet mAP of a linear probe on the held-out untrimmed videos.
        chance: The same for scores that know nothing.
    """

    folder: Path
    made: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)
    map: float = 0.0
    chance: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start

    def lines(self) -> list[str]:
        """Return the report for people."""
        width = max(map(len, self.made))
        stages = [
            f"  {name:{width}}  {self.seconds[name]:6.1f} s  {what}"
            for name, what in self.made.items()
        ]
        total = f"  {'total':{width}}  {sum(self.seconds.values()):6.1f} s  {self.folder}"
        score = (
            f"held-out mAP {self.map:.3f}, {self.map / self.chance:.1f} times chance "
            f"({self.chance:.3f}): a linear probe, per snippet, on untrimmed videos"
        )
        return [*stages, total, "", score, "", "open", *(f"  {path}" for path in self.pictures)]


def run_demo(folder: Path | str, *, workers: int | None = None) -> DemoReport:
    """Make clips, plan, render, train, extract features and score them, all in `folder`.

    Run again, it keeps finished videos, shards, weights and features; what takes seconds is redone.

    Args:
        folder: Made if it does not exist.
        workers: Render and probe processes; one per core if None.

    Raises:
        UsageError: The folder holds something else.
    """
    report = DemoReport(Path(folder))
    with as_file(files("manifests.recipes") / RECIPE) as recipe:
        _make_shards(report, recipe, workers)
        _train(report, recipe)
    _extract_and_score(report, workers)
    return report


def _make_shards(report: DemoReport, recipe: Path, workers: int | None) -> None:
    folder = report.folder
    with report.stage("videos"):
        videos = make_demo_videos(folder / "videos")
    report.made["videos"] = (
        f"{len(videos.trimmed_paths)} trimmed clips of {len(videos.classes)} classes, "
        f"{len(videos.untrimmed_paths)} untrimmed videos"
    )
    with report.stage("manifest"):
        trimmed = build_sources(videos.trimmed_folder, folder / "trimmed.parquet", workers=workers)
        untrimmed = build_sources(
            videos.untrimmed_folder, folder / "untrimmed.parquet", workers=workers
        )
    report.made["manifest"] = f"{trimmed.ok + untrimmed.ok} videos probed, every frame decoded"
    with report.stage("plan"):
        counts = write_plan(recipe, folder / "trimmed.parquet", folder / "plan").record["counts"]
    report.made["plan"] = (
        f"{counts['samples']:,} samples in {counts['shards']} shards, "
        f"{counts['decodes_per_sample']:.2f} decodes per sample"
    )
    with report.stage("render"):
        rendered = render_plan(folder / "plan", folder / "shards", workers=workers)
    report.made["render"] = f"{rendered.rendered:,} samples, {rendered.rejected} rejected"
    with report.stage("preview"):
        write_preview(folder / "shards", folder / "preview.html")
    report.made["preview"] = "samples of every kind with their label curves"
    report.pictures.append(folder / "preview.html")


def _train(report: DemoReport, recipe: Path) -> None:
    run = report.folder / "run"
    with report.stage("train"):
        trained = train_model(
            recipe, report.folder / "shards", run, resume=(run / "resume.pt").exists()
        )
    scores = ", ".join(f"{name} {score:.3f}" for name, score in trained.scores.items())
    report.made["train"] = (
        f"{trained.step:,} steps at {trained.clips_per_second:.0f} clips/s; held out: {scores}"
    )


def _extract_and_score(report: DemoReport, workers: int | None) -> None:
    folder = report.folder
    with report.stage("extract"):
        extracted = extract_features(
            read_sources(folder / "untrimmed.parquet"),
            folder / "run",
            folder / "features.zarr",
            snippet_stride=SNIPPET_STRIDE,
            fps=FPS,
            workers=workers,
        )
    report.made["extract"] = (
        f"{extracted.num_snippets:,} snippets of {extracted.num_videos} untrimmed videos"
    )
    store = FeatureStore.open(folder / "features.zarr")
    segments = read_segments(folder / "videos" / "untrimmed" / "segments.parquet")
    annotations = Annotations.of_table(segments)
    with report.stage("export"):
        shutil.rmtree(folder / "actionformer", ignore_errors=True)
        export_store(store, folder / "actionformer", "actionformer", annotations)
    report.made["export"] = "features, annotations and configuration for ActionFormer"
    with report.stage("probe"):
        probed = probe_store(store, segments)
        draw_timelines(probed, folder / "timelines.html")
    report.made["probe"] = f"a linear head on {probed.num_train_videos} of them"
    report.map, report.chance = probed.map, probed.chance
    report.pictures.append(folder / "timelines.html")
    with report.stage("look"):
        report.made["look"] = _look(report, store, annotations)


def _look(report: DemoReport, store: FeatureStore, annotations: Annotations) -> str:
    """Draw what neighbouring and re-timed snippets say of the features."""
    folder = report.folder
    boundaries = draw_boundaries(
        store, annotations, folder / "boundary.png", tolerance_seconds=BOUNDARY_SECONDS
    )
    similar = draw_similarity(
        store,
        folder / "similarity",
        annotations=annotations,
        checkpoint=folder / "run",
        sources=read_sources(folder / "untrimmed.parquet"),
        videos=store.video_ids[:NUM_DRAWN],
    )
    report.pictures += [folder / "boundary.png", *similar.pictures.values()]
    return (
        f"boundaries told apart with AUC {boundaries.auc:.2f}, temporal equivariance "
        f"{similar.mean:.2f}"
    )
