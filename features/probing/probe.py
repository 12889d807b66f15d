"""Probe a store with a head of either kind, and write what one wants to keep of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests import UsageError

from ..annotations import Annotations
from ..extraction.encoder import choose_device
from ..heads import TrainedHead
from ..pictures.timeline_figures import draw_timeline_figures
from ..pictures.timeline_page import draw_timelines
from ..store.feature_store import FeatureStore
from .detections import write_detections
from .predictions import write_frame_detections, write_frame_scores
from .probe_detection import DetectionReport, probe_detection
from .probe_frames import HEADS, ProbeReport, probe_store, score_head

DETECTOR_ARGUMENTS = ("temporal_scale", "max_duration", "hidden_dim")
OF_FRAMES = ("page", "scores", "save")  # what only heads that predict frames can write


def probe(
    store: FeatureStore,
    segments: pa.Table | Annotations,
    head: str = "linear",
    train_subset: str = "train",
    test_subset: str = "test",
    *,
    trained: Path | None = None,
    class_scores: Path | FeatureStore | None = None,
    arguments: Mapping[str, Any] | None = None,
    **training: Any,
) -> ProbeReport | DetectionReport:
    """Train a head and score it, or score one that was trained before.

    Args:
        store: Features of both subsets.
        segments: Table of `segments.parquet`, or what was read of it.
        head: A key of `HEADS`.
        train_subset: Value of the column `subset` to train on.
        test_subset: Value to score on.
        trained: Folder of a head that predicts frames; then nothing is trained.
        class_scores: For heads that predict segments (`probe_detection`).
        arguments: Of the network, by name: a size, a variant.
        training: `seed`, `device`, `epochs`, `lr`, `control` of `probe_store` and
            `probe_detection`.

    Raises:
        UsageError: An unknown head, arguments that it does not have, no video to score, one
            subset to train and to score on, training of a head that is trained already.
        CheckpointError: The folder `trained` holds no head.
        StoreError: Features are damaged or not finite.
    """
    if head not in HEADS:
        raise UsageError(f"the head must be one of {', '.join(HEADS)}, got {head!r}")
    arguments = dict(arguments or {})
    if trained is not None:
        chosen = {"epochs": training.get("epochs"), "lr": training.get("lr")}
        chosen |= {"arguments": arguments or None, "class scores": class_scores}
        useless = [name for name, value in chosen.items() if value is not None]
        if useless:
            raise UsageError(
                f"a head that is trained already is only scored: it takes no {useless[0]}"
            )
        return score_head(
            TrainedHead.load(trained, choose_device(training.get("device"))),
            store,
            segments,
            test_subset,
        )
    if train_subset == test_subset:
        raise UsageError(
            f"a head must be scored on other videos than it was trained on, but both subsets are "
            f"{train_subset!r}"
        )
    given: dict[str, Any] = {
        "train_subset": train_subset,
        "test_subset": test_subset,
        **training,
    }
    if HEADS[head] == "frames":
        if class_scores is not None:
            raise UsageError(f"class scores are for heads that predict segments, not for {head!r}")
        return probe_store(store, segments, head, arguments=arguments, **given)
    odd = [name for name in arguments if name not in DETECTOR_ARGUMENTS]
    if odd or not all(isinstance(value, int) for value in arguments.values()):
        raise UsageError(
            f"the arguments of {head!r} are whole numbers {', '.join(DETECTOR_ARGUMENTS)}, got "
            + ", ".join(f"{name}={value}" for name, value in arguments.items())
        )
    return probe_detection(store, segments, head, class_scores=class_scores, **arguments, **given)


def check_kept(head: str, kept: Mapping[str, Path | None]) -> None:
    """Raise UsageError if a head cannot write what is asked of it, before it is trained."""
    odd = [name for name in OF_FRAMES if kept.get(name) is not None]
    if odd and HEADS.get(head) == "segments":
        raise UsageError(f"--{odd[0]} is for heads that predict frames, not for {head!r}")


def keep(
    report: ProbeReport | DetectionReport,
    *,
    page: Path | None = None,
    pictures: Path | None = None,
    scores: Path | None = None,
    detections: Path | None = None,
    save: Path | None = None,
) -> list[Path]:
    """Write what is asked of a probe; return the files and folders.

    Args:
        report: Of `probe`.
        page: HTML page of scores and timelines; of heads that predict frames.
        pictures: Folder for a timeline per test video (PNG).
        scores: Scores of every row (`write_frame_scores`); of heads that predict frames.
        detections: Detections in the official JSON.
        save: Folder for the head itself; of heads that predict frames.
    """
    if isinstance(report, ProbeReport):
        if page is not None:
            draw_timelines(report, page)
        if scores is not None:
            write_frame_scores(scores, report)
        if detections is not None:
            write_frame_detections(detections, report)
        if save is not None:
            report.trained.save(save)
    elif detections is not None:
        write_detections(detections, report.detections)
    if pictures is not None:
        draw_timeline_figures(report.videos, report.classes, pictures)
    return [path for path in (page, pictures, scores, detections, save) if path is not None]
