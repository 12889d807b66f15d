"""Exports for tools that label rows or find sentences, read from the formats' documentation."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from export_readers import read_frame_labels, read_sentences, yaml_scalars
from made_exports import (
    CLASSES,
    I3D_SPEC,
    PTS,
    SUBSETS,
    feats_of,
    make_annotations,
    make_timed_store,
    named_streams,
)

from features import export_store
from features.exports import FORMATS
from manifests import UsageError

pytestmark = pytest.mark.slow
ANNOTATIONS = make_annotations(**SUBSETS)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_timed_store(tmp_path_factory.mktemp("stores") / "s.zarr", PTS)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "wide.zarr"
    return make_timed_store(path, PTS, named_streams(I3D_SPEC, rgb=1024, flow=1024))


@pytest.mark.parametrize("format", ["tgm", "super-events", "pdan", "ms-tct"])
def test_rows_and_labels_of_each_stream(tmp_path, wide, format):
    report = export_store(wide, tmp_path / "out", format, ANNOTATIONS)
    for stream, first in (("rgb", 0), ("flow", 1024)):
        read = read_frame_labels(tmp_path / "out", stream, len(CLASSES))
        assert list(read) == ["long", "a%2Fb%20c"]
        feats_TC, seconds_T, labels_TK, subset = read["long"]
        assert subset == "training"
        assert read["a%2Fb%20c"][3] == "testing"
        expected = feats_of("long", len(feats_TC), 2048)[:, first : first + 1024]
        np.testing.assert_array_equal(feats_TC, expected.astype(np.float32))
        times_S3 = wide.times("long")
        # The left edge of 98 parts of 16.12 s; the middle of a snippet is 8 frames in.
        np.testing.assert_allclose(seconds_T, np.arange(98) * (403 / 25) / 98)
        off = np.abs(seconds_T - (times_S3[:, 0] + 0.32)).max()
        assert f"by up to {off:.3f} s" in report.notes[0]
        is_in_T = (seconds_T > 0.4) & (seconds_T < 2.6)
        np.testing.assert_array_equal(labels_TK[:, 1], is_in_T)


def test_classes_of_multithumos_count_from_one(tmp_path, wide):
    export_store(wide, tmp_path / "out", "tgm", ANNOTATIONS)
    for name, classes in (("charades", [1, 0]), ("multithumos", [2, 1])):
        entry = json.loads((tmp_path / "out" / f"{name}.json").read_text())["long"]
        assert [action[0] for action in entry["actions"]] == classes
        assert entry["duration"] == pytest.approx(403 / 25)


def test_arrays_have_four_dimensions_on_disk(tmp_path, store):
    export_store(store, tmp_path / "out", "pdan", ANNOTATIONS)
    rows = np.load(tmp_path / "out" / "toy" / "bare.npy")
    assert (rows.shape, rows.dtype) == ((22, 1, 1, 8), np.float32)


def test_tgm_says_which_width_it_reads(tmp_path, store):
    for format in ("tgm", "super-events"):
        with pytest.raises(UsageError, match="rows of 1024 channels only, got 8 of stream 'toy'"):
            export_store(store, tmp_path / "out", format, ANNOTATIONS)
    assert not (tmp_path / "out").exists()


def test_ms_tct_says_what_it_never_scores(tmp_path):
    spec = replace(I3D_SPEC, snippet_len=1, snippet_stride=1)
    store = make_timed_store(tmp_path / "s.zarr", PTS, spec)
    export_store(store, tmp_path / "out", "ms-tct", ANNOTATIONS)
    assert "1 videos here are longer" in (tmp_path / "out" / "README.md").read_text()


def test_a_third_subset_is_left_out_and_said(tmp_path, store):
    annotations = make_annotations(long="train", bare="val", **{"a/b c": "test"})
    export_store(store, tmp_path / "out", "pdan", annotations)
    stated = json.loads((tmp_path / "out" / "charades.json").read_text())
    assert {name: entry["subset"] for name, entry in stated.items()} == {
        "long": "training",
        "bare": "testing",
    }
    text = (tmp_path / "out" / "README.md").read_text()
    assert 'uses the annotated subset "testing" for neither' in text


def test_lgi(tmp_path, store):
    export_store(store, tmp_path / "out", "lgi", ANNOTATIONS)
    feats_TC = np.load(tmp_path / "out" / "features" / "i3d_finetuned" / "long.npy").squeeze()
    np.testing.assert_array_equal(feats_TC, store["long"].astype(np.float32))
    assert read_sentences(tmp_path / "out" / "annotations", "train") == [
        ("long", 0.4, 2.6, "jump", pytest.approx(16.12)),
        ("long", 1.25, 3.0, "run fast", pytest.approx(16.12)),
    ]
    test = read_sentences(tmp_path / "out" / "annotations", "test")
    assert {line[0] for line in test} == {"a%2Fb%20c"}
    config = yaml_scalars(tmp_path / "out" / "LGI.yml")
    assert (config["video_enc_vemb_idim"], config["num_segment"]) == (8, 128)


def test_a_single_row_survives_the_squeeze_of_lgi(tmp_path):
    store = make_timed_store(tmp_path / "s.zarr", {"one": PTS["bare"][:10]})
    assert len(store["one"]) == 1
    export_store(store, tmp_path / "out", "lgi")
    feats_TC = np.load(tmp_path / "out" / "features" / "i3d_finetuned" / "one.npy").squeeze()
    assert feats_TC.shape == (2, 8)


def test_2d_tan(tmp_path, store):
    export_store(store, tmp_path / "out", "2d-tan", ANNOTATIONS)
    with h5py.File(tmp_path / "out" / "vgg_rgb_features.hdf5") as file:
        assert sorted(file) == ["a%2Fb%20c", "bare", "long"]  # no group from the slash
        for name, video_id in (("a%2Fb%20c", "a/b c"), ("long", "long")):
            np.testing.assert_array_equal(file[name][:], store[video_id].astype(np.float32))
    assert len(read_sentences(tmp_path / "out", "train")) == 2
    config = yaml_scalars(tmp_path / "out" / "2D-TAN.yaml")
    assert (config["VIS_INPUT_TYPE"], config["INPUT_SIZE"]) == ("vgg_rgb", 8)


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "npy"])
def test_every_readme_says_seconds_and_is_not_the_last_file(tmp_path, wide, monkeypatch, format):
    export_store(wide, tmp_path / "out", format, ANNOTATIONS)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "## Which seconds row i stands for" in text
    assert "    t = " in text
    assert "presentation times" in text

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("features.exports.finish.write_json", fail)
    with pytest.raises(KeyboardInterrupt):
        export_store(wide, tmp_path / "killed", format, ANNOTATIONS)
    assert not (tmp_path / "killed" / "store.json").exists()
