"""Class probabilities of every frame of whole videos, from one run or an ensemble.

Source: SSDet (Kahatapitiya et al., AAAI 2023), "Combining Augmentations", ensemble: models trained
on shards of one augmentation each; their per-frame class probabilities are averaged.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from manifests import CheckpointError, SourceVideo, UsageError
from train import Backbone, TrainedModel, load_run

from ..store.spec import canonical_digest
from .encoder import Encoder, check_clips_are_known, choose_device
from .extract import ExtractReport, extract_features

# How runs with scores per frame turn them into probabilities, by objective and loss.
PROBABILITIES: Mapping[tuple[str, str], str] = {
    ("detection", "cross_entropy"): "softmax",  # background is the last output
    ("detection", "bce"): "sigmoid",
    ("frames", "bce"): "sigmoid",
}
# What the runs of an ensemble must have in common.
SHARED = ("classes", "frames", "height", "width", "mean", "std")


def predict_frames(
    sources: Iterable[SourceVideo],
    checkpoints: Sequence[Path | str],
    store: Path | str,
    *,
    fps: Fraction | None = None,
    window_stride: int | None = None,
    batch: int | None = None,
    device: str | None = None,
    workers: int | None = None,
    max_rejected: float = 0.01,
) -> ExtractReport:
    """Store the class probabilities of every sampled frame; run again to finish what is missing.

    A window of the run's own number of frames moves over the video. A frame's probabilities are
    the mean over the runs, then over the windows that show it. The store has a row per sampled
    frame and a column per class, in id order; background has none. Rows of runs that have a
    background output add up to 1 minus its probability.

    Args:
        sources: The sources table, or its rows; of a rejected one there are no scores.
        checkpoints: Folders of training runs, one or more.
        store: Folder of the feature store; made, resumed, or left as it is when complete.
        fps: Sampling rate; None takes the video's own frames.
        window_stride: Sampled frames between windows; half of a window by default.
        batch: Windows per forward pass; by default 2 on a CPU and 32 on a GPU.
        device: "cpu" or "cuda"; None takes CUDA where there is one.
        workers: Decoding threads; the number of processors, at most 8, by default.
        max_rejected: Share of the videos that may be rejected before the report is not `ok`.

    Raises:
        UsageError: Numbers out of range, or no video.
        CheckpointError: A folder without a run, a run without scores per frame, or runs that
            differ in classes or in the clips they take.
        StoreError: The path holds something else, another spec, or other videos.
    """
    return extract_features(
        sources,
        predictor_of_runs(checkpoints, device),
        store,
        snippet_stride=window_stride,
        fps=fps,
        batch=batch,
        workers=workers,
        max_rejected=max_rejected,
    )


def predictor_of_runs(run_dirs: Sequence[Path | str], device: str | None = None) -> Encoder:
    """Return runs as one encoder: the mean of their class probabilities per frame.

    Raises:
        UsageError: There is no run, or no such device.
        CheckpointError: As `predict_frames`.
    """
    if not run_dirs:
        raise UsageError("a prediction needs at least one run")
    chosen = choose_device(device)
    runs = [load_run(run_dir, chosen) for run_dir in run_dirs]
    kinds = [_probabilities(run, run_dir) for run, run_dir in zip(runs, run_dirs, strict=True)]
    _check_ensemble(runs, kinds, run_dirs)
    record, classes = runs[0].record, runs[0].record["classes"]
    members = [
        {"weights_digest": run.digest}
        | {key: run.record[key] for key in ("backbone", "arguments", "objective", "loss")}
        for run in runs
    ]
    single = len(runs) == 1
    return Encoder(
        name=record["backbone"] if single else "ensemble",
        embed=mean_probabilities([run.backbone for run in runs], kinds[0], len(classes)),
        feature_dim=len(classes),
        num_frames=record["frames"],
        height=record["height"],
        width=record["width"],
        mean=tuple(record["mean"]),
        std=tuple(record["std"]),
        weights_digest=runs[0].digest if single else canonical_digest(members),
        arguments=record["arguments"] if single else {},
        device=chosen,
        per_frame=True,
        prediction={"probabilities": kinds[0], "classes": classes, "runs": members},
    )


def mean_probabilities(
    backbones: Sequence[Backbone], kind: str, num_classes: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what turns clips `(N, 3, T, H, W)` into probabilities `(N, T, K)`.

    Args:
        backbones: In evaluation mode.
        kind: "softmax" over the classes and background, or "sigmoid" of each class.
        num_classes: `K`; outputs beyond it are background, and left out.
    """

    def predict(clips_NCTHW: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), device=clips_NCTHW.device)
        for backbone in backbones:
            logits_NCT = backbone(clips_NCTHW, per_frame=True).float()
            scores_NCT = logits_NCT.softmax(1) if kind == "softmax" else logits_NCT.sigmoid()
            total = total + scores_NCT[:, :num_classes]
        return (total / len(backbones)).transpose(1, 2)

    return predict


def _probabilities(run: TrainedModel, run_dir: Path | str) -> str:
    """Return "softmax" or "sigmoid"; CheckpointError if the run has no scores per frame."""
    check_clips_are_known(run, run_dir)
    objective, loss = run.record.get("objective"), run.record.get("loss")
    kind = PROBABILITIES.get((str(objective), str(loss)))
    if kind is None:
        known = ", ".join(dict.fromkeys(repr(name) for name, _ in PROBABILITIES))
        raise CheckpointError(
            f"probabilities per frame need runs of objective {known}, but {str(run_dir)!r} is one "
            f"of {objective!r} with loss {loss!r}"
        )
    return kind


def _check_ensemble(
    runs: Sequence[TrainedModel], kinds: Sequence[str], run_dirs: Sequence[Path | str]
) -> None:
    """Raise CheckpointError unless all runs are alike in what their mean depends on."""
    facts: list[dict[str, Any]] = [
        {name: run.record[name] for name in SHARED} | {"probabilities": kind}
        for run, kind in zip(runs, kinds, strict=True)
    ]
    for fact, run_dir in zip(facts[1:], run_dirs[1:], strict=True):
        for name, value in fact.items():
            if value != facts[0][name]:
                raise CheckpointError(
                    f"the runs of an ensemble must have the same {name}, but {str(run_dirs[0])!r} "
                    f"and {str(run_dir)!r} differ: {_difference(facts[0][name], value)}"
                )


def _difference(mine: Any, theirs: Any) -> str:
    """Return two unequal values; of long lists their lengths or what first differs."""
    if isinstance(mine, list) and len(mine) == len(theirs):
        mine, theirs = next(pair for pair in zip(mine, theirs, strict=True) if pair[0] != pair[1])
    elif isinstance(mine, list):
        mine, theirs = len(mine), len(theirs)
    return f"{mine!r} and {theirs!r}"
