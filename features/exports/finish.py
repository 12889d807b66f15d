"""End an export: the list of missing videos, the README, and `store.json`, which comes last."""

from collections.abc import Sequence

from .clock import Clock
from .files import write_json, write_text
from .report import ExportReport, folder_bytes
from .request import ExportRequest
from .tree import export_tree


def finish_export(
    request: ExportRequest, title: str, mapping: str, misfits: Sequence[str], clock: Clock
) -> ExportReport:
    """Write what every folder ends with.

    Args:
        request: The export.
        title: First line of the README, and who reads the files.
        mapping: How row i maps to seconds for that tool, in Markdown.
        misfits: What the tool cannot hold or does otherwise, a sentence each.
        clock: How far its seconds are from the store's.
    """
    out, store = request.out, request.store
    write_text(out / "missing_files.txt", "".join(f"{name}\n" for name in request.missing))
    notes = tuple(_notes(request, clock))
    write_text(out / "README.md", _readme(request, title, mapping, misfits, notes))
    write_json(
        out / "store.json",
        {
            "format": request.format,
            "feature_dim": store.feature_dim,
            "channel_ranges": {name: list(span) for name, span in store.channel_ranges.items()},
            "store_digest": store.digest,
            "feature_specs": [spec.to_dict() for spec in store.specs],
            "largest_difference_seconds": clock.largest_seconds,
            "keys": {video.video_id: video.key for video in request.videos},
        },
    )
    num_rows = sum(video.num_rows for video in request.videos)
    return ExportReport(
        request.format, out, len(request.videos), num_rows, folder_bytes(out), notes
    )


def _notes(request: ExportRequest, clock: Clock) -> list[str]:
    notes = [
        f"the tool's seconds differ from the presentation times by up to "
        f"{clock.largest_seconds:.3f} s (video {clock.video_id!r})"
        if clock.largest_seconds >= 0.0005
        else "the tool's seconds are the presentation times, to a millisecond"
    ]
    if request.annotations is None:
        notes.append("no annotation file, as no segments were given (--segments)")
        return notes
    left_out = len(request.store) - len(request.videos)
    if left_out:
        notes.append(f"{left_out:,} videos of the store are in neither subset, and left out")
    bare = len(request.videos) - len(request.annotated)
    if bare:
        notes.append(f"{bare:,} videos of the store have no annotation")
    if request.missing:
        notes.append(
            f"{len(request.missing):,} annotated videos are not in the store: missing_files.txt"
        )
    return notes


def _readme(
    request: ExportRequest, title: str, mapping: str, misfits: Sequence[str], notes: Sequence[str]
) -> str:
    spec = request.store.spec
    rate = "the video's own frame rate" if spec.fps is None else f"{spec.fps} frames per second"
    channels = ", ".join(
        f"{first}-{end - 1} {name}" for name, (first, end) in request.store.channel_ranges.items()
    )
    train, score = request.splits
    points = [*misfits, *(f"{note[0].upper()}{note[1:]}." for note in notes)]
    if request.annotations is not None:
        points.append(f'The tool trains on the subset "{train}" and scores on "{score}".')
        third = {video.subset for video in request.annotated} - {train, score}
        points += [
            f'It uses the annotated subset "{name}" for neither.'
            for name in sorted(map(str, third))
        ]
    listed = "".join(f"- {point}\n" for point in points)
    files = "".join(f"    {line}\n" for line in export_tree(request.out))
    return f"""# {title}

Features of {len(request.videos)} videos, float32. A row of the store is a snippet of
{spec.snippet_len} frames, every {spec.snippet_stride} frames, {spec.alignment}-aligned, sampled at
{rate}. Channels of the store: {channels}.

Names are video ids; characters that a name cannot hold are percent-encoded (`store.json`, `keys`).
`store.json` was written last: without it this export is not complete.

## Files
{files}
## Which seconds row i stands for
{mapping}

## What does not fit, and what to know
{listed}"""
