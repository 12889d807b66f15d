"""Make the demo's own videos: classes that only motion tells apart, cut clips and long videos."""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np

from .demo_scenes import (
    BACKDROP_MARGIN,
    FPS,
    MOTIONS,
    RATES,
    Act,
    ObjectRow,
    Scene,
    colour,
    paint,
    paint_sprite,
    render_frames,
    run_phases,
)
from .errors import UsageError
from .ffmpeg import run_ffmpeg
from .progress import Progress
from .storage import atomic_writer, write_atomic
from .tables import write_segments

TRIMMED_FRAMES = (40, 48)
RENDERER = 1
"""Raised whenever the same arguments give other videos than before."""


@dataclass(frozen=True)
class DemoVideos:
    """What `make_demo_videos` made.

    Attributes:
        trimmed_folder: One folder per class, of clips that the action fills.
        untrimmed_folder: The long videos and their `segments.parquet`.
        segments_path: The annotated segments of the long videos.
        classes: Class names in id order.
        trimmed_paths: Every trimmed clip.
        untrimmed_paths: Every long video; its stem is its `video_id` in the segments.
        segments: The rows of `segments_path`.
    """

    trimmed_folder: Path
    untrimmed_folder: Path
    segments_path: Path
    classes: tuple[str, ...]
    trimmed_paths: tuple[Path, ...]
    untrimmed_paths: tuple[Path, ...]
    segments: tuple[dict, ...]


def make_demo_videos(
    folder: Path | str,
    seed: int = 0,
    *,
    num_train_per_class: int = 40,
    num_untrimmed: int = 24,
    untrimmed_seconds: float = 24.0,
    trimmed_frames: tuple[int, int] = TRIMMED_FRAMES,
) -> DemoVideos:
    """Write the demo's videos; the same arguments give the same bytes, and finished files are kept.

    Args:
        folder: Gets `trimmed/<class>/<class>_0000.mp4` and `untrimmed/untrimmed_0000.mp4`, ...,
            `untrimmed/segments.parquet`. Of the untrimmed videos every other one is of subset
            `train` and the rest of subset `test`.
        seed: Seed of everything; at least 0.
        num_train_per_class: Trimmed clips per class.
        num_untrimmed: Long videos.
        untrimmed_seconds: Length of each of them, rounded to whole frames; at least 10.
        trimmed_frames: Least and largest length of a trimmed clip, at 15 frames per second.

    Raises:
        UsageError: An argument is out of range, or the folder holds demo videos of other arguments.
    """
    folder = Path(folder)
    arguments: dict[str, Any] = {
        "seed": seed,
        "num_train_per_class": num_train_per_class,
        "num_untrimmed": num_untrimmed,
        "untrimmed_seconds": untrimmed_seconds,
        "renderer": RENDERER,
    }
    if trimmed_frames != TRIMMED_FRAMES:  # folders of before have no such note
        arguments["trimmed_frames"] = list(trimmed_frames)
    _claim_folder(folder, arguments)
    labels = [label for label in MOTIONS for _ in range(num_train_per_class)]
    trimmed_paths = [
        folder / "trimmed" / label / f"{label}_{i % num_train_per_class:04d}.mp4"
        for i, label in enumerate(labels)
    ]
    untrimmed_paths = [
        folder / "untrimmed" / f"untrimmed_{i:04d}.mp4" for i in range(num_untrimmed)
    ]

    def plan(video_index: int) -> Scene:
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(video_index,)))
        if video_index < len(labels):
            return plan_trimmed(rng, labels[video_index], trimmed_frames)
        return plan_untrimmed(rng, round(untrimmed_seconds * FPS))

    _write_missing(trimmed_paths + untrimmed_paths, plan)
    segments = [
        row
        for i, path in enumerate(untrimmed_paths)
        for row in _segment_rows(plan(len(labels) + i), path.stem, ("train", "test")[i % 2])
    ]
    segments_path = folder / "untrimmed" / "segments.parquet"
    write_segments(segments_path, segments, list(MOTIONS))
    return DemoVideos(
        trimmed_folder=folder / "trimmed",
        untrimmed_folder=folder / "untrimmed",
        segments_path=segments_path,
        classes=tuple(MOTIONS),
        trimmed_paths=tuple(trimmed_paths),
        untrimmed_paths=tuple(untrimmed_paths),
        segments=tuple(segments),
    )


def plan_trimmed(
    rng: np.random.Generator, label: str, trimmed_frames: tuple[int, int] = TRIMMED_FRAMES
) -> Scene:
    """Draw a clip that one action fills; a still row may distract."""
    shortest, longest = trimmed_frames
    num_frames = int(rng.integers(shortest, longest + 1))
    acts = [Act(0, num_frames, label)]
    shows_T = np.zeros(num_frames, np.int64)
    still_T = shows_T if rng.random() < 0.4 else shows_T - 1
    return _plan_scene(rng, [(acts, shows_T), ([], still_T)])


def plan_untrimmed(rng: np.random.Generator, num_frames: int) -> Scene:
    """Draw a long video: one row acts and pauses, the other starts acts of its own meanwhile."""
    deck: list[str] = []
    first: list[Act] = []
    second: list[Act] = []
    start_frame = int(rng.integers(FPS, 3 * FPS))
    while (end_frame := start_frame + int(rng.integers(2 * FPS, 4 * FPS))) < num_frames - FPS // 2:
        first.append(Act(start_frame, end_frame, _deal(rng, deck, avoid=set())))
        start_frame = end_frame + int(rng.integers(FPS, 3 * FPS))
    for under in first[int(rng.integers(min(2, len(first)))) :: 2]:
        length = under.end_frame - under.start_frame
        start_frame = under.start_frame + int(rng.integers(length // 4, 3 * length // 4))
        end_frame = min(start_frame + int(rng.integers(2 * FPS, 4 * FPS)), num_frames)
        beside = {
            act.label
            for act in first
            if act.start_frame < end_frame and start_frame < act.end_frame
        }
        second.append(Act(start_frame, end_frame, _deal(rng, deck, avoid=beside)))
    plans = [(acts, _plan_shows(rng, acts, num_frames)) for acts in (first, second)]
    return _plan_scene(rng, plans)


def _deal(rng: np.random.Generator, deck: list[str], avoid: set[str]) -> str:
    """Take the first label that is allowed; shuffle all classes in again when none is left."""
    if all(label in avoid for label in deck):
        deck.extend(np.array(list(MOTIONS))[rng.permutation(len(MOTIONS))].tolist())
    return deck.pop(next(i for i, label in enumerate(deck) if label not in avoid))


def _plan_shows(rng: np.random.Generator, acts: list[Act], num_frames: int) -> np.ndarray:
    """Draw what is seen of a row: in the middle of each gap it may leave, and another comes."""
    sprite_T = np.zeros(num_frames, np.int64)
    bounds = [0, *(f for act in acts for f in (act.start_frame, act.end_frame)), num_frames]
    for start_frame, end_frame in zip(bounds[::2], bounds[1::2], strict=True):
        quarter = (end_frame - start_frame) // 4
        if rng.random() < 0.6:
            sprite_T[start_frame + 2 * quarter :] += 1
            if quarter:
                sprite_T[start_frame + quarter : end_frame - quarter] = -1
    return sprite_T


def _plan_scene(rng: np.random.Generator, plans: list[tuple[list[Act], np.ndarray]]) -> Scene:
    """Draw the looks of a video whose rows' acts and shows are known."""
    num_frames = len(plans[0][1])
    width, height = 2 * int(rng.integers(44, 54)), 2 * int(rng.integers(36, 42))
    if rng.random() < 0.15:
        width, height = height, width
    margin = 2 * BACKDROP_MARGIN
    hue, value = rng.random(), rng.uniform(0.15, 0.4)
    backdrop = paint(
        rng,
        (height + margin, width + margin),
        colour(hue, rng.uniform(0.1, 0.5), value),
        colour(hue + rng.uniform(-0.1, 0.1), rng.uniform(0.1, 0.5), value + 0.12),
        wavelength=rng.uniform(14, 40),
    )
    phase, sway = rng.random(2), rng.uniform(0, 2.0, 2)
    seconds_T1 = np.arange(num_frames)[:, None] / FPS
    drift_T2 = sway * np.sin(2 * np.pi * (phase + seconds_T1 * rng.uniform(0.05, 0.2, 2)))
    grain = rng.normal(0, rng.uniform(1, 3), (height + 32, width + 32, 3)).astype(np.float32)
    grain_T2 = rng.integers(0, 33, (num_frames, 2))
    levels = rng.permutation([0.45, 0.80]) * height
    rows = tuple(
        _plan_row(rng, acts, sprite_T, float(level), hue)
        for (acts, sprite_T), level in zip(plans, levels, strict=True)
    )
    order = rng.permutation(len(rows))
    acts = sorted((act for plan in plans for act in plan[0]), key=lambda act: act.start_frame)
    return Scene(
        width,
        height,
        backdrop,
        drift_T2,
        grain,
        grain_T2,
        tuple(rows[i] for i in order),
        tuple(acts),
    )


def _plan_row(
    rng: np.random.Generator, acts: list[Act], sprite_T: np.ndarray, level: float, hue: float
) -> ObjectRow:
    """Draw a row of objects that stands out from a backdrop of the given hue."""
    radius = rng.uniform(15, 18)
    rates_A = np.array([rng.uniform(*RATES[axis]) for axis in range(len(RATES))])
    phases_A = rng.random(len(RATES))
    return ObjectRow(
        sprites=tuple(paint_sprite(rng, hue) for _ in range(int(sprite_T.max()) + 1)),
        sprite_T=sprite_T,
        phases_TA=run_phases(phases_A, acts, rates_A, len(sprite_T)),
        radius=radius,
        period=int(rng.uniform(3.4, 3.8) * radius),
        baseline=level + rng.uniform(-3, 3),
    )


def _claim_folder(folder: Path, arguments: dict[str, Any]) -> None:
    """Check the arguments and note them in the folder, or check that it was made with the same."""
    shortest, longest = arguments.get("trimmed_frames", TRIMMED_FRAMES)
    if not 1 <= shortest <= longest:
        raise UsageError(f"trimmed_frames must be [least, largest] >= 1, got {[shortest, longest]}")
    for name, least in (
        ("seed", 0),
        ("num_train_per_class", 0),
        ("num_untrimmed", 0),
        ("untrimmed_seconds", 10),
    ):
        if not arguments[name] >= least:
            raise UsageError(f"{name} must be >= {least}, got {arguments[name]:g}")
    note_path = folder / "demo.json"
    if not note_path.exists():
        write_atomic(note_path, json.dumps(arguments, indent=1).encode())
    elif (found := json.loads(note_path.read_text())) != arguments:
        raise UsageError(
            f"{str(folder)!r} must be empty or hold demo videos of the same arguments, "
            f"got {found} there and {arguments} now"
        )


def _write_missing(paths: Sequence[Path], plan: Callable[[int], Scene]) -> None:
    """Draw and encode the videos that are not there yet; what is there is complete."""
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    if not missing:
        return
    done = len(paths) - len(missing)
    with (
        Progress("make", "demo videos", len(paths), done=done) as progress,
        ThreadPoolExecutor(os.cpu_count()) as pool,  # drawing and encoding leave the interpreter
    ):
        for _ in pool.map(lambda i: _encode(render_frames(plan(i)), paths[i]), missing):
            progress.advance()


def _segment_rows(scene: Scene, video_id: str, subset: str) -> list[dict]:
    """Return the acts of a scene as rows of the segments table."""
    return [
        {
            "video_id": video_id,
            "label": act.label,
            "label_id": list(MOTIONS).index(act.label),
            "start_seconds": act.start_frame / FPS,
            "end_seconds": act.end_frame / FPS,
            "subset": subset,
        }
        for act in scene.acts
    ]


def _encode(frames_THWC: np.ndarray, path: Path) -> None:
    """Write frames as H.264 in mp4: one thread and no time stamps, so that bytes repeat."""
    height, width = frames_THWC.shape[1:3]
    video = ffmpeg.input(
        "pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", framerate=FPS
    )
    with atomic_writer(path) as file:
        stream = video.output(
            file.name,
            format="mp4",
            vcodec="libx264",
            preset="medium",
            crf=20,
            g=2 * FPS,
            pix_fmt="yuv420p",
            sws_flags="bitexact+accurate_rnd",
            threads=1,
            fflags="+bitexact",
            movflags="+faststart",
            **{"flags:v": "+bitexact"},
        )
        run_ffmpeg(stream, stdin=frames_THWC.tobytes())
