"""Windows of snippets: which there are, what is in them, and that workers do not matter."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_store import COUNTS, make_store, rows_of
from torch.utils.data import DataLoader

from features import FeatureStore
from features.annotations import AnnotatedSegment, Annotations
from features.store.window_dataset import SnippetWindows, resize_rows
from manifests import StoreError, UsageError


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FeatureStore:
    return make_store(tmp_path_factory.mktemp("windows") / "s.zarr", COUNTS | {"five": 5})


def test_windows_of_a_short_video_by_hand(store):
    windows = SnippetWindows(store, window=4, stride=2, video_ids=["d", "five"])
    found = [(item["video_id"], item["first_snippet"], item["mask"].tolist()) for item in windows]
    yes, no = True, False
    assert found == [
        ("d", 0, [yes, no, no, no]),
        ("five", 0, [yes] * 4),
        ("five", 2, [yes, yes, yes, no]),
    ]
    feats_SD, times_S3 = rows_of("five", 5)
    item = windows[2]
    assert item["feats"].dtype == torch.float32
    assert item["times"].dtype == torch.float64
    np.testing.assert_array_equal(item["feats"], np.pad(feats_SD[2:], ((0, 1), (0, 0))))
    np.testing.assert_array_equal(item["times"], np.pad(times_S3[2:], ((0, 1), (0, 0))))
    assert len(windows) == 3
    with pytest.raises(IndexError):
        windows[3]


@given(st.integers(1, 90), st.integers(1, 90))
def test_every_snippet_is_in_a_window(store, window, stride):
    stride = min(stride, window)
    windows = SnippetWindows(store, window=window, stride=stride)
    for video, video_id in enumerate(windows.video_ids):
        starts = windows._first_N[windows._video_N == video]
        count = store.video(video_id).num_snippets
        shown = {s + k for s in starts.tolist() for k in range(window) if s + k < count}
        assert shown == set(range(count))
        assert starts[-1] < count


def test_labels_are_those_of_the_centres(store):
    # the centres of "five" are at 0.4, 0.8, 1.2, 1.6 and 2.0 seconds
    segments = {"five": (AnnotatedSegment(0.8, 1.6, 1), AnnotatedSegment(1.5, 9.0, 0))}
    annotations = Annotations(("run", "jump"), segments, {"five": "test"})
    windows = SnippetWindows(store, window=3, video_ids=["five", "d"], annotations=annotations)
    assert windows[0]["labels"].tolist() == [[0, 0], [0, 1], [0, 1]]
    assert windows[1]["labels"].tolist() == [[1, 0], [1, 0], [0, 0]]
    assert windows[2]["labels"].tolist() == [[0, 0]] * 3
    assert "labels" not in SnippetWindows(store, window=3)[0]


def test_whole_videos_as_they_are_and_resized(store):
    whole = SnippetWindows(store)
    assert [len(item["feats"]) for item in whole] == [*COUNTS.values(), 5]
    np.testing.assert_array_equal(whole[1]["feats"], rows_of("c", 60)[0])
    resized = SnippetWindows(store, resized=100)
    assert len(resized) == len(store)
    item = resized[1]
    assert item["feats"].shape == (100, 5)
    assert item["mask"].all()
    np.testing.assert_allclose(item["feats"], resize_rows(rows_of("c", 60)[0].astype("f4"), 100))
    # each share of the whole time has the centre of its middle, but for the very ends
    first, last = rows_of("c", 60)[1][[0, -1], 1]
    expected = np.clip(0.2 + (np.arange(100) + 0.5) * 24 / 100, first, last)
    np.testing.assert_allclose(item["times"][:, 1], expected)


def test_resizing_by_hand():
    rows_SD = np.arange(4.0)[:, None]
    assert resize_rows(rows_SD, 2)[:, 0].tolist() == [0.5, 2.5]
    assert resize_rows(rows_SD, 8)[:, 0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    assert resize_rows(rows_SD, 4)[:, 0].tolist() == [0, 1, 2, 3]


@given(st.integers(1, 40), st.integers(1, 40))
def test_resizing_is_that_of_torch(num_rows, wanted):
    rows_SD = np.random.default_rng(num_rows).normal(size=(num_rows, 3))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(rows_SD.T[None]), wanted, mode="linear", align_corners=False
    )
    np.testing.assert_allclose(resize_rows(rows_SD, wanted), expected[0].T, atol=1e-9)


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_give_the_same_items(store, start):
    windows = SnippetWindows(store, window=64, stride=32)
    orders = []
    for num_workers in (0, 2):
        loader = DataLoader(
            windows,
            batch_size=4,
            shuffle=True,
            num_workers=num_workers,
            generator=torch.Generator().manual_seed(5),
            multiprocessing_context=start if num_workers else None,
        )
        orders.append(list(loader))
    assert len(orders[0]) == len(orders[1]) == -(-len(windows) // 4)
    for here, there in zip(*orders, strict=True):
        assert here["video_id"] == there["video_id"]
        for name in ("feats", "mask", "times", "first_snippet"):
            assert torch.equal(here[name], there[name])


def test_what_makes_no_sense_is_refused(store):
    for arguments in ({"window": 0}, {"window": 4, "stride": 0}, {"resized": 0}):
        with pytest.raises(UsageError, match="must be >= 1"):
            SnippetWindows(store, **arguments)
    for arguments in ({"window": 4, "resized": 4}, {"stride": 4}, {"stride": 4, "resized": 4}):
        with pytest.raises(UsageError, match="stride belongs to a window"):
            SnippetWindows(store, **arguments)
    with pytest.raises(StoreError, match="video 'other' is not in the store"):
        SnippetWindows(store, video_ids=["five", "other"])
