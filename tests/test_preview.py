"""The preview page: its curves, its colours, and what it does with hostile input."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_previews import LEAVES, TREES, Page, made_sample, planned_source, preview, write_folder

from manifests import ShardError, UsageError
from manifests.build import build_sources
from synth.dataset import read_dataset
from synth.job import render_plan
from synth.mixup import Overlap, mixing_weights
from synth.plan_files import write_plan
from synth.preview import write_preview
from synth.preview_chart import band_path, dots_path, widest_place
from synth.preview_page import assign_colours
from synth.preview_show import MAX_FRAMES
from synth.preview_style import PALETTE
from synth.shards import shard_path


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 4 samples of every kind in 3 shards, and two rejected ones."""
    samples = [made_sample(number, list(TREES)[number % 5]) for number in range(20)]
    out = tmp_path_factory.mktemp("preview") / "five-kinds"
    return write_folder(out, samples, rejected=["cannot be opened", "cannot be opened"])


# Curves


def points(path: str) -> list[tuple[float, float]]:
    pairs = re.findall(r"[ML]([\d.e-]+) ([\d.e-]+)", path)
    return [(float(x), float(y)) for x, y in pairs]


def test_a_slope_runs_through_the_middles_and_a_step_stays_a_step() -> None:
    nothing = np.zeros(2)
    slope = "M0 0L0.5 0L1.5 0.2L2 0.2L2 1L1.5 1L0.5 1L0 1Z"
    step = "M0 0L0.5 0L1 0L1 1L1.5 1L2 1L2 1L1.5 1L0.5 1L0 1Z"
    assert band_path(nothing, np.array([1.0, 0.8])) == slope
    assert band_path(nothing, np.array([1.0, 0.0])) == step


@given(st.integers(2, 40).flatmap(lambda r: st.tuples(st.just(r), st.integers(3, 40))))
def test_the_edge_of_a_mix_is_the_formula(numbers: tuple[int, int]) -> None:
    r, overlap = numbers
    mix = Overlap(n1=r + overlap, n2=overlap + 4, r=r)
    weight_T = mixing_weights(mix)
    upper = dict(points(band_path(np.zeros_like(weight_T), weight_T))[: len(weight_T) + 2])
    drawn = [1 - upper[t + 0.5] for t in range(len(weight_T))]
    np.testing.assert_allclose(drawn, weight_T, atol=1e-3)


def test_dots_stand_where_two_classes_share_a_frame() -> None:
    assert dots_path(np.zeros(4), np.array([1.0, 0.75, 0.0, 0.25])) == "M1.5 0.25h0M3.5 0.75h0"


def test_names_stand_where_the_band_is_high() -> None:
    upper_T = np.array([1.0, 1.0, 1.0, 0.5, 0.1, 0.0])
    assert widest_place(np.zeros(6), upper_T) == (0, 3, 0.5)
    assert widest_place(np.full(6, 0.8), np.ones(6)) is None


# Colours


def linear(colour: str) -> np.ndarray:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    srgb = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize(("fill", "ink"), PALETTE)
def test_names_are_legible_on_their_colour(fill: str, ink: str) -> None:
    darker, lighter = sorted(
        float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (fill, ink)
    )
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5  # WCAG 2, level AA


# Machado et al. 2009, severity 1.0, on linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colours_stay_apart_for_every_eye(deficiency: str) -> None:
    colours = np.stack([linear(fill) for fill, _ in PALETTE])
    seen = np.clip(colours @ np.array(DEFICIENCIES[deficiency]).T, 0, 1)
    srgb = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = cv2.cvtColor(srgb[None].astype(np.float32), cv2.COLOR_RGB2LAB)[0]
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    assert distances[~np.eye(len(lab), dtype=bool)].min() > 12


@given(st.lists(st.lists(st.integers(0, 60), max_size=3, unique=True), max_size=30))
def test_classes_of_a_sample_never_share_a_colour(groups: list[list[int]]) -> None:
    colours = assign_colours(groups)
    assert set(colours) == {class_id for group in groups for class_id in group}
    assert all(0 <= colour < len(PALETTE) for colour in colours.values())
    beside: dict[int, set[int]] = {class_id: set() for class_id in colours}
    for group in groups:
        for class_id in group:
            beside[class_id] |= set(group)
    for class_id, others in beside.items():
        if all(len(beside[other]) <= len(PALETTE) for other in others):
            taken = [colours[other] for other in others if other != class_id]
            assert colours[class_id] not in taken


# The page


def test_the_page_shows_every_kind_with_its_frames(all_kinds: Path) -> None:
    report = write_preview(all_kinds, all_kinds.parent / "page.html", samples_per_kind=2)
    content = report.path.read_text(encoding="utf-8")
    page = Page(content)
    assert (report.num_samples, report.num_shown) == (20, 10)
    assert report.kinds == dict.fromkeys(TREES, 4)
    assert report.num_bytes == report.path.stat().st_size
    assert len(page.all("section")) == 5
    assert len(page.all("article", "sample")) == 10
    frames = page.frames()
    assert len(frames) == 10 * 16
    assert {frame.shape for frame in frames} == {(112, 112, 3)}
    for words in ("five-kinds", "2 of 4 samples", "2 rejected: cannot be opened", "filmstrip"):
        assert words in page.text
    digest = read_dataset(all_kinds).digest
    assert digest in content


def test_frozen_frames_are_the_same_picture(all_kinds: Path) -> None:
    page = preview(all_kinds, samples_per_kind=1)
    freeze = page.frames()[16:32]  # after the sample of kind clip; frame 5 stays for 7
    assert all(np.array_equal(freeze[4], freeze[t]) for t in range(5, 11))
    assert not np.array_equal(freeze[4], freeze[3])
    assert not np.array_equal(freeze[4], freeze[11])


def test_the_page_refers_to_nothing_outside_itself(all_kinds: Path) -> None:
    page = preview(all_kinds)
    assert not {name for name, _ in page.elements} & {"script", "link", "iframe", "object"}
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert str(attributes.get("src", "data:image/jpeg;base64,")).startswith("data:image/jpeg")
        assert str(attributes.get("href", "#")).startswith("#")
    content = (all_kinds.parent / "five-kinds.html").read_text(encoding="utf-8")
    assert "http" not in content.replace("http-equiv", "")
    assert "url(" not in content


def test_the_same_folder_gives_the_same_page(all_kinds: Path, tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write_preview(all_kinds, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


@pytest.mark.parametrize("codec", ["h264", "raw"])
def test_every_codec_shows_the_same_frames(codec: str, all_kinds: Path, tmp_path: Path) -> None:
    samples = [made_sample(number, list(TREES)[number % 5]) for number in range(5)]
    expected = preview(write_folder(tmp_path / "jpg", samples), samples_per_kind=1).frames()
    page = preview(write_folder(tmp_path / codec, samples, codec=codec), samples_per_kind=1)
    difference = np.abs(np.stack(page.frames()).astype(int) - np.stack(expected))
    assert difference.mean() < 4
    assert codec in page.text


def test_long_samples_are_thinned_and_say_so(tmp_path: Path) -> None:
    out = write_folder(tmp_path / "long", [made_sample(0, "clip", num_frames=40)])
    page = preview(out)
    assert len(page.frames()) == MAX_FRAMES
    assert "The strip shows 16 of 40 frames." in page.text
    assert not page.all("path", "rule")
    assert len([span for span in page.all("span") if "title" in span]) == 40


def test_class_shares_are_those_of_the_labels(tmp_path: Path) -> None:
    # 9 of 16 frames are archery, 7 are frozen; beside 16 frames of juggling balls
    samples = [made_sample(0, "freeze"), made_sample(1, "clip")]
    text = preview(write_folder(tmp_path / "shares", samples)).text
    for words in ("archery28.1 %", "juggling balls50.0 %", "background21.9 %"):
        assert words in text
    assert "2 classes without a frame." in text


def test_names_from_files_are_only_ever_text(tmp_path: Path) -> None:
    hostile = '<script>alert("x")</script>\'"&<img src=http://x/>'
    sample = made_sample(0, "clip", tree={"op": hostile, "n": hostile, "inputs": []})
    sample["meta"]["sources"][0]["video_id"] = hostile + "\ud800"
    sample["meta"]["kind"] = hostile
    out = write_folder(tmp_path / "hostile <b>", [sample], [hostile, "b"], rejected=[hostile])
    page = preview(out)
    assert not page.all("script")
    assert {str(image["src"])[:5] for image in page.all("img")} == {"data:"}
    assert page.text.count(hostile) >= 5
    assert "hostile <b>" in page.text


def test_a_dataset_of_nothing_but_rejects_has_a_page(tmp_path: Path) -> None:
    page = preview(write_folder(tmp_path / "none", [], rejected=["is too short"]))
    assert "1 rejected: is too short" in page.text
    assert not page.all("img")


def test_a_clip_without_a_label_is_all_background(tmp_path: Path) -> None:
    sample = made_sample(0, "clip", class_ids=[], weights=[])
    sample["meta"]["sources"][0]["label_id"] = None
    page = preview(write_folder(tmp_path / "unlabelled", [sample]))
    assert "no label" in page.text
    assert "background100.0 %" in page.text


# Errors


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_ids": [4]}, "below the number of classes 4, got 4"),
        ({"class_ids": [1, 0], "weights": [[1] * 16] * 2}, "has no label track"),
        ({"tree": {"op": "freeze", "inputs": LEAVES[:1]}}, "does not say how it was made"),
        ({"tree": None}, "does not say how it was made"),
        ({"sources": [{"video_id": "v"}]}, "does not say how it was made"),
        ({"sources": [planned_source("v", 9, 16)]}, "below the number of classes 4, got 9"),
    ],
)
def test_a_sample_that_contradicts_itself_is_named(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    out = write_folder(tmp_path / "bad", [made_sample(0, "clip", **changes)])
    with pytest.raises(ShardError, match=f"00000000.*{words}|{words}.*00000000"):
        write_preview(out, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_folders_that_cannot_be_shown(all_kinds: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    with pytest.raises(UsageError, match="no such folder"):
        write_preview(tmp_path / "nowhere", page)
    with pytest.raises(UsageError, match="samples_per_kind must be >= 1, got 0"):
        write_preview(all_kinds, page, samples_per_kind=0)
    with pytest.raises(UsageError, match="the page must be a file, got the folder"):
        write_preview(all_kinds, tmp_path)
    copy = shutil.copytree(all_kinds, tmp_path / "copy")
    with open(shard_path(copy, 1), "r+b") as file:
        file.truncate(1000)
    with pytest.raises(ShardError, match="bytes but has 1000 bytes"):
        write_preview(copy, page)
    (copy / "dataset.json").unlink()
    with pytest.raises(UsageError, match="not finished"):
        write_preview(copy, page)


# Real clips


@pytest.mark.slow
def test_real_clips_from_files_to_page(shared: Path, tmp_path: Path) -> None:
    for name in ("archery", "tai_chi", "yoga", "hammering"):
        folder = shared / "data" / "clips" / "trimmed" / name
        (tmp_path / "clips").mkdir(exist_ok=True)
        shutil.copytree(folder, tmp_path / "clips" / name)
    build_sources(tmp_path / "clips", tmp_path / "sources.parquet", workers=1)
    kinds = ", ".join(f"{kind} = 1" for kind in TREES)
    recipe = f"[synth]\nkinds = {{ {kinds} }}\nsamples_per_video = 4\nfreeze.segments = 2\n"
    (tmp_path / "recipe.toml").write_text(recipe + 'mixup.boundary = "hard"\n')
    write_plan(tmp_path / "recipe.toml", tmp_path / "sources.parquet", tmp_path / "plan")
    render_plan(tmp_path / "plan", tmp_path / "out", workers=0)
    report = write_preview(tmp_path / "out", tmp_path / "page.html")
    page = Page(report.path.read_text(encoding="utf-8"))
    counts = json.loads((tmp_path / "out" / "dataset.json").read_text())["kinds"]
    assert dict(report.kinds) == counts
    assert len(page.frames()) == 16 * report.num_shown
    assert report.num_bytes < 250_000 * report.num_shown
