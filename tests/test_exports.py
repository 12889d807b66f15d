"""Exports: read back by a small reader of their own, and unable to leave their folder."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_store import SPEC, make_store, rows_of

from features import FORMATS, Annotations, FeatureStore, export_store
from features.exports import file_name
from manifests import StoreError, UsageError

COUNTS = {"plain": 70, "a/b c": 3, "../up": 2, ".hidden": 1, "ümläut%": 5}


def read_npy(path: Path) -> np.ndarray:
    """Read the NPY format from its bytes: magic, version, header, then the numbers."""
    content = path.read_bytes()
    assert content[:8] == b"\x93NUMPY\x01\x00"
    end = 10 + int.from_bytes(content[8:10], "little")
    header = content[10:end].decode("latin1")
    assert "'descr': '<f4'" in header
    assert "'fortran_order': False" in header
    shape = header.split("'shape': (")[1].split(")")[0]
    rows, columns = (int(number) for number in shape.split(","))
    return np.frombuffer(content[end:], "<f4").reshape(rows, columns)


def read_export(folder: Path) -> dict[str, tuple[np.ndarray, dict]]:
    """Read a folder as another tool would: by the ids that `store.json` lists."""
    listed = json.loads((folder / "store.json").read_text())
    return {
        video_id: (
            read_npy(folder / name),
            json.loads((folder / name.replace(".npy", ".json")).read_text()),
        )
        for video_id, name in listed["files"].items()
    }


def test_npy_round_trip(tmp_path):
    store = make_store(tmp_path / "s.zarr", COUNTS)
    report = export_store(store, tmp_path / "out")
    assert (report.format, report.num_videos, report.num_rows) == ("npy", 5, 81)
    assert report.num_bytes == sum(p.stat().st_size for p in (tmp_path / "out").iterdir())
    found = read_export(tmp_path / "out")
    assert list(found) == list(COUNTS)
    for video_id, (feats_SD, stated) in found.items():
        expected_SD, times_S3 = rows_of(video_id, COUNTS[video_id])
        np.testing.assert_array_equal(feats_SD, expected_SD.astype(np.float32))
        assert stated["video_id"] == video_id
        assert stated["num_snippets"] == len(feats_SD)
        for name, column in (("start", 0), ("centre", 1), ("end", 2)):
            assert stated[f"{name}_seconds"] == times_S3[:, column].tolist()
        # The formula of the README gives the same seconds on a video of constant rate.
        i = np.arange(len(feats_SD))
        by_formula = (i * stated["snippet_stride"] + stated["snippet_len"] / 2) / stated["fps"]
        np.testing.assert_allclose(by_formula, stated["centre_seconds"])


def test_no_file_leaves_the_folder(tmp_path):
    export_store(make_store(tmp_path / "s.zarr", COUNTS), tmp_path / "inner" / "out")
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["out"]
    names = {path.name for path in (tmp_path / "inner" / "out").iterdir()}
    assert {"plain.npy", "a%2Fb c.npy", "%2E.%2Fup.npy", "%2Ehidden.npy"} <= names
    assert len(names) == 2 * len(COUNTS) + 2


def test_a_video_called_store_keeps_its_times(tmp_path):
    export_store(make_store(tmp_path / "s.zarr", {"store": 3, "b": 2}), tmp_path / "out")
    feats_SD, stated = read_export(tmp_path / "out")["store"]
    assert (stated["video_id"], stated["num_snippets"]) == ("store", len(feats_SD))


def test_the_readme_states_the_mapping(tmp_path):
    store = make_store(tmp_path / "s.zarr", COUNTS)
    export_store(store, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "centre = (i * 4 + 4) / fps" in text
    assert "at the video's own frame rate" in text
    other = make_store(tmp_path / "t.zarr", COUNTS, replace(SPEC, fps="15/2", tail="drop"))
    export_store(other, tmp_path / "out2")
    text = (tmp_path / "out2" / "README.md").read_text()
    assert "15/2 frames per second" in text
    assert "after the last full snippet have no row" in text
    stated = json.loads((tmp_path / "out2" / "plain.json").read_text())
    assert (stated["fps"], stated["native_fps"], stated["tail"]) == (
        float(Fraction("7.5")),
        10,
        "drop",
    )


@pytest.mark.parametrize(
    ("snippet_len", "start", "centre"),
    [
        (8, "(i * 4 - 4) / fps", "(i * 4 + 0) / fps"),
        (5, "(i * 4 - 2) / fps", "(i * 4 + 0.5) / fps"),
    ],
)
def test_the_readme_knows_centred_windows(tmp_path, snippet_len, start, centre):
    spec = replace(SPEC, snippet_len=snippet_len, alignment="centre")
    export_store(make_store(tmp_path / "s.zarr", COUNTS, spec), tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert f"start  = {start}\n" in text
    assert f"centre = {centre}\n" in text
    assert "windows are centre-aligned" in text
    assert f"offset of the first centre {snippet_len % 2 / 2:g} frames" in text


def test_npy_says_that_it_has_no_use_for_segments(tmp_path):
    store = make_store(tmp_path / "s.zarr", {"v": 2})
    annotations = Annotations(("run",), {"v": ()}, {"v": None})
    report = export_store(store, tmp_path / "out", "npy", annotations)
    assert report.notes == ("npy has no annotation file: nothing is made of the segments",)


def test_the_readme_of_predictions_speaks_of_frames(tmp_path):
    frames = replace(
        SPEC, snippet_len=1, snippet_stride=1, prediction={"window_len": 16, "window_stride": 8}
    )
    export_store(make_store(tmp_path / "s.zarr", COUNTS, frames), tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Row `i` is sampled frame `i`" in text
    assert "computed from" not in text


def test_two_streams_are_exported_side_by_side(tmp_path):
    first = make_store(tmp_path / "a.zarr", {"v": 9})
    both = first.concat(make_store(tmp_path / "b.zarr", {"v": 9}, replace(SPEC, feature_dim=3)))
    export_store(both, tmp_path / "out")
    assert read_export(tmp_path / "out")["v"][0].shape == (9, 8)
    stated = json.loads((tmp_path / "out" / "store.json").read_text())
    assert len(stated["feature_specs"]) == 2
    assert stated["channel_ranges"] == {"toy": [0, 5], "toy-2": [5, 8]}
    assert "Channels: 0-4 toy, 5-7 toy-2." in (tmp_path / "out" / "README.md").read_text()


def test_wrong_use_is_refused(tmp_path):
    store = make_store(tmp_path / "s.zarr", {"v": 2})
    with pytest.raises(UsageError, match=r"format must be one of npy, .*got 'hdf6'"):
        export_store(store, tmp_path / "out", "hdf6")
    assert not (tmp_path / "out").exists()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="must be new or empty"):
        export_store(store, tmp_path / "used")
    for video_id in ("", "x" * 201, "ü" * 60):
        with pytest.raises(UsageError, match="file name of 1 to 200"):
            file_name(video_id)
    with pytest.raises(UsageError, match="--resize is an option of actionformer, opentad, not of"):
        export_store(store, tmp_path / "out", "npy", resize=100)
    with pytest.raises(UsageError, match="--prefix must be letters"):
        export_store(store, tmp_path / "out", "actionformer", prefix="../")
    with pytest.raises(UsageError, match="at least 1 row, got 0"):
        export_store(store, tmp_path / "out", "opentad", resize=0)
    assert not (tmp_path / "out").exists()
    assert next(iter(FORMATS)) == "npy"


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=16))
def test_file_names_give_the_id_back_and_stay_inside(video_id):
    name = file_name(video_id)
    assert unquote(name) == video_id
    assert "/" not in name
    assert "\\" not in name
    assert not name.startswith(".")
    assert name.isascii()


def test_damage_is_not_exported(tmp_path):
    store = make_store(tmp_path / "s.zarr", {"v": 2})
    shard = store.path / "features" / "c" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[3] ^= 1
    shard.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        export_store(FeatureStore.open(store.path), tmp_path / "out")
    assert not (tmp_path / "out" / "store.json").exists()
