"""Flip, delete, insert, repeat and cut bytes of every kind of file that the project reads."""

import hashlib
import json
from contextlib import ExitStack

import pytest
from hostile import edit_bytes, edits
from hypothesis import given
from material import Target
from sandbox import attempt, fuzzed, replaced

pytestmark = pytest.mark.slow

SLOW = {  # share of the examples; the others take a millisecond or two
    "model.json": 0.2,
    "model.safetensors": 0.2,
    "plan.parquet": 0.5,
    "plan.json": 0.5,
    "tar of h264": 0.5,
}
NAMES = (
    *("tar of filmstrip", "tar of h264", "tar of raw", "tar of pairs"),
    *("index of a shard", "done record", "dataset.json"),
    *("plan.parquet", "plan.json", "sources.parquet", "segments.parquet", "recipe"),
    *("model.json", "model.safetensors", "resume.pt", "weights.pt"),
    *("attributes of a store", "record of an array", "index of a store"),
    *("rows of a store", "times of a store"),
)


def test_every_kind_of_file_is_there(targets: dict[str, Target]) -> None:
    assert sorted(targets) == sorted(NAMES)


def signed(record: bytes, weights: bytes) -> bytes:
    """Return a `model.json` that says the digest of these weights."""
    said = json.loads(record) | {"weights_sha256": hashlib.sha256(weights).hexdigest()}
    return json.dumps(said).encode()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.timeout(1800)
def test_damaged_bytes(name: str, targets: dict[str, Target]) -> None:
    target = targets[name]
    content = target.path.read_bytes()

    @fuzzed(SLOW.get(name, 1.0))
    @given(edits)
    def damage(changes: list[tuple[str, int, int, bytes]]) -> None:
        damaged = edit_bytes(content, changes)
        if name.startswith("tar"):  # a tar of another length is refused before it is read
            damaged = damaged[: len(content)].ljust(len(content), b"\0")
        with replaced(target.path, damaged), ExitStack() as stack:
            if name == "model.safetensors":  # whoever changes weights signs them anew
                record = target.path.with_name("model.json")
                stack.enter_context(replaced(record, signed(record.read_bytes(), damaged)))
            attempt(f"bytes of {name}", target.read)

    damage()
