"""Exports for TGM, super-events, PDAN and MS-TCT, read as their loaders are documented to."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from made_stores import even_times, write_store

from features import FeatureStore, export_store
from features.annotations import AnnotatedSegment, Annotations
from manifests import StoreError, UsageError

pytestmark = pytest.mark.slow

DENSE = ("tgm", "super-events", "pdan", "ms-tct")
CLASSES = ("jump", "run", "never")
# name in the export -> rows; "far" is longer than the rows that MS-TCT scores
NAMES = {"a": "a", "b c/d": "b%20c%2Fd", "far": "far", "bare": "bare"}
COUNTS = {"a": 10, "b c/d": 4, "far": 300, "bare": 3}
SEGMENTS = {
    # Rows of "a" are at 0, 1, ..., 9 s: strictly inside 2..5 are 3 and 4; inside 6.1..6.9 is none.
    "a": (AnnotatedSegment(2.0, 5.0, 1), AnnotatedSegment(6.1, 6.9, 0)),
    "b c/d": (AnnotatedSegment(0.0, 2.5, 0), AnnotatedSegment(0.5, 3.5, 1)),
    "far": (),
    "gone": (AnnotatedSegment(0.0, 1.0, 0),),
}
SUBSETS = {"a": "validation", "b c/d": "test", "far": "test", "gone": "test"}
ANNOTATIONS = Annotations(CLASSES, SEGMENTS, SUBSETS)


def make_store(path: Path, dim: int = 6, **changes: object) -> FeatureStore:
    """Write rows a second apart, each a second long, so that the last ends with its video."""
    rng = np.random.default_rng(5)
    rows = {
        video_id: (rng.normal(size=(num, dim)).astype(np.float16), even_times(num))
        for video_id, num in COUNTS.items()
    }
    return write_store(path, rows, **changes)


def load_dense(
    folder: Path, stream: str, split_file: str, subset: str, num_classes: int, first_class: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read rows `(T, 1, 1, C)` and labels: 1 iff start < i / (T / D) < end; skip missing files."""
    found = {}
    for video, entry in json.loads((folder / split_file).read_text()).items():
        path = folder / stream / f"{video}.npy"
        if entry["subset"] != subset or not path.exists():
            continue
        rows = np.load(path, allow_pickle=False)
        labels = np.zeros((len(rows), num_classes), np.float32)
        per_second = len(rows) / entry["duration"]
        for number, start, end in entry["actions"]:
            for row in range(len(rows)):
                if start < row / per_second < end:
                    labels[row, number - first_class] = 1
        found[video] = rows, labels
    return found


@pytest.mark.parametrize("format", DENSE)
def test_rows_and_labels_are_what_the_loader_builds(tmp_path, format):
    dim = 1024 if format in ("tgm", "super-events") else 6
    store = make_store(tmp_path / "s.zarr", dim)
    out = tmp_path / "out"
    report = export_store(store, out, format, ANNOTATIONS)
    assert (report.format, report.num_videos, report.num_rows) == (format, 4, 317)
    files = [("charades.json", 0)]
    if dim == 1024:
        files.append(("multithumos.json", 1))
    assert (out / "multithumos.json").exists() == (dim == 1024)
    for split_file, first_class in files:
        train = load_dense(out, "toy", split_file, "training", 3, first_class)
        test = load_dense(out, "toy", split_file, "testing", 3, first_class)
        assert (list(train), list(test)) == (["a"], ["b%20c%2Fd", "far"])
        for video_id in SUBSETS.keys() - {"gone"}:
            rows, labels = (train | test)[NAMES[video_id]]
            assert (rows.dtype, rows.shape) == (np.float32, (COUNTS[video_id], 1, 1, dim))
            assert rows.flags.c_contiguous
            np.testing.assert_array_equal(rows[:, 0, 0], store[video_id])
            assert not labels[:, 2].any()
        assert np.flatnonzero(train["a"][1][:, 1]).tolist() == [3, 4]
        assert not train["a"][1][:, 0].any()
        # Row 0 is at the start of the segment itself, so it is not inside.
        assert np.flatnonzero(test["b%20c%2Fd"][1][:, 0]).tolist() == [1, 2]
        assert np.flatnonzero(test["b%20c%2Fd"][1][:, 1]).tolist() == [1, 2, 3]


@pytest.mark.parametrize("format", DENSE)
def test_the_readme_states_the_time_of_a_row_and_what_does_not_fit(tmp_path, format):
    dim = 1024 if format in ("tgm", "super-events") else 6
    # Rows 1 s apart; a snippet's middle is half a second after the left edge that the tool takes.
    report = export_store(
        make_store(tmp_path / "s.zarr", dim), tmp_path / "out", format, ANNOTATIONS
    )
    text = (tmp_path / "out" / "README.md").read_text()
    assert "t = i * duration / S" in text
    stated = json.loads((tmp_path / "out" / "store.json").read_text())
    assert stated["largest_difference_seconds"] == pytest.approx(0.5)
    assert "by up to 0.500 s" in report.notes[0]
    assert "1 segments lie between two row times" in text
    assert ("1 videos here are longer" in text) == (format == "ms-tct")
    assert ("(1 annotated here)" in text) == (format == "ms-tct")
    assert ("classes count from 1" in text) == (dim == 1024)
    assert ("oversample" in text) == (format == "pdan")
    assert (tmp_path / "out" / "missing_files.txt").read_text() == "gone\n"


def test_settings_are_the_names_of_the_training_script(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    for format, width in (("pdan", "input_channnel"), ("ms-tct", "in_feat_dim")):
        export_store(store, tmp_path / format, format, ANNOTATIONS)
        settings = runpy.run_path(str(tmp_path / format / "settings.py"))
        assert (settings[width], settings["classes"]) == (6, 3)
        assert (settings["rgb_root"], settings["train_split"]) == ("./toy", "./charades.json")
        assert settings["test_split"] == settings["train_split"]
    wide = make_store(tmp_path / "w.zarr", 1024)
    export_store(wide, tmp_path / "tgm", "tgm", ANNOTATIONS)
    settings = runpy.run_path(str(tmp_path / "tgm" / "settings.py"))
    assert (settings["num_classes"], settings["classes"]) == (3, 3)


def test_streams_are_folders_of_their_own(tmp_path):
    streams = ({"name": "flow", "feature_dim": 4}, {"name": "rgb", "feature_dim": 2})
    store = make_store(tmp_path / "s.zarr", streams=streams)
    export_store(store, tmp_path / "out", "pdan", ANNOTATIONS)
    for stream, channels in (("flow", slice(0, 4)), ("rgb", slice(4, 6))):
        rows, _ = load_dense(tmp_path / "out", stream, "charades.json", "training", 3, 0)["a"]
        np.testing.assert_array_equal(rows[:, 0, 0], store["a"][:, channels])
    settings = runpy.run_path(str(tmp_path / "out" / "settings.py"))
    assert (settings["rgb_root"], settings["flow_root"]) == ("./rgb", "./flow")
    assert settings["input_channnel"] == 2


@pytest.mark.parametrize("format", ["tgm", "super-events"])
def test_other_widths_than_1024_are_refused_before_writing(tmp_path, format):
    store = make_store(tmp_path / "s.zarr")
    with pytest.raises(UsageError, match=r"rows of 1024 channels only, got 6 .*export\s+pdan"):
        export_store(store, tmp_path / "out", format, ANNOTATIONS)
    assert not (tmp_path / "out").exists()


def test_without_annotations_there_is_no_split_file(tmp_path):
    report = export_store(make_store(tmp_path / "s.zarr"), tmp_path / "out", "ms-tct")
    assert not (tmp_path / "out" / "charades.json").exists()
    assert any("--segments" in note for note in report.notes)
    assert np.load(tmp_path / "out" / "toy" / "far.npy").shape == (300, 1, 1, 6)


def test_the_same_store_gives_the_same_bytes(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    for name in ("one", "two"):
        export_store(store, tmp_path / name, "pdan", ANNOTATIONS)
    files = [p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file()]
    assert len(files) == 8 + 1  # 4 arrays, split, settings, missing, README, store; nothing else
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_rows_that_read_back_otherwise_are_an_error(tmp_path, monkeypatch):
    store = make_store(tmp_path / "s.zarr")
    save = np.save
    monkeypatch.setattr(np, "save", lambda file, rows, **_: save(file, rows[:-1]))
    with pytest.raises(StoreError, match="does not read back as it was written"):
        export_store(store, tmp_path / "out", "ms-tct", ANNOTATIONS)
    assert not (tmp_path / "out" / "store.json").exists()


MULTITHUMOS = Path(__file__).resolve().parents[2] / "shared/data/annotations/multithumos.json"


@pytest.mark.skipif(not MULTITHUMOS.exists(), reason="the official annotations are not here")
def test_the_official_multithumos_file_comes_back(tmp_path):
    official = dict(list(json.loads(MULTITHUMOS.read_text()).items())[::20])
    rows = {
        video: (np.ones((2, 1024), np.float16), even_times(2, entry["duration"] / 2))
        for video, entry in official.items()
    }
    for video, entry in official.items():
        rows[video][1][-1, 2] = entry["duration"]
    segments = {
        video: tuple(AnnotatedSegment(start, end, n - 1) for n, start, end in entry["actions"])
        for video, entry in official.items()
    }
    annotations = Annotations(
        tuple(map(str, range(1, 66))),
        segments,
        {video: {"training": "val"}.get(e["subset"], "test") for video, e in official.items()},
    )
    export_store(write_store(tmp_path / "s.zarr", rows), tmp_path / "out", "tgm", annotations)
    assert json.loads((tmp_path / "out" / "multithumos.json").read_text()) == official
