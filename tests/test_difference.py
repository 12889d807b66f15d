"""`features diff`: what it names, and the distances of rows."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_store import COUNTS, SPEC, make_store

from features import FeatureSpec, StoredVideo, rows_digest
from features.store.difference import compare_stores, cosine_distances
from features.store.layout import plan_layout
from features.store.writer import StoreWriter
from manifests import StoreError


def write_store(
    path: Path, rows: dict[str, np.ndarray | str], spec: FeatureSpec = SPEC, step: float = 0.5
) -> Path:
    """Write a store of given rows; a text is the reason of a rejected video."""
    counts = [0 if isinstance(found, str) else len(found) for found in rows.values()]
    layout = plan_layout(counts)
    starts = layout.row_start_V.tolist()
    videos = [
        StoredVideo(video_id, start, count, 1.0, 10, 1, 8)
        for video_id, start, count in zip(rows, starts, counts, strict=True)
    ]
    writer = StoreWriter(path, spec, videos, layout)
    feats_RD = np.zeros((layout.shard_rows, spec.feature_dim), np.float16)
    times_R3 = np.zeros((layout.shard_rows, 3))
    done = []
    for video, found in zip(videos, rows.values(), strict=True):
        if isinstance(found, str):
            done.append(replace(video, status="rejected", reason=found))
            continue
        place = slice(video.row_start, video.row_start + len(found))
        feats_RD[place] = found
        times_R3[place] = np.arange(len(found))[:, None] * step + [0.0, step, 2 * step]
        digest = rows_digest(feats_RD[place], times_R3[place])
        done.append(replace(video, digest=digest))
    writer.commit(0, feats_RD, times_R3, done)
    writer.finish()
    return path


E0, E1 = np.eye(5)[:2]


def test_equal_stores_are_equal_and_nothing_else_is_said(tmp_path):
    for name in ("a", "b"):
        make_store(tmp_path / f"{name}.zarr", COUNTS)
    report = compare_stores(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert report.is_equal
    assert report.lines() == [
        f"equal: {tmp_path / 'a.zarr'} and {tmp_path / 'b.zarr'} have one digest"
    ]
    assert (report.spec, report.only_a, report.only_b, report.other_rows) == ({}, (), (), ())
    assert report.median == report.largest == {"toy": 0.0}
    assert json.loads(json.dumps(report.to_dict()))["is_equal"] is True


def test_every_kind_of_difference_is_named(tmp_path):
    same, turned = np.stack([E0, E1, E0]), np.stack([E0, E0, -E0])
    a = {"same": same, "turned": same, "long": same, "gone": same, "bad": "no frame", "mine": same}
    b = {"same": same, "turned": turned, "long": same[:2], "gone": "cut", "bad": "empty"}
    report = compare_stores(
        write_store(tmp_path / "a.zarr", a),
        write_store(tmp_path / "b.zarr", b | {"yours": same}, replace(SPEC, batch=4)),
    )
    assert not report.is_equal
    assert report.spec == {"batch": (8, 4)}
    assert (report.only_a, report.only_b) == (("mine",), ("yours",))
    assert report.other_reasons == {"gone": (None, "cut"), "bad": ("no frame", "empty")}
    assert report.other_counts == {"long": (3, 2)}
    assert (report.other_times, report.other_rows) == ((), ("turned",))
    # rows: equal (0), at a right angle (1), opposite (2)
    assert report.distances == {"same": {"toy": (0.0, 0.0)}, "turned": {"toy": (1.0, 2.0)}}
    assert (report.median, report.largest) == ({"toy": 0.5}, {"toy": 2.0})
    said = "\n".join(report.lines())
    assert "batch: 8 in a, 4 in b" in said
    assert "  turned: toy 1 (largest 2)" in said
    assert "(channels 0 to 4): median 0.5 over 2 videos, largest 2" in said
    record = json.loads(json.dumps(report.to_dict()))
    assert record["distances"]["turned"]["toy"] == {"mean": 1.0, "largest": 2.0}


def test_another_order_and_other_reasons_are_said_where_rows_are_equal(tmp_path):
    rows: dict[str, np.ndarray | str] = {"v": E0[None], "w": E1[None], "x": "damaged"}
    first = write_store(tmp_path / "a.zarr", rows)
    turned = write_store(tmp_path / "b.zarr", dict(reversed(rows.items())))
    report = compare_stores(first, turned)
    assert not report.is_equal
    assert report.lines()[0] == "the videos of a stand in another order in b"
    other = compare_stores(first, write_store(tmp_path / "c.zarr", {**rows, "x": "too short"}))
    assert other.is_equal  # in what can be read
    assert other.lines()[1:] == ["other reasons: 1 videos", "  x: 'damaged', 'too short'"]


def test_videos_at_other_times_have_no_distance(tmp_path):
    rows = {"v": np.stack([E0, E1]), "w": np.stack([E0])}
    a = write_store(tmp_path / "a.zarr", rows)
    report = compare_stores(a, write_store(tmp_path / "b.zarr", rows, step=0.25))
    assert report.other_times == ("v", "w")
    assert report.distances == report.median == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"feature_dim": 3}, "rows of a have 5 channels, those of b 3"),
        ({"snippet_stride": 8}, "the time grids differ (snippet_stride: 4 here, 8 there)"),
    ],
)
def test_stores_that_cannot_be_compared_row_by_row_say_why(tmp_path, change, words):
    make_store(tmp_path / "a.zarr", COUNTS)
    make_store(tmp_path / "b.zarr", COUNTS, replace(SPEC, **change))
    report = compare_stores(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert report.not_compared == words
    assert f"no distances: {words}" in report.lines()
    assert (report.channel_ranges, report.distances) == ({}, {})
    assert set(report.spec) == set(change)


def test_streams_are_compared_each_for_itself_where_both_have_them(tmp_path):
    def streams(*names: str) -> FeatureSpec:
        dims = (2, 3)
        parts = [{"name": n, "feature_dim": d} for n, d in zip(names, dims, strict=True)]
        return replace(SPEC, backbone="streams", streams=tuple(parts))

    rows = np.ones((4, 5))
    a = write_store(tmp_path / "a.zarr", {"v": rows}, streams("rgb", "flow"))
    other = rows * [-1, -1, 1, 1, 1]
    report = compare_stores(
        a, write_store(tmp_path / "b.zarr", {"v": other}, streams("rgb", "flow"))
    )
    assert report.channel_ranges == {"rgb": (0, 2), "flow": (2, 5)}
    assert report.distances["v"]["rgb"].mean == pytest.approx(2.0)
    assert report.distances["v"]["flow"] == (0.0, 0.0)
    report = compare_stores(
        a, write_store(tmp_path / "c.zarr", {"v": other}, streams("rgb", "depth"))
    )
    assert report.channel_ranges == {"all": (0, 5)}
    assert report.distances["v"]["all"].mean == pytest.approx(0.8)  # 1 - (3 - 2) / 5


def test_rows_that_are_not_finite_are_refused(tmp_path):
    a = write_store(tmp_path / "a.zarr", {"v": np.ones((2, 5))})
    with pytest.raises(StoreError, match="video 'v' has rows that are not finite"):
        compare_stores(a, write_store(tmp_path / "b.zarr", {"v": np.full((2, 5), np.inf)}))


def test_distances_by_hand():
    zero = np.zeros(5)
    a_SD = np.stack([E0, E0, E0, zero, zero, E0])
    b_SD = np.stack([3 * E0, E1, -E0, zero, E0, zero])
    np.testing.assert_array_equal(cosine_distances(a_SD, b_SD), [0, 1, 2, 0, 1, 1])


@given(
    st.lists(st.lists(st.floats(-9, 9, width=16), min_size=6, max_size=6), min_size=1, max_size=5)
)
def test_distances_lie_in_0_to_2_and_do_not_see_lengths(values):
    rows_ND = np.array(values, np.float16)
    a_SD, b_SD = rows_ND[:, :3], rows_ND[:, 3:]
    d_S = cosine_distances(a_SD, b_SD)
    assert ((d_S >= 0) & (d_S <= 2)).all()
    np.testing.assert_array_equal(cosine_distances(a_SD, a_SD), np.zeros(len(values)))
    np.testing.assert_array_equal(cosine_distances(b_SD, a_SD), d_S)
    doubled = cosine_distances(a_SD.astype(np.float64) * 2, b_SD)
    np.testing.assert_allclose(doubled, d_S, atol=1e-12)
