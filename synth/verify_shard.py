"""Check one shard: its files, its record and index against each other, every byte of its tar.

The tar is read once, front to back, while its rows are rendered again: memory is that of a few
samples and of the views that a rendering holds.
"""

import hashlib
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, repeat
from reprlib import repr as brief
from typing import Any, BinaryIO

import pyarrow as pa

from manifests import AnyPath, ShardError, SourceVideo, read_many

from .codecs import ENCODERS
from .planned import Rejected
from .render import RenderedSample, render_samples, tool_versions
from .shards import dump_json, parse_index, parse_record, shard_path
from .verify_sample import check_bytes, check_labels, check_pixels

MOST_NAMED = 10  # samples of a shard whose problems are told one by one
READ_BYTES = 2**20
ENDED = ("decoding was stopped", "the decoder crashed")  # reasons that end the process
AGAIN = "delete it and run `synth render` again"
IndexRow = Mapping[str, Any]
Record = Mapping[str, Any]


@dataclass(frozen=True)
class ShardCheck:
    """All that a worker needs to check one shard: paths and rows, no pixels.

    Attributes:
        shard: Its number.
        out: The output folder.
        plan_digest, codec: What its done record must say; None: not known.
        rows: Its plan rows; None: not known.
        videos: Their sources, if the rows shall be rendered again.
        is_deep: Decode every sample.
        sha256: Of the tar in dataset.json; None: not known.
        num_classes: Of the dataset; None: not known.
    """

    shard: int
    out: str
    plan_digest: str | None
    codec: str | None
    rows: pa.Table | None = None
    videos: Mapping[str, SourceVideo] | None = None
    is_deep: bool = False
    sha256: str | None = None
    num_classes: int | None = None


@dataclass
class ShardFindings:
    """What was found in a shard.

    Attributes:
        shard: Its number.
        planned: Rows of its index.
        kinds: Rendered samples by kind, from its index.
        is_counted: Whether its index could be read.
        num_untried: Rejected samples that were not tried again.
        is_exact: Whether the package versions of its record are those of this machine.
        problems: One sentence each.
    """

    shard: int
    planned: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    num_untried: int = 0
    is_counted: bool = False
    is_exact: bool = True
    problems: list[str] = field(default_factory=list)


def check_shard(check: ShardCheck) -> ShardFindings:
    """Check a shard against its plan rows, or, if there is no plan, against itself."""
    found = ShardFindings(check.shard)
    found.problems.extend(_check_files(check, found))
    return found


def _check_files(check: ShardCheck, found: ShardFindings) -> Iterator[str]:
    """Read record and index, then the tar if they fit together."""
    path = shard_path(check.out, check.shard)
    size = path.stat().st_size if path.is_file() else None
    record_file, index_file = read_many([path.with_suffix(".json"), path.with_suffix(".parquet")])
    if size is None or record_file is None or index_file is None:
        there = {"done record": record_file, "index": index_file, "tar": size}
        missing = " and ".join(name for name, content in there.items() if content is None)
        yield f"its {missing} is missing: run `synth render` again"
        return
    try:
        record = parse_record(record_file, path.with_suffix(".json"))
        rows = _read_index(index_file, path)
    except ShardError as err:
        yield str(err)
        return
    found.planned, found.is_counted = len(rows), True
    found.kinds.update(row["kind"] for row in rows if row["status"] == "rendered")
    found.num_untried = sum(map(_is_ended, rows))
    found.is_exact = record.get("versions") == tool_versions()
    yield from _check_record(record, rows, hashlib.sha256(index_file).hexdigest(), check)
    if record.get("bytes") != size:
        says = brief(record.get("bytes"))
        yield f"its tar has {size} bytes, but its done record says {says}: {AGAIN}"
        return
    wrong = list(_check_index(rows, check))
    yield from _shorten(wrong)
    if not wrong and _text(record, "codec") in ENCODERS:
        yield from _check_tar(path, rows, record, check, found.is_exact)


def _read_index(content: bytes, path: AnyPath) -> Sequence[IndexRow]:
    """Read the index; every row has a key, a kind, and a place or a reason."""
    rows = parse_index(content, path)
    for number, row in enumerate(rows):
        given = (row["reason"] is None, row["offset"] is not None, row["bytes"] is not None)
        is_whole = {"rendered": all(given), "rejected": not any(given)}.get(row["status"], False)
        if not is_whole or None in (row["key"], row["kind"], row["video_ids"]):
            raise ShardError(f"row {number} of its index is no index row: {brief(row)}")
    return rows


def _text(record: Record, name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else "a text"


def _check_record(
    record: Record, rows: Sequence[IndexRow], index_sha256: str, check: ShardCheck
) -> Iterator[str]:
    """Compare a done record with the index and with what it must be the record of."""
    rejected = [row for row in rows if row["status"] == "rejected"]
    reasons = Counter(row["reason"].partition(": ")[0] for row in rejected)
    kinds = Counter(row["kind"] for row in rows if row["status"] == "rendered")
    expected = {
        "shard": check.shard,
        "plan_digest": check.plan_digest or _text(record, "plan_digest"),
        "codec": check.codec or _text(record, "codec"),
        "index_sha256": index_sha256,
        "planned": len(rows),
        "rendered": len(rows) - len(rejected),
        "rejected": len(rejected),
        "reasons": dict(sorted(reasons.items())),
        "kinds": dict(sorted(kinds.items())),
    }
    for name, value in expected.items():
        if not same(record.get(name), value):
            says = brief(record.get(name))
            yield f"its done record says {name} {says}, but it must be {brief(value)}: {AGAIN}"
    digests = record.get("rejected_sources")
    videos = sorted({video_id for row in rejected for video_id in row["video_ids"]})
    if not isinstance(digests, dict) or list(digests) != videos:
        yield f"its done record must have digests of the sources of its rejected samples: {AGAIN}"


def same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are the same; `1`, `1.0` and `true` are three."""
    return one == other and dump_json(one) == dump_json(other)


def _check_index(rows: Sequence[IndexRow], check: ShardCheck) -> Iterator[str]:
    """Compare the index with the plan rows."""
    keys = [row["key"] for row in rows]
    if check.rows is None:
        if len(set(keys)) != len(keys):
            yield "its index names a sample twice"
        return
    planned = check.rows["sample_key"].to_pylist()
    for number, key in enumerate(planned):
        if number >= len(keys) or keys[number] != key:
            found = repr(keys[number]) if number < len(keys) else "nothing"
            yield f"sample {key}: is planned at row {number}, where its index has {found}"
            return
    if len(keys) > len(planned):
        yield f"sample {keys[len(planned)]}: is in its index, but not planned"
        return
    for row, plan_row in zip(rows, check.rows.to_pylist(), strict=True):
        video_ids = [source["video_id"] for source in plan_row["sources"]]
        if (row["kind"], row["video_ids"]) != (plan_row["kind"], video_ids):
            yield f"sample {row['key']}: its kind or its videos in the index are not the planned"


def _check_tar(
    path: AnyPath,
    rows: Sequence[IndexRow],
    record: Record,
    check: ShardCheck,
    is_exact: bool,
) -> Iterator[str]:
    """Read a tar to its end: its samples, and its digest in record and dataset.json."""
    check = replace(check, codec=record["codec"])
    with path.open("rb") as file:
        tar = _Tar(file, record["bytes"])
        yield from _shorten(_check_samples(tar, rows, check, is_exact))
        sha256 = tar.close()
    says = {"its done record": record.get("sha256"), "dataset.json": check.sha256 or sha256}
    others = [where for where, digest in says.items() if digest != sha256]
    if others:
        yield f"the sha256 of its tar is not that in {' and '.join(others)}: {AGAIN}"


class _Tar:
    """Read a tar front to back, hashing the bytes as they pass."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = size
        self.offset = 0

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        content = self._file.read(size)
        self._digest.update(content)
        self.offset += len(content)
        return content

    def rest(self) -> Iterator[bytes]:
        """Read what is left, in pieces."""
        while content := self.read(READ_BYTES):
            yield content

    def close(self) -> str:
        """Read what is left and return the sha256 of the whole file."""
        for _ in self.rest():
            pass
        return self._digest.hexdigest()


def _check_samples(
    tar: _Tar, rows: Sequence[IndexRow], check: ShardCheck, is_exact: bool
) -> Iterator[str]:
    """Check every row of the index against the tar, and that nothing else is in there."""
    for row, fresh in zip(rows, _render_again(rows, check), strict=True):
        if row["status"] == "rejected":
            problem = _check_rejection(row, fresh, is_exact)
        elif row["offset"] != tar.offset or not 0 < row["bytes"] <= tar.size - tar.offset:
            yield (
                f"sample {row['key']}: its index places it at byte {row['offset']}, {row['bytes']} "
                f"bytes, but it must begin at byte {tar.offset} and end within {tar.size}"
            )
            return
        else:
            problem = _check_sample(tar.read(row["bytes"]), row, fresh, check, is_exact)
        if problem is not None:
            yield f"sample {row['key']}: {problem}"
    end = tar.offset
    if any(any(content) for content in tar.rest()) or tar.offset != _tar_size(end):
        yield (
            f"its tar must end after the last sample, at byte {end}, with zeros up to byte "
            f"{_tar_size(end)}, but more or other bytes follow"
        )


def _tar_size(end: int) -> int:
    """Return the size of a tar whose last member ends at byte `end`."""
    return -(-(end + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def _render_again(
    rows: Sequence[IndexRow], check: ShardCheck
) -> Iterable[RenderedSample | Rejected | None]:
    """Render the plan rows; None for what is not asked for, or would end this process.

    A decoder that hung or crashed may have been that of any video of its samples.
    """
    if check.rows is None or check.videos is None:
        yield from repeat(None, len(rows))
        return
    ended = {video for row in rows if _is_ended(row) for video in row["video_ids"]}
    may_try = [row["status"] == "rendered" or ended.isdisjoint(row["video_ids"]) for row in rows]
    planned = compress(check.rows.to_pylist(), may_try)
    results = render_samples(list(planned), check.videos, str(check.codec))
    yield from (next(results) if is_tried else None for is_tried in may_try)


def _is_ended(row: IndexRow) -> bool:
    return (row["reason"] or "").startswith(ENDED)


def _check_rejection(
    row: IndexRow, fresh: RenderedSample | Rejected | None, is_exact: bool
) -> str | None:
    if isinstance(fresh, RenderedSample):
        return (
            f"it is rejected ({row['reason']}), but its sources render now: try `synth render "
            f"--retry-rejected`"
        )
    if fresh is None or fresh.reason == row["reason"]:
        return None
    heads = {reason.partition(": ")[0] for reason in (fresh.reason, row["reason"])}
    if len(heads) == 1 and not is_exact:
        return None
    return f"it is rejected because {row['reason']!r}, but now because {fresh.reason!r}"


def _check_sample(
    content: bytes,
    row: IndexRow,
    fresh: RenderedSample | Rejected | None,
    check: ShardCheck,
    is_exact: bool,
) -> str | None:
    codec = str(check.codec)
    sample = check_bytes(content, row, codec)
    if isinstance(sample, str):
        return sample
    if not check.is_deep:
        return None
    if isinstance(fresh, Rejected):
        return f"its sources do not render now: {fresh.reason}"
    wrong = check_labels(sample, row, fresh, check.num_classes)
    return wrong or check_pixels(sample, fresh, codec, is_exact)


def _shorten(problems: Iterable[str]) -> Iterator[str]:
    """Tell the first few, and how many more there are."""
    more = 0
    for number, problem in enumerate(problems):
        if number < MOST_NAMED:
            yield problem
        else:
            more += 1
    if more:
        yield f"{more} more problems of its samples"
