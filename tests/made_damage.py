"""Damage to finished shard folders, and the adversary who makes digests and counts right again."""

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from synth.codecs import DECODERS, ENCODERS
from synth.shards import TarWriter, dump_json, write_index

SUFFIXES = ("tar", "parquet", "json")
HEADER_FIELDS = {  # of ustar: first byte and length
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "checksum": (148, 8),
    "type": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
    "owner": (265, 64),
    "device": (329, 16),
    "prefix": (345, 155),
}


def shard_path(out: Path, shard: int, suffix: str = "tar") -> Path:
    """Return a file of a shard in a local folder."""
    return out / f"shard-{shard:06d}.{suffix}"


@dataclass
class OpenShard:
    """The content of a shard, to be changed: members by sample, index rows, done record."""

    samples: dict[str, list[tuple[str, bytes]]]
    rows: list[dict[str, Any]]
    record: dict[str, Any]

    def row(self, key: str) -> dict[str, Any]:
        return next(row for row in self.rows if row["key"] == key)

    def meta(self, key: str) -> dict[str, Any]:
        return json.loads(dict(self.samples[key])[f"{key}.json"])

    def set_meta(self, key: str, meta: dict[str, Any]) -> None:
        self.samples[key][-1] = (f"{key}.json", dump_json(meta))


@contextmanager
def opened(out: Path, shard: int) -> Iterator[OpenShard]:
    """Yield a shard's content, then write it as rendering would, with right places in the index."""
    path = shard_path(out, shard)
    samples: dict[str, list[tuple[str, bytes]]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            content = member.name, file.read()
            samples.setdefault(member.name.partition(".")[0], []).append(content)
    rows = pq.read_table(shard_path(out, shard, "parquet")).to_pylist()
    held = OpenShard(samples, rows, record_of(out, shard))
    yield held
    with open(path, "wb") as to:
        writer = TarWriter(to)
        for row in held.rows:
            row["offset"] = row["bytes"] = None
            if row["status"] == "rendered":
                row["offset"] = writer.offset
                for content in held.samples[row["key"]]:
                    writer.add(*content)
                row["bytes"] = writer.offset - row["offset"]
        writer.close()
    write_index(shard_path(out, shard, "parquet"), held.rows)
    set_record(out, shard, held.record)


def record_of(out: Path, shard: int) -> dict[str, Any]:
    return json.loads(shard_path(out, shard, "json").read_bytes())


def set_record(out: Path, shard: int, record: dict[str, Any]) -> None:
    shard_path(out, shard, "json").write_bytes(dump_json(record) + b"\n")


def dataset_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "dataset.json").read_bytes())


def change_dataset(out: Path, **changes: Any) -> None:
    (out / "dataset.json").write_bytes(dump_json(dataset_of(out) | changes) + b"\n")


def index_of(out: Path, shard: int) -> list[dict[str, Any]]:
    return pq.read_table(shard_path(out, shard, "parquet")).to_pylist()


def set_index(out: Path, shard: int, rows: list[dict[str, Any]]) -> None:
    write_index(shard_path(out, shard, "parquet"), rows)


def numbers(out: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("shard-")) for path in out.glob("shard-*.json"))


def repair(out: Path) -> None:
    """Make every record and dataset.json agree with the tars and indices that are there."""
    kinds: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    digests = []
    for shard in numbers(out):
        content = {name: shard_path(out, shard, name).read_bytes() for name in ("tar", "parquet")}
        rows = index_of(out, shard)
        rejected = [row for row in rows if row["status"] == "rejected"]
        of_shard = Counter(row["kind"] for row in rows if row["status"] == "rendered")
        kinds += of_shard
        record = record_of(out, shard)
        digests.append(hashlib.sha256(content["tar"]).hexdigest())
        ids = sorted({video_id for row in rejected for video_id in row["video_ids"]})
        reasons = Counter(row["reason"].partition(": ")[0] for row in rejected)
        planned = {
            "planned": len(rows),
            "rendered": len(rows) - len(rejected),
            "rejected": len(rejected),
        }
        counts.update(planned)
        fields = {
            "shard": shard,
            **planned,
            "reasons": dict(sorted(reasons.items())),
            "rejected_sources": {name: record["rejected_sources"].get(name) for name in ids},
            "kinds": dict(sorted(of_shard.items())),
            "bytes": len(content["tar"]),
            "sha256": digests[-1],
            "index_sha256": hashlib.sha256(content["parquet"]).hexdigest(),
        }
        set_record(out, shard, record | fields)
    change_dataset(
        out,
        num_samples=counts["rendered"],
        counts=dict(counts),
        kinds=dict(sorted(kinds.items())),
        shards=numbers(out),
        shard_digests=digests,
    )


def rendered_keys(out: Path, shard: int) -> list[str]:
    return [row["key"] for row in index_of(out, shard) if row["status"] == "rendered"]


def flip(path: Path, position: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def fix_checksums(path: Path) -> None:
    """Write right checksums into the headers of a tar, where headers stand."""
    content = bytearray(path.read_bytes())
    with tarfile.open(fileobj=io.BytesIO(bytes(content)), ignore_zeros=False) as tar:
        offsets = [member.offset for member in tar]
    for offset in offsets:
        header = content[offset : offset + 512]
        header[148:156] = b" " * 8
        content[offset + 148 : offset + 156] = b"%06o\0 " % sum(header)
    path.write_bytes(content)


def regions(path: Path) -> dict[str, range]:
    """Return the bytes of a tar by what they are: fields of headers, contents, padding, the end."""
    found: dict[str, range] = {}
    with tarfile.open(path) as tar:
        members = list(tar)
    member = members[len(members) // 2 // 2 * 2]  # the pixels of a sample; its .json follows
    for name, (start, length) in HEADER_FIELDS.items():
        found[f"header {name}"] = range(member.offset + start, member.offset + start + length)
    for member, name in zip(members[-2:], ("pixels", "json"), strict=True):
        end = member.offset_data + member.size
        found[name] = range(member.offset_data, end)
        if padding := -member.size % 512:
            found[f"padding of {name}"] = range(end, end + padding)
    end = members[-1].offset_data + -(-members[-1].size // 512) * 512
    found["end"] = range(end, os.path.getsize(path))
    return found


# --- damages: each changes a folder, and returns what the report must name ---


def edit_meta(name: str, edit: Callable[[Any], Any]) -> Callable[[Path], str]:
    def damage(out: Path) -> str:
        for shard in numbers(out):
            for key in rendered_keys(out, shard):
                with opened(out, shard) as held:
                    meta = held.meta(key)
                    edited = edit(meta[name]) if name in meta else None
                    if edited is not None:
                        held.set_meta(key, meta | {name: edited})
                        return f"shard {shard}: sample {key}: "
        raise AssertionError(f"no sample has {name} to edit")

    return damage


def edit_tree(tree: dict[str, Any]) -> dict[str, Any] | None:
    return None if "n1" not in tree else tree | {"r": tree["r"] + 1, "n1": tree["n1"] - 1}


def edit_start(sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [sources[0] | {"start_frame": sources[0]["start_frame"] + 1}, *sources[1:]]


def edit_kind(out: Path) -> str:
    with opened(out, 1) as held:
        key = held.rows[0]["key"]
        kind = "freeze" if held.rows[0]["kind"] == "clip" else "clip"
        held.rows[0]["kind"] = kind
        held.set_meta(key, held.meta(key) | {"kind": kind})
    return f"shard 1: sample {key}: "


def space_json(out: Path) -> str:
    with opened(out, 1) as held:
        key = held.rows[1]["key"]
        held.samples[key][-1] = (f"{key}.json", json.dumps(held.meta(key)).encode())
    return f"shard 1: sample {key}: "


def spoil_tile(out: Path) -> str:
    """Turn 16 x 16 pixels of one frame to their negative; all else is as it was."""
    with opened(out, 0) as held:
        key = held.rows[1]["key"]
        name, member = held.samples[key][0]
        extension = name.rpartition(".")[2]
        frames = DECODERS[extension](member, held.meta(key)["num_frames"], None)
        frames = frames.copy()
        frames[-1, :16, :16] ^= 255
        held.samples[key][0] = (name, ENCODERS[held.record["codec"]](frames))
    return f"shard 0: sample {key}: "


def spoil_tile_by_others(out: Path) -> str:
    """Do that, and say that other package versions made it, so that bytes may differ."""
    named = spoil_tile(out)
    record = record_of(out, 0)
    set_record(out, 0, record | {"versions": record["versions"] | {"av": "0"}})
    return named


def swap_pixels(out: Path) -> str:
    with opened(out, 2) as held:
        (one, other) = (row["key"] for row in held.rows)
        (name, pixels), (another, others) = held.samples[one][0], held.samples[other][0]
        held.samples[one][0], held.samples[other][0] = (name, others), (another, pixels)
    return f"shard 2: sample {one}: "


def swap_files(*suffixes: str) -> Callable[[Path], str]:
    def damage(out: Path) -> str:
        for suffix in suffixes:
            one, other = shard_path(out, 0, suffix), shard_path(out, 2, suffix)
            content = one.read_bytes()
            one.write_bytes(other.read_bytes())
            other.write_bytes(content)
        return "shard 0: "

    return damage


def truncate(out: Path) -> str:
    os.truncate(shard_path(out, 1), shard_path(out, 1).stat().st_size - 512)
    return "shard 1: "


def remove(*suffixes: str) -> Callable[[Path], str]:
    def damage(out: Path) -> str:
        for suffix in suffixes:
            shard_path(out, 1, suffix).unlink()
        return "shard 1: its "

    return damage


def add_shard(out: Path) -> str:
    for suffix in SUFFIXES:
        shard_path(out, 7, suffix).write_bytes(shard_path(out, 1, suffix).read_bytes())
    return "shard 7 is not planned"


def add_tar(out: Path) -> str:
    shard_path(out, 7).write_bytes(b"")
    return "shard 7 is not planned: delete shard-000007.tar"


def add_file(out: Path) -> str:
    (out / "shard-1.tar").write_bytes(b"")
    return "shard-1.tar is no file of a shard"


def reject(out: Path) -> str:
    """Say of a good sample that its source could not be read."""
    with opened(out, 1) as held:
        row = held.rows[0]
        row["status"], row["reason"] = "rejected", "cannot be opened: no such file"
    return f"shard 1: sample {row['key']}: it is rejected"


def accept(out: Path) -> str:
    """Put another sample's pixels where the plan's sample was rejected."""
    for shard in numbers(out):
        for number, row in enumerate(index_of(out, shard)):
            if row["status"] == "rejected":
                with opened(out, shard) as held:
                    good = next(row["key"] for row in held.rows if row["status"] == "rendered")
                    members = [
                        (name.replace(good, row["key"]), part) for name, part in held.samples[good]
                    ]
                    held.samples[row["key"]] = members
                    held.rows[number] |= {"status": "rendered", "reason": None}
                    held.rows[number]["kind"] = held.meta(row["key"])["kind"]
                    held.rows[number]["video_ids"] = held.row(good)["video_ids"]
                return f"shard {shard}: sample {row['key']}: "
    raise AssertionError("no sample is rejected")


def another_reason(out: Path) -> str:
    for shard in numbers(out):
        rows = index_of(out, shard)
        for row in rows:
            if row["status"] == "rejected":
                row["reason"] = "the cat sat on it"
                set_index(out, shard, rows)
                return f"shard {shard}: sample {row['key']}: it is rejected because"
    raise AssertionError("no sample is rejected")


def json_first(out: Path) -> str:
    with opened(out, 0) as held:
        key = held.rows[0]["key"]
        held.samples[key].reverse()
    return f"shard 0: sample {key}: "


def reorder_samples(out: Path) -> str:
    """Swap two samples in the tar; the index, still in the order of the plan, finds both."""
    with opened(out, 0) as held:
        held.rows.reverse()
        key = held.rows[-1]["key"]
    set_index(out, 0, index_of(out, 0)[::-1])
    return f"shard 0: sample {key}: "


def member(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    TarWriter(file).add(name, content)
    return file.getvalue()


def hide(where: str) -> Callable[[Path], str]:
    """Hide a member in the tar; the index still leads to every sample."""

    def damage(out: Path) -> str:
        path = shard_path(out, 2)
        content = path.read_bytes()
        rows = index_of(out, 2)
        second, last = rows[1]["offset"], rows[-1]["offset"] + rows[-1]["bytes"]
        hidden = member("hidden.json", b"{}")
        if where == "between":
            content = content[:second] + hidden + content[second:]
            rows[1]["offset"] += len(hidden)
        elif where == "in a sample":
            content = content[:second] + hidden + content[second:]
            rows[0]["bytes"] += len(hidden)
            rows[1]["offset"] += len(hidden)
        elif where == "last":
            content = content[:last] + hidden + content[last + len(hidden) :]
        else:
            content += hidden
        path.write_bytes(content)
        set_index(out, 2, rows)
        key = rows[0 if where == "in a sample" else 1]["key"]
        return f"shard 2: sample {key}: " if where in ("between", "in a sample") else "shard 2: its"

    return damage


def overlap(out: Path) -> str:
    rows = index_of(out, 0)
    rows[1]["offset"], rows[1]["bytes"] = rows[0]["offset"], rows[0]["bytes"]
    set_index(out, 0, rows)
    return f"shard 0: sample {rows[1]['key']}: "


def edit_index(**changes: Any) -> Callable[[Path], str]:
    def damage(out: Path) -> str:
        rows = index_of(out, 1)
        rows[0] |= changes
        set_index(out, 1, rows)
        return "shard 1: "

    return damage


def edit_dataset(name: str, edit: Callable[[Any], Any]) -> Callable[[Path], str]:
    def damage(out: Path) -> str:
        change_dataset(out, **{name: edit(dataset_of(out)[name])})
        return "dataset.json|shard"

    return damage


def edit_record(name: str, value: Any) -> Callable[[Path], str]:
    def damage(out: Path) -> str:
        set_record(out, 1, record_of(out, 1) | {name: value})
        return f"shard 1: its done record (says {name}|must have)"

    return damage
