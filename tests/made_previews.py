"""Make finished output folders without a render job, and read back the pages made of them."""

import base64
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from synth.codecs import ENCODERS, EXTENSIONS
from synth.labels import constant_track
from synth.preview import write_preview
from synth.shards import TarWriter, dump_json, shard_path, write_index
from synth.tree import PAIR, LabelledSize, evaluate_frames, evaluate_labels

CLASSES = ("archery", "juggling balls", "tai chi", "yoga")
LEAVES = [{"op": "clip", "source": 0}, {"op": "clip", "source": 1}]
TREES: dict[str, dict[str, Any]] = {
    "clip": LEAVES[0],
    "freeze": {"op": "freeze", "r": 5, "m": 7, "inputs": LEAVES[:1]},
    "mixup": {"op": "mixup", "n1": 11, "n2": 10, "r": 6, "boundary": "smooth", "inputs": LEAVES},
    "cutmix_window": {
        "op": "cutmix_window", "n1": 16, "n2": 8, "r": 3, "delta": 2.0, "inputs": LEAVES
    },
    "cutmix_view": {"op": "cutmix_view", "delta": 2.0, "inputs": LEAVES},
}  # fmt: skip


def moving_bars(seed: int, num_frames: int = 16, height: int = 32, width: int = 32) -> np.ndarray:
    """Return uint8 `(T, height, width, 3)`: coloured bars that move to the right."""
    colours = np.random.default_rng(seed).integers(0, 255, (4, 3))
    columns = (np.arange(width) + 2 * np.arange(num_frames)[:, None]) // 8 % 4
    bars = np.broadcast_to(colours[columns][:, None], (num_frames, height, width, 3))
    return bars.astype(np.uint8)


def planned_source(video_id: str, label_id: int | None, num_frames: int) -> dict[str, Any]:
    view = {"short_side": 32, "x": 0, "y": 0, "width": 32, "height": 32, "flip": False}
    return {
        "video_id": video_id,
        "label_id": label_id,
        "start_frame": 30,
        "frame_stride": 5,
        "num_frames": num_frames,
        "view": view,
    }


def made_sample(number: int, kind: str, **changes: Any) -> dict[str, Any]:
    """Return a sample of one kind as (frames, meta), made by the real operations."""
    tree = TREES[kind]
    num_frames = changes.pop("num_frames", 16)
    ids = [number % 4, (number + 1) % 4][: 2 if tree is not LEAVES[0] and kind != "freeze" else 1]
    clips = [moving_bars(10 * number + i, num_frames) for i in range(len(ids))]
    labels = [LabelledSize(constant_track(label_id, num_frames), 32, 32) for label_id in ids]
    track = evaluate_labels(tree, labels).track
    meta = {
        "kind": kind,
        "num_frames": num_frames,
        "class_ids": track.class_ids.tolist(),
        "weights": track.weights_CT.tolist(),
        "tree": tree,
        "sources": [planned_source(f"v{label_id}", label_id, num_frames) for label_id in ids],
    }
    return {"frames": evaluate_frames(tree, clips), "meta": meta | changes}


def clips_by_name(frames: np.ndarray) -> dict[str, np.ndarray]:
    """Return the clips of a sample by what stands before their extension."""
    if frames.ndim == 4:
        return {"": frames}
    return {f"{view}.": clip for view, clip in zip(PAIR, frames, strict=True)}


def write_folder(
    out: Path,
    samples: Sequence[dict[str, Any]],
    classes: Sequence[str] = CLASSES,
    codec: str = "filmstrip",
    rejected: Sequence[str] = (),
    samples_per_shard: int = 8,
) -> Path:
    """Write a finished output folder as the render job does; `rejected` holds a reason each."""
    out.mkdir(parents=True)
    digests: list[str] = []
    for shard, first in enumerate(range(0, max(len(samples), 1), samples_per_shard)):
        rows = []
        with open(shard_path(out, shard), "wb") as file:
            tar = TarWriter(file)
            for number, sample in enumerate(samples[first : first + samples_per_shard], first):
                key, start, meta = f"{number:08d}", tar.offset, sample["meta"]
                for view, frames in clips_by_name(sample["frames"]).items():
                    tar.add(f"{key}.{view}{EXTENSIONS[codec]}", ENCODERS[codec](frames))
                tar.add(f"{key}.json", dump_json(meta))
                ids = [source["video_id"] for source in meta["sources"]]
                ids = [video_id.encode("utf-8", "replace").decode() for video_id in ids]
                place = {"offset": start, "bytes": tar.offset - start, "video_ids": ids}
                rows.append({"key": key, "status": "rendered", "kind": meta["kind"], **place})
            digests.append(tar.close())
        reasons = rejected if shard == 0 else ()
        for reason in reasons:
            rows.append({"key": "x", "status": "rejected", "reason": reason, "kind": "clip"})
        index_sha256 = write_index(shard_path(out, shard, "parquet"), rows)
        record = {
            "plan_digest": "1f" * 32,
            "bytes": tar.offset,
            "sha256": digests[-1],
            "index_sha256": index_sha256,
            "kinds": {},
            "planned": len(rows),
            "rendered": len(rows) - len(reasons),
            "rejected": len(reasons),
            "reasons": {reason: reasons.count(reason) for reason in reasons},
        }
        shard_path(out, shard, "json").write_bytes(dump_json(record))
    dataset = {
        "plan_digest": "1f" * 32,
        "classes": list(classes),
        "codec": codec,
        "shards": list(range(len(digests))),
        "shard_digests": digests,
    }
    (out / "dataset.json").write_bytes(dump_json(dataset))
    return out


class Page(HTMLParser):
    """A parsed page: elements with their attributes, the text, and that every tag is closed."""

    VOID = frozenset({"meta", "img", "br", "line", "path"})

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(content)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data

    def all(self, tag: str, style: str | None = None) -> list[dict[str, str | None]]:
        return [
            attrs
            for name, attrs in self.elements
            if name == tag and style in (None, attrs.get("class"))
        ]

    def frames(self) -> list[np.ndarray]:
        sources = [str(image["src"]) for image in self.all("img")]
        return [simplejpeg.decode_jpeg(base64.b64decode(s.partition(",")[2])) for s in sources]


def preview(out: Path, **options: Any) -> Page:
    page = out.parent / f"{out.name}.html"
    write_preview(out, page, **options)
    return Page(page.read_text(encoding="utf-8"))
