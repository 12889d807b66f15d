"""Decoding, suppression and fusion: against numbers of the public tools, and by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from features.probing.postprocessing import (
    LONGEST_GTAD_FRAMES,
    Kept,
    decode_bmn,
    decode_gtad_anet,
    decode_gtad_thumos,
    fuse_actionformer,
    fuse_gtad,
    soft_nms_bmn,
    soft_nms_gtad,
)
from features.probing.segment_nms import LabelledSegments, SegmentNms, nms_actionformer

FRAMES = {"sigma": 0.46, "num_kept": 200, "longest": LONGEST_GTAD_FRAMES}


class Published:
    """The cases of `evaluation/postproc`."""

    def __init__(self, shared: Path) -> None:
        folder = shared / "parity/evaluation"
        self.cases: dict[str, Any] = json.loads((folder / "postproc.json").read_text())["cases"]
        self.arrays = np.load(folder / "postproc.npz")

    def named(self, prefix: str) -> list[str]:
        return [name for name in self.cases if name.startswith(prefix)]


@pytest.fixture(scope="module")
def published(shared: Path) -> Published:
    return Published(shared)


def test_every_case_has_a_test(published: Published) -> None:
    decodes = {"bmn_decode", "gtad_anet_decode", "gtad_thumos_decode", "gtad_thumos_two_pass"}
    rest = set(published.cases) - decodes
    prefixes = ("bmn_snms_", "gtad_thumos_snms_", "gtad_anet_snms_", "actionformer_")
    assert all(name.startswith(prefixes) for name in rest)
    assert len(rest) == 24


def test_decodes_bmn_as_published(published: Published) -> None:
    given = [published.arrays[f"bmn_decode/in_{name}"] for name in ("start", "end", "map")]
    expected = published.arrays["bmn_decode/out"]
    segments_N2, scores_N = decode_bmn(*given)
    np.testing.assert_allclose(segments_N2 / 16, expected[:, :2], rtol=1e-12)
    np.testing.assert_allclose(scores_N, expected[:, 6], rtol=1e-6)
    np.testing.assert_allclose(scores_N, expected[:, 2:6].prod(axis=1), rtol=1e-6)


def test_decodes_gtad_as_published(published: Published) -> None:
    given = [published.arrays[f"bmn_decode/in_{name}"] for name in ("start", "end", "map")]
    anet, expected = decode_gtad_anet(*given), published.arrays["gtad_anet_decode/out"]
    np.testing.assert_allclose(anet.segments_N2 / 16, expected[:, :2], rtol=1e-12)
    np.testing.assert_allclose(anet.scores_N, expected[:, 2:].prod(axis=1), rtol=1e-6)
    thumos = decode_gtad_thumos(published.arrays["gtad_thumos_decode/in_map"])
    expected = published.arrays["gtad_thumos_decode/out"]
    np.testing.assert_allclose(thumos.segments_N2 * 5 + 640, expected[:, :2], rtol=1e-12)
    np.testing.assert_allclose(thumos.scores_N, expected[:, 2:].prod(axis=1), rtol=1e-6)


def check_kept(given_N3: np.ndarray, kept: Kept, expected_K3: np.ndarray) -> None:
    np.testing.assert_array_equal(given_N3[kept.index_K, :2], expected_K3[:, :2])
    np.testing.assert_allclose(kept.scores_K, expected_K3[:, 2], rtol=1e-12)


def test_soft_nms_as_published(published: Published) -> None:
    for name in published.named("bmn_snms_"):
        given, expected = (published.arrays[f"{name}/{end}"] for end in ("in", "out"))
        check_kept(given, soft_nms_bmn(given[:, :2], given[:, 2]), expected)
    for name in published.named("gtad_thumos_snms_"):
        given, expected = (published.arrays[f"{name}/{end}"] for end in ("in", "out"))
        check_kept(given, soft_nms_gtad(given[:, :2], given[:, 2], **FRAMES), expected)
    for name in published.named("gtad_anet_snms_"):
        given, expected = (published.arrays[f"{name}/{end}"] for end in ("in", "out"))
        check_kept(given, soft_nms_gtad(given[:, :2], given[:, 2], 0.8, 100), expected)


def test_two_passes_over_windows_as_published(published: Published) -> None:
    left = []
    for window in range(2):
        given = published.arrays[f"gtad_thumos_two_pass/in_window{window}"]
        kept = soft_nms_gtad(given[:, :2], given[:, 2], **FRAMES)
        left.append(np.column_stack([given[kept.index_K, :2], kept.scores_K]))
    union = np.concatenate(left)
    expected = published.arrays["gtad_thumos_two_pass/out"]
    check_kept(union, soft_nms_gtad(union[:, :2], union[:, 2], **FRAMES), expected)


def test_actionformer_as_published(published: Published) -> None:
    for name in published.named("actionformer_"):
        rule = published.cases[name]["params"]
        ends = ("segs", "scores", "labels")
        given = LabelledSegments(*(published.arrays[f"{name}/in_{end}"] for end in ends))
        expected = LabelledSegments(*(published.arrays[f"{name}/out_{end}"] for end in ends))
        nms = SegmentNms(
            is_soft=rule["use_soft_nms"],
            per_class=rule["multiclass"],
            sigma=rule["sigma"],
            min_score=rule["min_score"],
            num_kept=rule["max_seg_num"],
            iou_threshold=rule["iou_threshold"],
            voting_threshold=rule["voting_thresh"],
        )
        got = nms_actionformer(given, nms)
        np.testing.assert_array_equal(got.class_N, expected.class_N, err_msg=name)
        np.testing.assert_allclose(got.scores_N, expected.scores_N, rtol=2e-6, err_msg=name)
        np.testing.assert_allclose(got.segments_N2, expected.segments_N2, rtol=2e-6, err_msg=name)


def slow_soft_nms(rows: list[tuple[float, float, float]], sigma: float, most: int) -> list:
    """Pop the best, decay the rest, one by one."""
    rows, kept = sorted(rows, key=lambda row: -row[2]), []
    while len(rows) > 1 and len(kept) < most:
        best = max(rows, key=lambda row: row[2])
        if best[2] <= 0:
            break
        rows.remove(best)
        kept.append(best)
        for i, (start, end, score) in enumerate(rows):
            inter = max(0.0, min(end, best[1]) - max(start, best[0]))
            iou = inter / (end - start + best[1] - best[0] - inter)
            rows[i] = (start, end, score * float(np.exp(-(iou**2) / sigma)))
    return kept


@given(arrays(np.float64, (9, 3), elements=st.floats(0.01, 1), unique=True), st.integers(1, 9))
def test_soft_nms_is_the_slow_loop(rows_N3: np.ndarray, most: int) -> None:
    rows_N3 = np.column_stack([rows_N3[:, 0], rows_N3[:, 0] + rows_N3[:, 1], rows_N3[:, 2]])
    kept = soft_nms_gtad(rows_N3[:, :2], rows_N3[:, 2], 0.5, most)
    expected = slow_soft_nms([tuple(row) for row in rows_N3], 0.5, most)
    np.testing.assert_allclose(kept.scores_K, [row[2] for row in expected], rtol=1e-9)


def test_fusion_by_hand() -> None:
    proposal_M, class_M, fused_M = fuse_gtad(np.array([0.5, 0.25]), np.array([[0.2, 0.8, 0.4]]))
    assert proposal_M.tolist() == [0, 0, 1, 1]
    assert class_M.tolist() == [1, 2, 1, 2]
    np.testing.assert_allclose(fused_M, [0.4, 0.2, 0.2, 0.1])
    _, own_M, _ = fuse_gtad(np.array([1.0, 1.0]), np.array([[0.2, 0.8], [0.7, 0.1]]), 1)
    assert own_M.tolist() == [1, 0]
    np.testing.assert_allclose(
        fuse_actionformer(np.array([0.5]), np.array([[0.2, 0.8]]), 1)[2], [np.sqrt(0.4)]
    )


def test_nothing_gives_nothing() -> None:
    none = np.zeros((0, 2))
    assert len(soft_nms_bmn(none, np.zeros(0)).index_K) == 0
    assert len(soft_nms_gtad(none, np.zeros(0), 0.5, 10).index_K) == 0
    empty = LabelledSegments(none, np.zeros(0), np.zeros(0, np.int64))
    assert len(nms_actionformer(empty).scores_N) == 0
    assert len(nms_actionformer(empty, SegmentNms(per_class=False)).scores_N) == 0
