"""Similarity pictures: the number for encoders built to follow time or not, files, and refusals."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_stores import even_times, write_store
from made_videos import encode, stamped_frames
from matplotlib.image import imread
from test_retimed import stamp_encoder, stamps_of

from features import Encoder, FeatureStore, extract_features
from features.annotations import AnnotatedSegment, Annotations
from features.pictures.similarity import _Panel, _similarity, compare_similarity, draw_similarity
from manifests import (
    CheckpointError,
    SourceTable,
    SourceVideo,
    StoreError,
    UsageError,
    probe_video,
    read_sources,
    write_sources,
)

pytestmark = pytest.mark.slow

Embed = Callable[[torch.Tensor], torch.Tensor]


def moment(clips_NCTHW: torch.Tensor) -> torch.Tensor:
    """Say which moment of the video is shown: perfectly equivariant."""
    angle_N = stamps_of(clips_NCTHW).mean(1) / 30
    return torch.stack([torch.ones_like(angle_N), angle_N.cos(), angle_N.sin()], 1)


def nothing(clips_NCTHW: torch.Tensor) -> torch.Tensor:
    """Say the same of every clip: perfectly invariant."""
    return torch.tensor([[0.3, 0.2, 0.1]]).expand(len(clips_NCTHW), 3)


def speed(clips_NCTHW: torch.Tensor) -> torch.Tensor:
    """Say which moment is shown, and how fast: another at every speed."""
    stamps = stamps_of(clips_NCTHW)
    fast_N = (stamps[:, -1] - stamps[:, 0]).abs() / 7
    return torch.cat([moment(clips_NCTHW)[:, 1:], fast_N[:, None]], 1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> SourceTable:
    """Return a table of videos of 90 and of 61 frames, and one too short."""
    folder, found = tmp_path_factory.mktemp("similar"), []
    for name, num_frames in (("a/long", 90), ("b", 61), ("short", 9)):
        path = encode(folder / f"{num_frames}.mp4", stamped_frames(num_frames))
        found.append(replace(probe_video(str(path)), video_id=name))
    return table_of(folder, found)


def table_of(folder: Path, videos: list[SourceVideo]) -> SourceTable:
    write_sources(folder / "sources.parquet", videos, [])
    return read_sources(folder / "sources.parquet")


def store_of(
    folder: Path, videos: SourceTable | list[SourceVideo], embed: Embed
) -> tuple[FeatureStore, Encoder]:
    encoder = stamp_encoder(embed, 3)
    extract_features(videos, encoder, folder / "s.zarr", snippet_stride=4)
    return FeatureStore.open(folder / "s.zarr"), encoder


ANNOTATIONS = Annotations(
    ("jump", "spin"),
    {"a/long": (AnnotatedSegment(0.5, 1.5, 0), AnnotatedSegment(1.2, 99.0, 1))},
    {"a/long": "test"},
)


def test_an_encoder_of_moments_is_equivariant(tmp_path: Path, videos: SourceTable) -> None:
    """Near 1 for every re-timing; a picture per video that has enough snippets, always alike."""
    store, encoder = store_of(tmp_path, videos, moment)
    report, again = (
        draw_similarity(store, out, annotations=ANNOTATIONS, checkpoint=encoder, sources=videos)
        for out in (tmp_path / "out", tmp_path / "again")
    )
    assert set(report.equivariance) == set(report.pictures) == {"a/long", "b"}
    assert all(value > 0.99 for value in report.per_retiming.values())
    assert list(report.per_retiming) == ["twice as fast", "half as fast", "halves swapped"]
    assert report.equivariance == again.equivariance
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["a%2Flong.png", "b.png"]
    for name in names:
        content = (tmp_path / "out" / name).read_bytes()
        assert content == (tmp_path / "again" / name).read_bytes()
    assert report.lines() == [
        "temporal equivariance 1.00 (twice as fast 1.00, half as fast 1.00, halves swapped 1.00)",
        f"2 pictures in {tmp_path / 'out'}",
    ]


def test_an_encoder_that_knows_nothing_of_time(tmp_path: Path, videos: SourceTable) -> None:
    """One that says the same of everything gets 0, for every re-timing."""
    store, encoder = store_of(tmp_path, [videos[0]], nothing)
    report = draw_similarity(store, tmp_path / "out", checkpoint=encoder, sources=videos)
    assert set(report.per_retiming.values()) == {0.0}
    assert report.mean == 0


def test_an_encoder_of_speed_loses_by_it(tmp_path: Path, videos: SourceTable) -> None:
    """It still follows what is only moved."""
    store, encoder = store_of(tmp_path, [videos[0]], speed)
    report = draw_similarity(store, tmp_path / "out", checkpoint=encoder, sources=videos)
    assert report.per_retiming["halves swapped"] > 0.95
    assert 0.2 < report.per_retiming["twice as fast"] < 0.9
    assert 0.2 < report.per_retiming["half as fast"] < 0.9


def test_without_a_checkpoint_the_video_alone_is_drawn(tmp_path: Path) -> None:
    """The matrix lies where it should: similar halves are bright, the rest is dark."""
    feats_SD = np.repeat(np.eye(2), 10, axis=0)
    store = write_store(tmp_path / "s.zarr", {"v": (feats_SD, even_times(20))})
    report = draw_similarity(store, tmp_path / "out")
    assert math.isnan(report.mean)
    assert report.to_dict() == {
        "temporal_equivariance": None,
        "per_retiming": {},
        "per_video": {},
        "pictures": {"v": str(tmp_path / "out" / "v.png")},
    }
    assert report.lines() == [f"1 picture in {tmp_path / 'out'}"]
    picture = imread(report.pictures["v"])[..., :3] * 255
    yellow = abs(picture - [253, 231, 37]).max(2) < 3
    purple = abs(picture - [68, 1, 84]).max(2) < 3
    matrix = yellow | purple
    matrix[:, matrix.mean(axis=0) < 0.4] = False  # the colour bar
    (top, bottom), (left, right) = ((i.min(), i.max()) for i in matrix.nonzero())
    assert bottom - top == pytest.approx(right - left, abs=2)
    assert bottom - top > picture.shape[0] / 2
    half, across = (top + bottom) // 2 - 3, (left + right) // 2 - 3
    assert yellow[top + 3 : half, left + 3 : across].mean() > 0.95
    assert purple[top + 3 : half, across + 9 : right - 3].mean() > 0.95
    assert purple[half + 9 : bottom - 3, left + 3 : across].mean() > 0.95
    assert yellow[half + 9 : bottom - 3, across + 9 : right - 3].mean() > 0.95


def test_stores_side_by_side_have_scales_of_their_own(tmp_path: Path) -> None:
    """Two encoders that tell the same halves apart look alike, however little one of them does."""
    far_SD, near_SD = np.repeat(np.eye(2), 10, axis=0), np.repeat([[1, 0.5], [1, 0]], 10, axis=0)
    stores = {
        name: write_store(tmp_path / f"{name}.zarr", {"v": (feats_SD, even_times(20))})
        for name, feats_SD in (("far", far_SD), ("near", near_SD))
    }
    annotations = Annotations(("jump",), {"v": (AnnotatedSegment(0.0, 10.0, 0),)}, {"v": "test"})
    for name in ("a.png", "b.png"):
        compare_similarity(stores, "v", tmp_path / name, annotations=annotations)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = imread(tmp_path / "a.png")[..., :3] * 255
    purple = abs(picture - [68, 1, 84]).max(2) < 3
    left, right = np.array_split(purple.sum(axis=0), 2)
    assert left.sum() == pytest.approx(right.sum(), rel=0.05)
    assert purple.mean() > 0.1
    with pytest.raises(StoreError, match="video 'x' is not in the store"):
        compare_similarity(stores, "x", tmp_path / "x.png")


def test_many_snippets_are_thinned_for_the_picture() -> None:
    """Of 2,000 snippets 400 are drawn, from the first to the last; few are drawn as they are."""
    feats_SD = np.random.default_rng(0).normal(size=(2000, 3))
    for number, drawn in ((2000, 400), (400, 400), (5, 5)):
        times_S3 = even_times(number)
        panel = _Panel("", feats_SD[:number], times_S3, (), (0.0, float(number)))
        edges, similar_SS = _similarity(panel)
        assert similar_SS.shape == (drawn, drawn)
        assert (len(edges), edges[0], edges[-1]) == (drawn + 1, 0, number)
        assert (np.diff(edges) > 0).all()
        np.testing.assert_allclose(np.diag(similar_SS), 1)
    np.testing.assert_array_equal(edges, [0, 1, 2, 3, 4, 5])


def test_refusals_in_one_sentence(tmp_path: Path, videos: SourceTable) -> None:
    """Before anything is written."""
    rows = {"v": (np.eye(5), even_times(5)), "tiny": (np.eye(5)[:2], even_times(2))}
    store, out = write_store(tmp_path / "s.zarr", rows), tmp_path / "out"
    encoder = replace(stamp_encoder(), weights_digest="b" * 64)
    with pytest.raises(StoreError, match="video 'x' is not in the store"):
        draw_similarity(store, out, videos=["v", "x"])
    with pytest.raises(UsageError, match="at least 3 snippets, but video 'tiny' has 2"):
        draw_similarity(store, out, videos=["tiny"])
    with pytest.raises(UsageError, match="a checkpoint and sources, got only a checkpoint"):
        draw_similarity(store, out, checkpoint=encoder)
    with pytest.raises(UsageError, match="a checkpoint and sources, got only sources"):
        draw_similarity(store, out, sources=videos)
    with pytest.raises(UsageError, match="video 'v' of the store is not in the sources table"):
        draw_similarity(store, out, sources=videos, checkpoint=encoder)
    table = table_of(tmp_path, [replace(videos[0], video_id="v")])
    with pytest.raises(CheckpointError, match="the run that made the store"):
        draw_similarity(store, out, sources=table, checkpoint=encoder)
    tiny = write_store(tmp_path / "t.zarr", {"tiny": rows["tiny"]})
    with pytest.raises(UsageError, match=r"no video of .* has so many"):
        draw_similarity(tiny, out)
    guesses = write_store(tmp_path / "p.zarr", rows, prediction={"classes": ["a"]})
    with pytest.raises(UsageError, match="holds class probabilities"):
        draw_similarity(guesses, out)
    assert not out.exists()
