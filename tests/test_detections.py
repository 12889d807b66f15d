"""The official JSON of detections: round trip, proposals, and files that are none."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import Detection, read_detections, write_detections
from features.probing.detections import best_first
from manifests import UsageError

seconds = st.floats(0, 1e5)
found = st.lists(
    st.builds(Detection, seconds, seconds, st.floats(-5, 5), st.none() | st.text(max_size=5)),
    max_size=4,
)


@given(st.dictionaries(st.text(max_size=6), found, max_size=4))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, detections: Any) -> None:
    path = tmp_path_factory.mktemp("detections") / "found.json"
    write_detections(path, detections)
    assert read_detections(path) == {video: tuple(rows) for video, rows in detections.items()}
    assert list(read_detections(path)) == list(detections)


def test_is_the_official_file(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    write_detections(
        path,
        {"a": [Detection(1.5, 4, 0.25, "Jump"), Detection(0, 1, 0.5)], "b": []},
        external_data={"used": True},
    )
    assert json.loads(path.read_text()) == {
        "version": "VERSION 1.3",
        "results": {
            "a": [
                {"score": 0.25, "segment": [1.5, 4.0], "label": "Jump"},
                {"score": 0.5, "segment": [0.0, 1.0]},
            ],
            "b": [],
        },
        "external_data": {"used": True},
    }


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_not_written(tmp_path: Path, number: float) -> None:
    with pytest.raises(ValueError, match=r"finite numbers, got .* of 'a'"):
        write_detections(tmp_path / "found.json", {"a": [Detection(0, 1, number)]})
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "are not JSON"),
        ("[" * 100_000, "are not JSON"),
        ("[]", "must be an object with the key 'results'"),
        ('{"results": []}', "must be an object with the key 'results'"),
        ('{"results": {"a": {}}}', "the results of 'a' must be a list"),
        ('{"results": {"a": [3]}}', "number 0 of 'a' is not"),
        ('{"results": {"a": [{"segment": [0, 1]}]}}', "number 0 of 'a' is not"),
        ('{"results": {"a": [{"score": 1, "segment": [0]}]}}', "number 0 of 'a' is not"),
        ('{"results": {"a": [{"score": NaN, "segment": [0, 1]}]}}', "must have finite numbers"),
        ('{"results": {"a": [{"score": 1, "segment": [0, 1], "label": 3}]}}', "a label that is"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "found.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_detections(path)


def test_a_file_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_detections(tmp_path / "absent.json")


def test_segments_given_as_text_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text('{"results": {"a": [{"score": "0.5", "segment": ["1.5", "2"]}]}}')
    assert read_detections(path) == {"a": (Detection(1.5, 2.0, 0.5),)}


def test_best_first_keeps_the_order_of_equals() -> None:
    rows = [Detection(0, 1, 0.5, "a"), Detection(0, 1, 0.7, "b"), Detection(0, 1, 0.5, "c")]
    assert [row.label for row in best_first(rows)] == ["b", "a", "c"]
