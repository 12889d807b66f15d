"""Exports for detectors, read by small readers written from the formats' documentation."""

import ast
import hashlib
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from export_readers import (
    options,
    python_arguments,
    read_actionformer,
    read_bmn,
    read_gtad_anet,
    read_gtad_thumos,
    read_opentad,
    read_rows,
    yaml_scalars,
)
from made_exports import (
    I3D_SPEC,
    PTS,
    SUBSETS,
    feats_of,
    make_annotations,
    make_timed_store,
    named_streams,
    pts_of,
)

from features import export_store
from features.exports import bsn_bins, export_tree, mmaction2_bins, resize_linear
from features.exports.gtad_thumos import OFFICIAL_NUMBERS
from manifests import StoreError, UsageError

pytestmark = pytest.mark.slow
THUMOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "annotations"
ANNOTATIONS = make_annotations(**SUBSETS)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_timed_store(tmp_path_factory.mktemp("stores") / "s.zarr", PTS)


@pytest.fixture(scope="module")
def two_streams(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "two.zarr"
    return make_timed_store(path, PTS, named_streams(I3D_SPEC, rgb=6, flow=10))


def middles(store, video_id: str) -> np.ndarray:
    """Return the middles of left-aligned windows, as if the last one were full too."""
    return store.times(video_id)[:, 0] + store.spec.snippet_len / 2 / 25


def check_rows(store, video_id: str, read: tuple[np.ndarray, np.ndarray]) -> None:
    """Rows are the store's, float32; full snippets are at the seconds of the store."""
    feats_TC, seconds_T = read
    times_S3 = store.times(video_id)
    expected = feats_of(video_id, len(times_S3), store.feature_dim).astype(np.float32)
    assert feats_TC.dtype == np.float32
    np.testing.assert_array_equal(feats_TC, expected)
    is_full_S = times_S3[:, 2] - times_S3[:, 0] > 16 / 25 - 1e-9
    assert 0 < is_full_S.sum() >= len(is_full_S) - 1
    np.testing.assert_allclose(seconds_T[is_full_S], times_S3[is_full_S, 1], atol=1e-9)


@pytest.mark.parametrize(
    ("format", "reader"), [("actionformer", read_actionformer), ("opentad", read_opentad)]
)
def test_rows_and_seconds_of_a_detector(tmp_path, store, format, reader):
    report = export_store(store, tmp_path / "out", format, ANNOTATIONS)
    read = reader(tmp_path / "out")
    assert list(read) == ["long", "a%2Fb%20c"]  # "bare" has no annotation, "gone" no features
    for name, video_id in (("long", "long"), ("a%2Fb%20c", "a/b c")):
        check_rows(store, video_id, read[name])
    assert report.num_videos == 3
    assert report.num_bytes == sum(
        path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()
    )
    assert report.notes[0] == "the tool's seconds are the presentation times, to a millisecond"
    assert report.notes[1:] == (
        "1 videos of the store have no annotation",
        "1 annotated videos are not in the store: missing_files.txt",
    )
    assert (tmp_path / "out" / "missing_files.txt").read_text() == "gone\n"


def test_the_annotation_file_of_detectors(tmp_path, store):
    export_store(store, tmp_path / "out", "opentad", ANNOTATIONS)
    entry = json.loads((tmp_path / "out" / "annotations.json").read_text())["database"]["long"]
    assert (entry["subset"], entry["frame"], entry["fps"]) == ("validation", 403, 25.0)
    assert entry["duration"] == pytest.approx(403 / 25)
    # Classes are sorted, and "never" does not occur.
    assert (tmp_path / "out" / "category_idx.txt").read_text() == "jump\nrun_fast\n"
    assert [(a["segment"], a["label"], a["label_id"]) for a in entry["annotations"]] == [
        ([0.4, 2.6], "jump", 0),
        ([1.25, 3.0], "run_fast", 1),
    ]
    config = python_arguments(tmp_path / "out" / "opentad.py")
    assert set(config["feature_stride"]) == {4}
    assert set(config["offset_frames"]) == {8}
    assert config["subset_name"] == ["validation", "testing", "testing"]


def test_the_configuration_of_actionformer(tmp_path, store):
    export_store(store, tmp_path / "out", "actionformer", ANNOTATIONS, prefix="v_")
    config = yaml_scalars(tmp_path / "out" / "actionformer.yaml")
    assert config["train_split"] == ["validation"]
    assert config["val_split"] == ["testing"]
    assert (config["feat_stride"], config["num_frames"], config["default_fps"]) == (4, 16, 25.0)
    assert (config["num_classes"], config["input_dim"]) == (2, 8)
    assert config["max_seq_len"] % 576 == 0 < config["max_seq_len"] >= 98
    assert (tmp_path / "out" / "features" / "v_a%2Fb%20c.npy").exists()
    assert config["file_prefix"] == "v_"
    check_rows(store, "long", read_actionformer(tmp_path / "out")["long"])


def test_the_prefix_of_opentad_is_of_its_files_only(tmp_path, store):
    export_store(store, tmp_path / "out", "opentad", ANNOTATIONS, prefix="v_")
    config = python_arguments(tmp_path / "out" / "opentad.py")
    assert set(config["prefix"]) == {"v_"}
    assert (tmp_path / "out" / "features" / "v_long.npy").exists()
    database = json.loads((tmp_path / "out" / "annotations.json").read_text())["database"]
    assert "long" in database


@pytest.mark.parametrize(
    "spec",
    [
        replace(I3D_SPEC, fps="15/2"),
        replace(I3D_SPEC, tail="drop"),
        replace(I3D_SPEC, alignment="centre"),
        replace(I3D_SPEC, snippet_len=1, snippet_stride=1, pooling="frame"),
        replace(I3D_SPEC, snippet_len=5, snippet_stride=2, alignment="centre", fps="10"),
    ],
)
def test_seconds_on_every_grid(tmp_path, spec):
    store = make_timed_store(tmp_path / "s.zarr", PTS, spec)
    for format, reader in (("actionformer", read_actionformer), ("opentad", read_opentad)):
        export_store(store, tmp_path / format, format, ANNOTATIONS)
        for name, video_id in (("long", "long"), ("a%2Fb%20c", "a/b c")):
            seconds_T = reader(tmp_path / format)[name][1]
            times_S3 = store.times(video_id)
            full = len(times_S3) - (spec.tail == "pad" and spec.alignment == "left")
            np.testing.assert_allclose(seconds_T[:full], times_S3[:full, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("format", "reader"), [("actionformer", read_actionformer), ("opentad", read_opentad)]
)
def test_resized_videos(tmp_path, store, format, reader):
    report = export_store(store, tmp_path / "out", format, ANNOTATIONS, resize=192)
    feats_TC, seconds_T = reader(tmp_path / "out")["long"]
    expected = resize_linear(store["long"], 192).astype(np.float32)
    np.testing.assert_array_equal(feats_TC, expected)
    # Nothing is earlier than the middle of the first window, at 0.32 s; row 0 is at D / 384.
    off = 0.32 - 1.6 / 384
    assert report.notes[0].endswith(f"by up to {off:.3f} s (video 'a/b c')")
    assert np.abs(seconds_T - resize_linear(middles(store, "long")[:, None], 192)[:, 0]).max() < off


def test_rates_of_several_videos_stay_apart(tmp_path):
    # One spec without resampling, videos of 25 and of 12.5 frames per second.
    slow = {"slow": np.arange(60) * 0.08}
    store = make_timed_store(tmp_path / "s.zarr", slow, fps=Fraction(25, 2))
    export_store(store, tmp_path / "out", "actionformer", make_annotations(slow="train"))
    assert yaml_scalars(tmp_path / "out" / "actionformer.yaml")["default_fps"] == 12.5
    seconds_T = read_actionformer(tmp_path / "out")["slow"][1]
    np.testing.assert_allclose(seconds_T[:-1], store.times("slow")[:-1, 1], atol=1e-9)


@pytest.mark.parametrize("format", ["actionformer", "opentad", "bmn", "pdan", "lgi", "2d-tan"])
def test_parts_of_videos_are_refused(tmp_path, format):
    pts = {"even": pts_of(200, Fraction(25)), "late": pts_of(200, Fraction(25)) + 3.0}
    store = make_timed_store(tmp_path / "s.zarr", pts)
    with pytest.raises(UsageError, match=r"begin at 0, but the first row of 'late' is at 3\.000 s"):
        export_store(store, tmp_path / "out", format, make_annotations(even="train"))
    assert not (tmp_path / "out").exists()
    export_store(store, tmp_path / "out", "npy")  # holds any times


def test_a_rate_that_varies_needs_resampling(tmp_path):
    pts = {"varies": np.append(pts_of(100, Fraction(25)), 4 + pts_of(100, Fraction(25, 2)))}
    annotations = make_annotations(varies="train")
    native = make_timed_store(tmp_path / "s.zarr", pts)
    with pytest.raises(UsageError, match=r"in 1 of 1 videos .*'varies' \(.* s\).*--fps"):
        export_store(native, tmp_path / "out", "opentad", annotations)
    resampled = make_timed_store(tmp_path / "r.zarr", pts, replace(I3D_SPEC, fps="10"))
    export_store(resampled, tmp_path / "out", "opentad", annotations)
    seconds_T = read_opentad(tmp_path / "out")["varies"][1]
    np.testing.assert_allclose(seconds_T[:-1], resampled.times("varies")[:-1, 1], atol=1e-9)


def test_a_wrong_annotation_file_is_found_on_reading(tmp_path, store, monkeypatch):
    monkeypatch.setattr("features.exports.segment_files.stated_frames", lambda video: 404)
    with pytest.raises(
        StoreError, match=r"opentad would read 98 rows from .* but the store has 98"
    ):
        export_store(store, tmp_path / "out", "opentad", ANNOTATIONS)
    assert not (tmp_path / "out" / "store.json").exists()


@pytest.mark.parametrize("resize", [None, 100])
@pytest.mark.parametrize(
    ("format", "name"), [("actionformer", "actionformer.yaml"), ("opentad", "opentad.py")]
)
def test_configurations_of_detectors_state_the_grid(tmp_path, format, name, resize):
    spec = replace(I3D_SPEC, alignment="centre", fps="15/2")
    store = make_timed_store(tmp_path / "s.zarr", PTS, spec)
    export_store(store, tmp_path / "out", format, ANNOTATIONS, resize=resize)
    text = (tmp_path / "out" / name).read_text()
    assert "# snippets: every 4 frames, window 16, offset 0, fps 15/2\n" in text
    if format == "opentad":
        ast.parse(text, name)
        assert "tiou_thresholds=[0.3, 0.4, 0.5, 0.6, 0.7]," in text  # the tool has no default


@pytest.mark.parametrize("format", ["actionformer", "opentad", "gtad-anet", "bmn", "mmaction2"])
def test_rgb_comes_before_flow_whatever_the_store_has(tmp_path, format):
    spec = named_streams(I3D_SPEC, flow=8, sound=4, rgb=8)
    store = make_timed_store(tmp_path / "s.zarr", PTS, spec)
    export_store(store, tmp_path / "out", format, ANNOTATIONS)
    export_store(store.select(["rgb", "sound", "flow"]), tmp_path / "same", format, ANNOTATIONS)
    stated = json.loads((tmp_path / "out" / "store.json").read_text())
    assert stated["channel_ranges"] == {"rgb": [0, 8], "sound": [8, 12], "flow": [12, 20]}
    for path in (tmp_path / "same").rglob("*"):
        if path.is_file():
            assert (tmp_path / "out" / path.relative_to(tmp_path / "same")).read_bytes() == (
                path.read_bytes()
            )
    if format == "actionformer":
        stored = store["long"].astype(np.float32)
        rows = np.load(tmp_path / "out" / "features" / "long.npy")
        np.testing.assert_array_equal(rows[:, :8], stored[:, 12:])
        np.testing.assert_array_equal(rows[:, 12:], stored[:, :8])


def test_gtad_thumos_repeats_rows_flow_first(tmp_path, two_streams):
    report = export_store(two_streams, tmp_path / "out", "gtad-thumos", ANNOTATIONS)
    read = read_gtad_thumos(tmp_path / "out")
    assert sorted(read) == ["video_test_0000001", "video_validation_0000001"]
    keys = json.loads((tmp_path / "out" / "store.json").read_text())["keys"]
    assert keys == {"long": "video_validation_0000001", "a/b c": "video_test_0000001"}
    for video_id, name in keys.items():
        feats_KC, seconds_K = read[name]
        assert len(feats_KC) == -(-len(PTS[video_id]) // 5)
        stored = two_streams[video_id].astype(np.float32)
        flow_first = np.concatenate([stored[:, 6:], stored[:, :6]], axis=1)
        for row, seconds in zip(feats_KC, seconds_K, strict=True):
            off_S = np.abs(middles(two_streams, video_id) - seconds - 0.02)  # of the frame's middle
            (match,) = np.flatnonzero((flow_first == row).all(axis=1))
            assert off_S[match] <= off_S.min() + 1e-6
    assert "1 videos of the store are in neither subset, and left out" in report.notes
    assert options(tmp_path / "out" / "opts.txt")["feat_dim"] == "16"


def test_gtad_thumos_takes_frame_features_as_they_are(tmp_path):
    spec = named_streams(replace(I3D_SPEC, snippet_len=1, snippet_stride=1), rgb=4, flow=4)
    pts = {
        "video_validation_0000051": pts_of(33, Fraction(25)),
        "video_test_0000004": pts_of(21, Fraction(25)),
    }
    store = make_timed_store(tmp_path / "s.zarr", pts, spec)
    annotations = make_annotations(video_validation_0000051="val", video_test_0000004="test")
    export_store(store, tmp_path / "out", "gtad-thumos", annotations)
    for name, (feats_KC, seconds_K) in read_gtad_thumos(tmp_path / "out").items():
        stored = store[name].astype(np.float32)[::5]
        np.testing.assert_array_equal(feats_KC, np.concatenate([stored[:, 4:], stored[:, :4]], 1))
        np.testing.assert_allclose(seconds_K + 0.02, store.times(name)[::5, 1])
    row = read_rows(tmp_path / "out" / "test_Annotation.csv")[0]
    assert list(row.values()) == ["video_test_0000004", "jump", "2", "0.4", "2.6", "10", "65"]
    truth = json.loads((tmp_path / "out" / "evaluation" / "thumos_gt.json").read_text())
    assert truth["database"]["video_test_0000004"]["subset"] == "test"
    assert truth["database"]["video_test_0000004"]["annotations"][0]["segment"] == ["0.4", "2.6"]


@pytest.mark.parametrize("word", ["validation", "test"])
def test_gtad_thumos_keeps_official_names_of_one_subset(tmp_path, word):
    """THUMOS'14 trains on its validation part, also where nothing else was extracted."""
    spec, name = named_streams(I3D_SPEC, rgb=4, flow=4), f"video_{word}_0000051"
    store = make_timed_store(tmp_path / "s.zarr", {name: PTS["long"]}, spec)
    export_store(store, tmp_path / "out", "gtad-thumos", make_annotations(**{name: word}))
    assert list(read_gtad_thumos(tmp_path / "out")) == [name]


def test_gtad_thumos_numbers_its_own_classes_as_the_original_files_do(tmp_path, two_streams):
    classes = ("BaseballPitch", "CricketShot", "VolleyballSpiking")
    export_store(two_streams, tmp_path, "gtad-thumos", replace(ANNOTATIONS, classes=classes))
    rows = read_rows(tmp_path / "test_Annotation.csv")
    assert [(row["type"], row["type_idx"]) for row in rows] == [
        ("CricketShot", "24"),
        ("BaseballPitch", "7"),
    ]
    truth = read_rows(tmp_path / "thumos14_test_groundtruth.csv")
    assert [row["label-idx"] for row in truth] == ["1", "0"]


@pytest.mark.skipif(not THUMOS.is_dir(), reason="needs the official annotations")
def test_official_numbers_are_those_of_the_original_files():
    for split in ("val", "test"):
        rows = read_rows(THUMOS / f"thumos14_{split}_Annotation.csv")
        stated = {row["type"]: int(row["type_idx"]) for row in rows}
        assert stated == OFFICIAL_NUMBERS | {"Ambiguous": 0}


def test_gtad_thumos_says_what_it_cannot_hold(tmp_path, store, two_streams):
    with pytest.raises(UsageError, match="streams named rgb and flow, got 'toy'; extract with"):
        export_store(store, tmp_path / "out", "gtad-thumos", ANNOTATIONS)
    odd = make_timed_store(tmp_path / "o.zarr", PTS, named_streams(I3D_SPEC, rgb=5, flow=5))
    with pytest.raises(UsageError, match="must divide by 4, got 10"):
        export_store(odd, tmp_path / "out", "gtad-thumos", ANNOTATIONS)
    with pytest.raises(UsageError, match="must be given the annotated segments"):
        export_store(two_streams, tmp_path / "out", "gtad-thumos")
    with pytest.raises(UsageError, match="annotated videos only, and the store has none"):
        export_store(two_streams, tmp_path / "out", "gtad-thumos", make_annotations(gone="val"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("format", "reader", "rule"),
    [
        ("gtad-anet", read_gtad_anet, "jjboy"),
        ("bmn", read_bmn, "jjboy"),
        ("bmn", read_bmn, "mmaction2"),
        ("mmaction2", read_bmn, "mmaction2"),
    ],
)
def test_hundred_bins(tmp_path, store, format, reader, rule):
    default = (format, rule) != ("bmn", "mmaction2")
    export_store(store, tmp_path / "out", format, ANNOTATIONS, rule=None if default else rule)
    read = reader(tmp_path / "out")
    assert sorted(read) == ["v_a%2Fb%20c", "v_long"]
    for name, video_id in (("v_long", "long"), ("v_a%2Fb%20c", "a/b c")):
        feats_TC, seconds_B = read[name]
        assert (feats_TC.shape, feats_TC.dtype) == ((100, 8), np.float32)
        rows_SD, centres_S = store[video_id], middles(store, video_id)
        duration = len(PTS[video_id]) / 25
        bins = (
            mmaction2_bins(rows_SD)
            if rule == "mmaction2"
            else bsn_bins(rows_SD, centres_S, duration)
        )
        np.testing.assert_allclose(feats_TC, bins, atol=1e-6)
        np.testing.assert_allclose(seconds_B, (np.arange(100) + 0.5) / 100 * duration)


def test_the_annotation_files_of_bmn(tmp_path, store):
    export_store(store, tmp_path / "out", "bmn", ANNOTATIONS)
    rows = read_rows(tmp_path / "out" / "video_info_new.csv")
    assert list(rows[0]) == [
        "video",
        "numFrame",
        "seconds",
        "fps",
        "rfps",
        "subset",
        "featureFrame",
    ]
    assert [row["subset"] for row in rows] == ["training", "validation"]
    assert (rows[0]["numFrame"], rows[0]["featureFrame"]) == ("403", "403")
    truth = json.loads((tmp_path / "out" / "evaluation" / "activity_net_1_3_new.json").read_text())
    assert list(truth["database"]) == ["long", "a%2Fb%20c"]
    assert truth["database"]["long"]["subset"] == "training"
    header = (tmp_path / "out" / "csv_mean_100" / "v_bare.csv").read_text().splitlines()[0]
    assert header == "f0,f1,f2,f3,f4,f5,f6,f7"
    assert options(tmp_path / "out" / "opts.txt")["feat_dim"] == "8"


def test_dropped_tails_are_not_covered(tmp_path):
    store = make_timed_store(tmp_path / "s.zarr", PTS, replace(I3D_SPEC, tail="drop"))
    export_store(store, tmp_path / "out", "mmaction2", ANNOTATIONS)
    entry = json.loads((tmp_path / "out" / "anet_anno_train.json").read_text())["v_long"]
    # 97 full snippets of 16 frames, every 4 frames, end with frame 400 of 403.
    assert (entry["feature_frame"], entry["duration_frame"]) == (400, 403)
    assert read_bmn(tmp_path / "out")["v_long"][1][-1] == pytest.approx(0.995 * 400 / 25)


def test_bins_say_what_they_cannot_hold(tmp_path, store):
    with pytest.raises(UsageError, match="--rule must be one of jjboy, mmaction2, got 'mean'"):
        export_store(store, tmp_path / "out", "bmn", rule="mean")
    with pytest.raises(UsageError, match="--prefix must be two characters, got ''"):
        export_store(store, tmp_path / "out", "mmaction2", prefix="")
    odd = make_timed_store(tmp_path / "o.zarr", PTS, replace(I3D_SPEC, feature_dim=6))
    with pytest.raises(UsageError, match="divide by 4, got 6; extract with another"):
        export_store(odd, tmp_path / "out", "gtad-anet")
    clash = make_timed_store(tmp_path / "c.zarr", {"v_a": PTS["bare"], "a": PTS["bare"]})
    with pytest.raises(UsageError, match="'v_a' and 'a' would both be exported as 'v_a'"):
        export_store(clash, tmp_path / "out", "bmn")
    with pytest.raises(UsageError, match=r"subset .* got 'fold 1' for video 'long'"):
        export_store(store, tmp_path / "out", "bmn", make_annotations(long="fold 1"))
    assert not (tmp_path / "out").exists()


FORMATS_OF_ONE_STREAM = ("actionformer", "opentad", "gtad-anet", "bmn", "mmaction2")


@pytest.mark.parametrize("format", FORMATS_OF_ONE_STREAM)
def test_features_alone(tmp_path, store, format):
    report = export_store(store, tmp_path / "out", format)
    assert report.notes[1] == "no annotation file, as no segments were given (--segments)"
    assert not list((tmp_path / "out").rglob("*anno*"))
    assert (tmp_path / "out" / "store.json").exists()


def digest(folder: Path) -> str:
    sha = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        sha.update(path.relative_to(folder).as_posix().encode())
        sha.update(path.read_bytes() if path.is_file() else b"")
    return sha.hexdigest()


@pytest.mark.parametrize("format", ["actionformer", "gtad-thumos", "gtad-anet", "mmaction2"])
def test_the_same_bytes_every_time(tmp_path, two_streams, format):
    for name in ("one", "two"):
        export_store(two_streams, tmp_path / name, format, ANNOTATIONS)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_the_tree_of_an_export(tmp_path, two_streams):
    export_store(two_streams, tmp_path / "out", "gtad-thumos", ANNOTATIONS)
    lines = export_tree(tmp_path / "out")
    assert "  /video_test_0000001  float32 (40, 10)" in lines[lines.index("flow_test.h5") :]
    assert "val_Annotation.csv  header and 2 rows of 7" in lines
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "    flow_test.h5\n      /video_test_0000001  float32 (40, 10)\n" in readme
    assert "t = 5 * k / frame-rate" in readme
