"""Exports for LGI and 2D-TAN, read as their loaders are documented to."""

import csv
import json
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from made_stores import even_times, write_store

from features import FeatureStore, export_store
from features.annotations import AnnotatedSegment, Annotations
from manifests import UsageError

pytestmark = pytest.mark.slow

CLASSES = ("zoom_in", "BaseballPitch", "c008 Opening a door/window")
SENTENCES = ("zoom in", "Baseball Pitch", "Opening a door window")
COUNTS = {"a": 10, "b c/d": 4, "one": 1, "far": 400}
SEGMENTS = {
    "a": (AnnotatedSegment(2.0, 5.0, 1), AnnotatedSegment(8.0, 12.0, 0)),
    "b c/d": (AnnotatedSegment(0.125, 3.5, 2), AnnotatedSegment(4.5, 5.0, 2)),
    "far": (AnnotatedSegment(1 / 3, 2 / 3, 0),),
    "gone": (AnnotatedSegment(0.0, 1.0, 0),),
}
SUBSETS = {"a": "training", "b c/d": "validation", "far": "testing", "gone": "validation"}
ANNOTATIONS = Annotations(CLASSES, SEGMENTS, SUBSETS)


def make_store(path: Path, counts: dict[str, int] = COUNTS, dim: int = 6) -> FeatureStore:
    """Write rows a second apart, each a second long, so that the last ends with its video."""
    rng = np.random.default_rng(6)
    rows = {
        video_id: (rng.normal(size=(num, dim)).astype(np.float16), even_times(num))
        for video_id, num in counts.items()
    }
    return write_store(path, rows)


def load_queries(folder: Path, split: str) -> list[tuple[str, float, float, str, float]]:
    """Read video, start, end, sentence and duration of every line of a split."""
    with open(folder / f"Charades_v1_{split}.csv", newline="") as file:
        lengths = {row["id"]: float(row["length"]) for row in csv.DictReader(file)}
    found = []
    with open(folder / f"charades_sta_{split}.txt") as file:
        for line in file:
            place, sentence = line.split("##")
            video, start, end = place.split(" ")
            found.append((video, float(start), float(end), sentence, lengths[video]))
    return found


def lgi_rows(folder: Path, video: str, num_segments: int = 128) -> np.ndarray:
    """Read a video as LGI does in testing: squeezed, thinned to 128 rows, zeros behind."""
    feats = np.load(folder / "features" / "i3d_finetuned" / f"{video}.npy").squeeze()
    stride = max(1.0, len(feats) / num_segments)
    taken = np.round(np.arange(0, len(feats) - 0.5, stride)).astype(int)[:num_segments]
    out = np.zeros((num_segments, feats.shape[1]))
    out[: len(taken)] = feats[taken]
    return out


def tan_rows(folder: Path, video: str, num_rows: int = 256) -> np.ndarray:
    """Read a video as 2D-TAN does: unit rows, averaged between rounded bounds to 256."""
    with h5py.File(folder / "vgg_rgb_features.hdf5", "r") as file:
        feats = file[video][:].astype(np.float32)
    feats /= np.maximum(np.linalg.norm(feats, axis=1, keepdims=True), 1e-12)
    bounds = np.round(np.arange(num_rows + 1) / num_rows * len(feats)).astype(int)
    bounds = np.minimum(bounds, len(feats) - 1)
    return np.stack(
        [
            feats[first:end].mean(axis=0) if first < end else feats[first]
            for first, end in pairwise(bounds)
        ]
    )


def yaml_leaves(path: Path) -> dict[str, str]:
    """Read `a: {b: c}` written over lines as `{"a.b": "c"}`."""
    found, above = {}, []
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        name, value = line.strip().split(":", 1)
        above = [*above[:depth], name]
        if value:
            found[".".join(above)] = value.strip()
    return found


@pytest.mark.parametrize("format", ["lgi", "2d-tan"])
def test_queries_are_what_the_loader_reads(tmp_path, format):
    report = export_store(make_store(tmp_path / "s.zarr"), tmp_path / "out", format, ANNOTATIONS)
    assert (report.num_videos, report.num_rows) == (4, 415)
    folder = tmp_path / "out" / ("annotations" if format == "lgi" else "")
    assert load_queries(folder, "train") == [
        ("a", 2.0, 5.0, "Baseball Pitch.\n", 10.0),
        ("a", 8.0, 12.0, "zoom in.\n", 10.0),
    ]
    # It scores on validation; "far" is of a third subset, "gone" is not in the store.
    assert load_queries(folder, "test") == [
        ("b%20c%2Fd", 0.125, 3.5, "Opening a door window.\n", 4.0),
        ("b%20c%2Fd", 4.5, 5.0, "Opening a door window.\n", 4.0),
    ]
    assert (tmp_path / "out" / "missing_files.txt").read_text() == "gone\n"


def test_lgi_loads_every_video_and_thins_the_long_one(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    export_store(store, tmp_path / "out", "lgi", ANNOTATIONS)
    rows = lgi_rows(tmp_path / "out", "a")
    np.testing.assert_array_equal(rows[:10], store["a"])
    assert not rows[10:].any()
    # 400 rows at a stride of 3.125: 0, 3, 6, 9, 12 (12.5 to even), ..., 397 (396.875).
    far = lgi_rows(tmp_path / "out", "far")
    np.testing.assert_array_equal(far[[0, 1, 4, 127]], store["far"][[0, 3, 12, 397]])
    one = lgi_rows(tmp_path / "out", "one")
    np.testing.assert_array_equal(one[:2], np.repeat(store["one"], 2, axis=0))


def test_2d_tan_averages_the_rows_of_the_store(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    export_store(store, tmp_path / "out", "2d-tan", ANNOTATIONS)
    with h5py.File(tmp_path / "out" / "vgg_rgb_features.hdf5", "r") as file:
        assert sorted(file) == ["a", "b%20c%2Fd", "far", "one"]
        assert (file["far"].shape, file["far"].dtype) == ((400, 6), np.float32)
        np.testing.assert_array_equal(file["b%20c%2Fd"][:], store["b c/d"])
    feats = store["b c/d"].astype(np.float32)
    unit = feats / np.linalg.norm(feats, axis=1, keepdims=True)
    # Row i is in the parts that start nearest to i * 64, half to even.
    found = tan_rows(tmp_path / "out", "b%20c%2Fd")[[0, 32, 33, 64, 128, 192, 255]]
    np.testing.assert_allclose(found, unit[[0, 0, 1, 1, 2, 3, 3]], atol=1e-6)
    assert tan_rows(tmp_path / "out", "one").shape == (256, 6)


@pytest.mark.parametrize(("num", "is_lost"), [(383, False), (384, True)])
def test_2d_tan_leaves_out_the_last_of_384_rows(tmp_path, num, is_lost):
    store = make_store(tmp_path / "s.zarr", {"v": num}, dim=1)
    export_store(store, tmp_path / "out", "2d-tan")
    rows = np.eye(num, dtype=np.float32)[:, -1:]  # only the last row is not zero
    path = tmp_path / "out" / "vgg_rgb_features.hdf5"
    path.unlink()
    with h5py.File(path, "w") as file:
        file["v"] = rows
    assert (not tan_rows(tmp_path / "out", "v").any()) == is_lost
    text = (tmp_path / "out" / "README.md").read_text()
    assert f"({int(is_lost)} videos here) the last is left out" in text


def test_configurations_name_the_files_and_the_width(tmp_path):
    store = make_store(tmp_path / "s.zarr")
    export_store(store, tmp_path / "lgi", "lgi", ANNOTATIONS)
    lgi = yaml_leaves(tmp_path / "lgi" / "LGI.yml")
    assert lgi["model.video_enc_vemb_idim"] == "6"
    for split in ("train", "test"):
        assert lgi[f"{split}_loader.split"] == split
        template = lgi[f"{split}_loader.video_feature_path"]
        assert template.startswith("data/charades/")
        assert (tmp_path / "lgi" / template.removeprefix("data/charades/").format("a")).exists()
    export_store(store, tmp_path / "tan", "2d-tan", ANNOTATIONS)
    tan = yaml_leaves(tmp_path / "tan" / "2D-TAN.yaml")
    assert (tmp_path / "tan" / f"{tan['DATASET.VIS_INPUT_TYPE']}_features.hdf5").exists()
    module = {name.removeprefix("TAN.FRAME_MODULE.PARAMS."): value for name, value in tan.items()}
    # PARAMS replaces the tool's whole: nothing may be missing.
    assert (module["INPUT_SIZE"], module["HIDDEN_SIZE"]) == ("6", "512")
    assert module["KERNEL_SIZE"] == module["STRIDE"] == tan["DATASET.TARGET_STRIDE"] == "16"
    assert (tan["DATASET.NO_VAL"], tan["DATASET.NORMALIZE"]) == ("true", "true")


def test_the_readmes_state_the_time_of_a_row(tmp_path):
    # Rows are equal parts of their videos here; LGI places each at its left edge.
    store = make_store(tmp_path / "s.zarr")
    report = export_store(store, tmp_path / "lgi", "lgi", ANNOTATIONS)
    text = (tmp_path / "lgi" / "README.md").read_text()
    assert "t = i * duration / S" in text
    assert "by up to 0.500 s" in report.notes[0]
    assert "words of class names" in text
    assert "(1 videos here) the tool takes 128" in text
    report = export_store(store, tmp_path / "tan", "2d-tan", ANNOTATIONS)
    text = (tmp_path / "tan" / "README.md").read_text()
    assert "round((k + 1) * S / 256)" in text
    assert "words of class names" in text
    stated = json.loads((tmp_path / "tan" / "store.json").read_text())
    assert stated["largest_difference_seconds"] == pytest.approx(farthest_row(), abs=1e-9)


def farthest_row() -> float:
    """Return how far 2D-TAN moves any row, part by part; row i of these videos is at i + 1/2."""
    largest = 0.0
    for num in COUNTS.values():
        parts_of = {row: [] for row in range(num)}
        for part in range(256):
            # Python rounds halves to even, as PyTorch does.
            first = min(round(part * num / 256), num - 1)
            end = min(round((part + 1) * num / 256), num - 1)
            for row in range(first, max(end, first + 1)):
                parts_of[row].append((part + 0.5) / 256 * num)
        for row, parts in parts_of.items():
            if parts:
                largest = max(largest, abs(sum(parts) / len(parts) - row - 0.5))
    assert 0.5 <= largest < 1
    return largest


@pytest.mark.parametrize("format", ["lgi", "2d-tan"])
def test_a_class_without_words_is_refused(tmp_path, format):
    store = make_store(tmp_path / "s.zarr")
    odd = Annotations(("run", "?_#"), {"a": (AnnotatedSegment(0.0, 1.0, 1),)}, {"a": "train"})
    with pytest.raises(UsageError, match=r"letter or a digit to be a sentence, got '\?_#'"):
        export_store(store, tmp_path / "out", format, odd)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["lgi", "2d-tan"])
def test_the_same_store_gives_the_same_bytes(tmp_path, format):
    store = make_store(tmp_path / "s.zarr")
    for name in ("one", "two"):
        export_store(store, tmp_path / name, format, ANNOTATIONS)
    files = [p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file()]
    assert len(files) == 4 + 1 + 3 + (4 if format == "lgi" else 1)
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
