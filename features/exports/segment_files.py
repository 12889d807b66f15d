"""What ActionFormer and OpenTAD share: a file per video, the ActivityNet JSON, the class list."""

from typing import Any

from .files import write_json, write_npy, write_text
from .report import claim_folder
from .request import ExportedVideo, ExportRequest


def occurring_classes(request: ExportRequest) -> list[str]:
    """Return the sorted names of the classes that have a segment in an exported video."""
    found = {segment.class_index for video in request.annotated for segment in video.segments}
    return sorted(request.classes[index] for index in found)


def stated_frames(video: ExportedVideo) -> int | float:
    """Return `duration * fps`: the number of frames where it is that to 1/100, so mostly whole."""
    frames = video.duration_seconds * video.fps
    return video.num_frames if abs(frames - video.num_frames) < 0.01 else frames


def write_features_and_database(request: ExportRequest) -> None:
    """Claim the folder; write `features/*.npy` and, with annotations, `write_database`.

    Raises:
        UsageError: The folder is in use.
        StoreError: Rows are damaged.
    """
    claim_folder(request.out)
    (request.out / "features").mkdir()
    for video in request.videos:
        write_npy(request.out / "features" / f"{video.key}.npy", request.rows(video))
    if request.annotations is not None:
        write_database(request)


def write_database(request: ExportRequest) -> None:
    """Write `annotations.json` and `category_idx.txt`, that ActionFormer and OpenTAD both read.

    `label_id` is the line of `category_idx.txt`, from 0. `fps` and `frame` count the frames that
    the snippets were cut from, so that `frame / duration = fps`. Names have no prefix: both tools
    put it before the names of files.
    """
    classes = occurring_classes(request)
    ids = {name: index for index, name in enumerate(classes)}
    write_text(request.out / "category_idx.txt", "".join(f"{name}\n" for name in classes))
    database = {
        request.known_as(video.key): _entry(request, video, ids) for video in request.annotated
    }
    write_json(request.out / "annotations.json", {"version": "1.0", "database": database})


def _entry(request: ExportRequest, video: ExportedVideo, ids: dict[str, int]) -> dict[str, Any]:
    named = [(request.classes[segment.class_index], segment) for segment in video.segments]
    return {
        "subset": video.subset,
        "duration": video.duration_seconds,
        "fps": video.fps,
        "frame": stated_frames(video),
        "annotations": [
            {
                "segment": [segment.start_seconds, segment.end_seconds],
                "label": name,
                "label_id": ids[name],
            }
            for name, segment in named
        ],
    }
