"""Check one sample of a shard: bytes, labels against its tree, pixels against fresh ones.

Every check says what is wrong in one clause, or None; the caller adds shard and key.
"""

import io
from collections.abc import Mapping, Sequence
from reprlib import repr as brief
from typing import Any

import numpy as np

from manifests import ShardError

from .codecs import ENCODERS, EXTENSIONS, decode_member
from .labels import constant_track
from .render import RenderedSample, sample_meta
from .shards import ShardSample, TarWriter, dump_json, parse_sample
from .tree import LARGEST_SAMPLE, PAIR, LabelledSize, clips_of, describe_sample, evaluate_labels

TILE = 16  # pixels: the side of what one block of a codec can change
# Mean grey levels on a tile, for renderings by other package versions. Measured on real clips: a
# rounding error in every pixel gives at most 3 (filmstrip) and 6 (h264), another frame 20 and more.
TOLERANCE = {"filmstrip": 6.0, "h264": 10.0, "raw": 2.0}
BROKEN = (ShardError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError)


def check_bytes(content: bytes, row: Mapping[str, Any], codec: str) -> ShardSample | str:
    """Parse the tar members of a sample; they must be what rendering writes, to the byte.

    Args:
        content: The bytes at the place that the index names.
        row: Its row of the index.
        codec: Of the shard.

    Returns:
        The sample, or what is wrong.
    """
    try:
        sample = parse_sample(content, len(content))
        written = _serialise(sample)
    except BROKEN as err:
        return str(err)
    extension = EXTENSIONS[codec]
    names = list(sample.members)
    if sample.key != row["key"]:
        return f"the bytes at its place are those of sample {brief(sample.key)}"
    if names not in ([extension], [f"{view}.{extension}" for view in PAIR]):
        return f"its members must be of codec {codec!r}, got {brief(names)}"
    if written != content:
        position = _first_difference(written, content)
        return f"its tar headers, padding or .json are not as rendering writes them, {position}"
    if sample.meta.get("kind") != row["kind"]:
        return f"it is of kind {brief(sample.meta.get('kind'))}, the index says {row['kind']!r}"
    return sample


def _serialise(sample: ShardSample) -> bytes:
    """Return the tar members of a sample as rendering writes them."""
    file = io.BytesIO()
    tar = TarWriter(file)
    for extension, member in sample.members.items():
        tar.add(f"{sample.key}.{extension}", member)
    tar.add(f"{sample.key}.json", dump_json(sample.meta))
    return file.getvalue()


def _first_difference(one: bytes, other: bytes) -> str:
    if len(one) != len(other):
        return f"which takes {len(one)} bytes, not {len(other)}"
    return f"first at byte {next(i for i in range(len(one)) if one[i] != other[i])}"


def check_labels(
    sample: ShardSample,
    row: Mapping[str, Any],
    fresh: RenderedSample | None,
    num_classes: int | None,
) -> str | None:
    """Derive what the `.json` must say: from the plan row of `fresh`, or else from its own tree.

    Args:
        sample: With bytes that are checked.
        row: Its row of the index.
        fresh: The same plan row, rendered again, if there is a plan.
        num_classes: Of the dataset, if that is known.
    """
    meta = sample.meta
    try:
        expected = sample_meta(fresh.sample) if fresh is not None else _derive(meta)
        if num_classes is not None:
            sample.check_classes(num_classes)
    except BROKEN as err:
        return f"its labels do not follow from its tree: {_say(err)}"
    if dump_json(meta) != dump_json(expected):
        wrong = [name for name in {**expected, **meta} if not _same(meta, expected, name)]
        of = "those of its plan row" if fresh is not None else "those that its tree makes"
        return f"its labels are not {of} ({brief(wrong) if wrong else 'their order'})"
    if [source["video_id"] for source in meta["sources"]] != row["video_ids"]:
        return "its videos are not those of the index"
    if list(clips_of(meta["tree"])) != [name.rpartition(".")[0] for name in sample.members]:
        return f"its members {list(sample.members)} are not the clips of its tree"
    return None


def _derive(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the tree and the sources of a `.json` make of the rest of it."""
    sizes = _source_sizes(meta["sources"])
    track = evaluate_labels(meta["tree"], sizes).track
    return {  # in the order of `sample_meta`
        "kind": meta["kind"],
        "num_frames": track.num_frames,
        "class_ids": track.class_ids.tolist(),
        "weights": track.weights_CT.tolist(),
        "tree": meta["tree"],
        "sources": meta["sources"],
        **describe_sample(meta["tree"], sizes),
    }


def _source_sizes(sources: Sequence[Mapping[str, Any]]) -> list[LabelledSize]:
    sizes = []
    num_bytes = 0
    for source in sources:
        shown = source.get("augment") or source["view"]
        shape = source["num_frames"], shown["height"], shown["width"]
        if any(type(number) is not int or number < 1 for number in shape):
            raise ValueError(f"a source must have whole numbers >= 1 as its size, got {shape}")
        num_bytes += shape[0] * shape[1] * shape[2] * 3
        if num_bytes > LARGEST_SAMPLE:
            raise ValueError(f"the sources of a sample must fit in {LARGEST_SAMPLE} bytes")
        sizes.append(LabelledSize(constant_track(source["label_id"], shape[0]), *shape[1:]))
    return sizes


def check_pixels(
    sample: ShardSample, fresh: RenderedSample | None, codec: str, is_exact: bool
) -> str | None:
    """Decode a sample; compare it with a fresh rendering that went through the same codec.

    Args:
        sample: With labels that are checked.
        fresh: The same plan row, rendered again; None: only decode.
        codec: Of the shard.
        is_exact: The same package versions rendered it, so that the bytes must be the same.
    """
    try:
        frames = sample.frames()
        shape = _planned_shape(sample) if fresh is None else fresh.frames.shape[-4:]
    except BROKEN as err:
        return _say(err)
    if frames.shape[-4:] != shape:
        return f"its frames must be {shape}, got {frames.shape[-4:]}"
    if fresh is None:
        return None
    worst, is_same = 0.0, True
    for (name, clip), member in zip(fresh.clips.items(), sample.members.values(), strict=True):
        expected = ENCODERS[codec](clip)
        if expected == member:
            continue
        is_same = False
        decoded = decode_member(EXTENSIONS[codec], expected, len(clip))
        found = frames[PAIR.index(name)] if name else frames
        worst = max(worst, worst_tile(found, decoded))
    if worst > TOLERANCE[codec]:
        return f"its pixels differ from a fresh rendering by up to {worst:.1f} grey levels"
    if is_exact and not is_same:
        return (
            f"its bytes are not those of a fresh rendering by the same package versions (pixels "
            f"differ by up to {worst:.2f} grey levels)"
        )
    return None


def _planned_shape(sample: ShardSample) -> tuple[int, ...]:
    size = evaluate_labels(sample.meta["tree"], _source_sizes(sample.meta["sources"]))
    return (size.track.num_frames, size.height, size.width, 3)


def worst_tile(one_THWC: np.ndarray, other_THWC: np.ndarray) -> float:
    """Return the largest mean absolute difference on a tile of a frame, in grey levels.

    A mean over the whole clip would not see that one frame, or one place, is another.
    """
    worst = 0.0
    height, width = one_THWC.shape[1:3]
    rows, columns = np.arange(0, height, TILE), np.arange(0, width, TILE)
    areas = np.outer(np.diff(rows, append=height), np.diff(columns, append=width))
    for one, other in zip(one_THWC, other_THWC, strict=True):
        difference_HW = np.abs(one.astype(np.int16) - other).sum(-1, dtype=np.int64)
        sums = np.add.reduceat(np.add.reduceat(difference_HW, rows, 0), columns, 1)
        worst = max(worst, float((sums / areas).max()) / 3)
    return worst


def _same(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> bool:
    """Return whether both have the same value under `name`; `1`, `1.0` and `true` are three."""
    return name in one and name in other and dump_json(one[name]) == dump_json(other[name])


def _say(err: Exception) -> str:
    return f"{err!r}" if isinstance(err, LookupError) else str(err)
