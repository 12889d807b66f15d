"""The preview page of the newer kinds: change points, pasted regions, pairs, lanes of classes."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_previews import LEAVES, TREES, Page, moving_bars, planned_source, preview, write_folder

from manifests import ShardError
from synth.boundary import BOUNDARY_CLASSES
from synth.codecs import ENCODERS
from synth.labels import LabelTrack, constant_track
from synth.preview import write_preview
from synth.preview_chart import draw_lanes
from synth.preview_marks import Part, draw_change, draw_over_strip, draw_parts, mark_tree
from synth.preview_show import MAX_FRAMES, show_sample
from synth.shards import ShardSample
from synth.tree import LabelledSize, clips_of, describe_sample, evaluate_frames, evaluate_labels

BOUNDARIES: dict[str, dict[str, Any]] = {
    "diff_class": {"op": "diff_class", "tau": 8, "eps": 3, "inputs": LEAVES},
    "same_class": {"op": "same_class", "tau": 8, "inputs": LEAVES},
    "diff_speed": {"op": "diff_speed", "tau": 8, "t": 5, "gamma": 2.0, "inputs": LEAVES[:1]},
    "same_speed": {"op": "same_speed", "tau": 8, "inputs": LEAVES[:1]},
}
LONGEST = 27  # frames of a source: diff-speed above reads 5 + 2 * 11


def leaf(source: int) -> dict[str, Any]:
    return {"op": "clip", "source": source}


def sized(*lengths: int) -> list[LabelledSize]:
    return [LabelledSize(constant_track(None, length), 32, 32) for length in lengths]


def composed(s: int, e: int, num_clips: int, first: int = 0) -> dict[str, Any]:
    """Return the tree of a composed video whose sources are numbered from `first`."""
    clips = [leaf(first + j) for j in range(num_clips)]
    inputs = [{"op": "concat", "inputs": clips}, leaf(first + num_clips)]
    return {"op": "paste", "s": s, "e": e, "beta": 0.75, "inputs": inputs}


def sample_of(kind: str, tree: dict[str, Any], sources: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a sample as (frames, meta), made of moving bars by the real operations."""
    clips = [moving_bars(number, source["num_frames"]) for number, source in enumerate(sources)]
    sizes = [
        LabelledSize(constant_track(source["label_id"], source["num_frames"]), 32, 32)
        for source in sources
    ]
    track = evaluate_labels(tree, sizes).track
    frames = [evaluate_frames(node, clips) for node in clips_of(tree).values()]
    meta = {
        "kind": kind,
        "num_frames": track.num_frames,
        "class_ids": track.class_ids.tolist(),
        "weights": track.weights_CT.tolist(),
        "tree": tree,
        "sources": sources,
        **describe_sample(tree, sizes),
    }
    return {"frames": frames[0] if len(frames) == 1 else np.stack(frames), "meta": meta}


def boundary_sample(name: str, **changes: Any) -> dict[str, Any]:
    labels = (1, 2) if name == "diff_class" else (1, 1)
    tree = BOUNDARIES[name]
    sources = [
        planned_source(f"v{number}", label, LONGEST)
        for number, label in enumerate(labels[: len(tree["inputs"])])
    ]
    sample = sample_of("boundary", tree, sources)
    sample["meta"] |= changes
    return sample


def pal_sample(num_clips: int = 8, clip_len: int = 8) -> dict[str, Any]:
    """Return a pair: clips 2..3 of the query and 3 of the key are the action."""
    sources = []
    for view, length in (("query", 2), ("key", 1)):
        for j in range(num_clips):
            source = planned_source(f"behind-{view}", None, clip_len)
            sources.append(source | {"start_frame": 20 * j, "frame_stride": 1})
        sources.append(planned_source("action", None, length * clip_len))
    views = [composed(2, 3, num_clips), composed(3, 3, num_clips, num_clips + 1)]
    return sample_of("pal", {"op": "pair", "inputs": views}, sources)


def clip_pair() -> dict[str, Any]:
    sources = [planned_source("one", None, 8) | {"start_frame": start} for start in (4, 90)]
    return sample_of("clip_pair", {"op": "pair", "inputs": LEAVES}, sources)


def annotated_sample(*runs: tuple[int, int, int]) -> dict[str, Any]:
    tree = {"op": "annotate", "segments": [list(run) for run in runs], "inputs": LEAVES[:1]}
    return sample_of("annotated", tree, [planned_source("untrimmed", None, 16)])


def lefts(page: Page, tag: str, style: str) -> list[float]:
    """Return how far from the left, in percent, the elements of a style begin."""
    found = [str(attributes["style"]) for attributes in page.all(tag, style)]
    return [float(re.findall(r"left:([\d.]+)%", text)[0]) for text in found]


# Boundaries


@pytest.fixture(scope="module")
def boundaries(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Return the page of 12 boundary samples: 1, 2, 4 and 5 of the classes, in this order."""
    names = [
        name
        for name, count in zip(BOUNDARY_CLASSES, (1, 2, 4, 5), strict=True)
        for _ in range(count)
    ]
    out = write_folder(
        tmp_path_factory.mktemp("boundary") / "b", [boundary_sample(name) for name in names]
    )
    return preview(out)


def test_every_boundary_class_is_shown_and_counted(boundaries: Page) -> None:
    assert "4 of 12 samples" in boundaries.text
    for name, count in zip(BOUNDARY_CLASSES, ("8.3", "16.7", "33.3", "41.7"), strict=True):
        assert f"{name}{round(float(count) * 0.12)} · {count} %" in boundaries.text
    shown = [boundaries.text.index(f"{name} {words}") for name, words in (
        ("diff_class", "Clip 1 dissolves"),
        ("same_class", "Clip 2, another video"),
        ("diff_speed", "After frame 5"),
        ("same_speed", "The clip at its own rate"),
    )]  # fmt: skip
    assert shown == sorted(shown)


def test_the_change_point_stands_between_the_right_frames(boundaries: Page) -> None:
    # Over the strip and under it: after 8 of 16 frames twice, after 5; none of same_speed.
    assert lefts(boundaries, "i", "mark") == [50, 50, 50, 50, 31.25, 31.25]
    assert boundaries.text.count("change point 8.5") == 2
    assert boundaries.text.count("change point 5.5") == 1


def test_the_parts_of_a_boundary_have_names(boundaries: Page) -> None:
    names = [
        str(span["title"])
        for span in boundaries.all("span")
        if "left" in str(span.get("style")) and "title" in span
    ]
    assert names == [
        *("clip 1", "both", "clip 2"),
        *("clip 1", "clip 2"),
        *("own rate", "2 times the rate"),
        "own rate",
    ]


def test_both_clips_show_on_every_frame_between_the_pure_parts() -> None:
    marks = mark_tree(BOUNDARIES["diff_class"], 16, sized(11, 11))
    assert marks.parts == (Part(0, 5, "clip 1"), Part(5, 10, "both"), Part(10, 16, "clip 2"))
    tracks = [LabelledSize(constant_track(label, 11), 32, 32) for label in (0, 1)]
    weights_CT = evaluate_labels(BOUNDARIES["diff_class"], tracks).track.weights_CT
    shared_T = np.flatnonzero((weights_CT > 0).all(axis=0))
    assert shared_T.tolist() == list(range(5, 10))


@given(st.integers(4, 40).flatmap(lambda tau: st.tuples(st.just(tau), st.integers(2, 2 * tau - 2))))
def test_a_mark_over_a_thinned_strip_parts_the_frames(numbers: tuple[int, int]) -> None:
    tau, t = numbers
    tree = {"op": "diff_speed", "tau": tau, "t": t, "gamma": 0.5, "inputs": LEAVES[:1]}
    marks = mark_tree(tree, 2 * tau, sized(2 * tau))
    positions = list(range(1, 2 * tau, 3))
    (left,) = re.findall(r"mark\" style=\"left:([\d.]+)%", draw_over_strip(marks, positions))
    before = round(float(left) / 100 * len(positions))
    assert [position + 1 <= t for position in positions] == [
        cell < before for cell in range(len(positions))
    ]
    (exact,) = re.findall(r"left:([\d.]+)%", draw_change(marks))
    assert float(exact) == pytest.approx(100 * t / (2 * tau), abs=0.01)


@pytest.mark.parametrize(
    "changes", [{"boundary_class": 3}, {"change_point": None}, {"change_point": 9.5}]
)
def test_a_boundary_that_its_tree_does_not_make_is_refused(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    out = write_folder(tmp_path / "bad", [boundary_sample("same_class", **changes)])
    with pytest.raises(ShardError, match=r"00000000 must say .*\(1, 8\.5\)"):
        write_preview(out, tmp_path / "page.html")


# Pairs


def test_a_composed_pair_has_two_strips_with_their_regions(tmp_path: Path) -> None:
    page = preview(write_folder(tmp_path / "pal", [pal_sample()]))
    assert len(page.all("article")) == 1
    assert len(page.all("div", "strip")) == 2
    assert len(page.frames()) == 2 * MAX_FRAMES
    regions = [str(frame["style"]) for frame in page.all("i", "region") if "style" in frame]
    assert regions == ["left:12.50%;width:25.00%", "left:25.00%;width:12.50%"]
    assert lefts(page, "i", "gap") == [12.5 * j for j in range(1, 8)] * 2
    for words in ("Query Clips 2 to 3", "Key Clip 3 shows", "16 of 64 frames", "action, beta 0.75"):
        assert words in page.text
    assert page.text.count("clip 8") == 2


def test_the_sources_of_a_background_are_one_line(tmp_path: Path) -> None:
    page = preview(write_folder(tmp_path / "pal", [pal_sample()]))
    assert "behind-query · 8 clips of 8 frames in frames 0–147" in page.text
    assert page.text.count("behind-query") == page.text.count("behind-key") == 1
    assert "action · frames 30–105, stride 5" in page.text
    assert "no label" not in page.text.replace("no label is read", "")


@pytest.mark.parametrize(("num_clips", "num_shown"), [(4, 16), (5, 15), (7, 14), (8, 16), (16, 16)])
def test_every_clip_of_a_composed_video_shows_equally_often(
    num_clips: int, num_shown: int, tmp_path: Path
) -> None:
    page = preview(write_folder(tmp_path / "pal", [pal_sample(num_clips, clip_len=6)]))
    frames = [int(str(image["title"]).split()[1]) - 1 for image in page.all("img")]
    assert len(frames) == 2 * num_shown
    counts = np.bincount(np.array(frames[:num_shown]) // 6, minlength=num_clips)
    assert counts.tolist() == [num_shown // num_clips] * num_clips


def test_a_pair_of_plain_clips_has_two_strips_and_no_chart(tmp_path: Path) -> None:
    page = preview(write_folder(tmp_path / "pair", [clip_pair()]))
    assert len(page.all("div", "strip")) == 2
    assert len(page.frames()) == 16
    assert not page.all("div", "chart")
    for words in ("Query", "Key", "one · frames 4–39, stride 5", "one · frames 90–125, stride 5"):
        assert words in page.text


@pytest.mark.parametrize("classes", [(), ("archery", "yoga")])
def test_a_dataset_without_labels_has_no_class_charts(
    classes: tuple[str, ...], tmp_path: Path
) -> None:
    page = preview(write_folder(tmp_path / "none", [pal_sample(), clip_pair()], classes))
    assert not page.all("div", "chart")
    assert "Share of" not in page.text
    assert "classes" not in page.text
    assert "background100.0 %" not in page.text


def test_a_clip_of_a_dataset_without_classes_has_a_strip_alone(tmp_path: Path) -> None:
    sample = sample_of("clip", leaf(0), [planned_source("v", None, 16)])
    page = preview(write_folder(tmp_path / "none", [sample], []))
    assert len(page.frames()) == 16
    assert not page.all("div", "chart")


# Annotated windows


def test_each_annotated_class_has_a_lane_under_its_frames(tmp_path: Path) -> None:
    sample = annotated_sample((2, 9, 16), (0, 1, 4), (0, 11, 12), (1, 3, 10))
    page = preview(write_folder(tmp_path / "annotated", [sample]))
    lanes = [str(name["style"]) for name in page.all("bdi") if "style" in name]
    assert lanes == ["left:0.00%", "left:12.50%", "right:0.00%"]  # in the order they begin
    assert len(page.all("div", "lane")) == 3
    assert not page.all("div", "chart")
    assert "The clip shows 4 annotated segments." in page.text
    titles = [str(span["title"]) for span in page.all("span") if "title" in span]
    assert titles[8] == "frame 9\njuggling balls 1.00\ntai chi 1.00"
    assert titles[2] == "frame 3\narchery 1.00\njuggling balls 1.00"


def test_shares_of_annotated_frames_may_exceed_one_together(tmp_path: Path) -> None:
    samples = [annotated_sample((0, 1, 16), (1, 1, 8)), annotated_sample()]
    text = preview(write_folder(tmp_path / "annotated", samples)).text
    for words in ("archery50.0 %", "juggling balls25.0 %", "background50.0 %"):
        assert words in text
    assert "Share of the frames" in text
    assert "No annotated segment lies in this window." in text


def test_a_lane_draws_each_run_of_its_class() -> None:
    weights_CT = np.array([[0.0, 1.0, 1.0, 0.0, 1.0, 0.0]])
    track = LabelTrack(np.array([3]), weights_CT, exclusive=False)
    lanes = draw_lanes(track, [3], ["a", "b", "c", "<d>"], {3: 0})
    (path,) = re.findall(r' d="(M[^"]+)"', lanes)
    edges = [float(x) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path) if y == "0"]
    assert (min(edges), max(edges)) == (1.0, 5.0)
    assert "<d>" not in lanes
    assert "&lt;d&gt;" in lanes


# Choosing, and what hostile files say


def test_samples_of_different_videos_are_chosen(tmp_path: Path) -> None:
    samples = [
        sample_of("clip", leaf(0), [planned_source(f"v{number % 3}", 0, 16)]) for number in range(9)
    ]
    # The middles of three equal parts alone would show v1 three times.
    page = preview(write_folder(tmp_path / "clips", samples))
    assert [page.text.count(f"v{number} ·") for number in range(3)] == [1, 1, 1]


@pytest.mark.parametrize(
    "tree",
    [
        {"op": "pair", "inputs": LEAVES[:1]},
        {"op": "pair", "inputs": [composed(2, 3, 8), {"op": "paste"}]},
        {"op": "pair", "inputs": [composed(3, 2, 8), composed(2, 3, 8)]},
        {"op": "pair", "inputs": [composed(2, 3, 8) | {"e": 10**300}, composed(2, 3, 8)]},
        {"op": "pair", "inputs": [composed(2, 3, 8) | {"beta": "half"}, composed(2, 3, 8)]},
        {"op": "pair", "inputs": [composed(2, 3, 80), composed(2, 3, 8)]},
        {"op": "pair", "inputs": [{"op": "annotate", "segments": 3, "inputs": LEAVES[:1]}] * 2},
    ],
)
def test_a_pair_that_does_not_say_how_it_was_made_is_named(
    tree: dict[str, Any], tmp_path: Path
) -> None:
    sample = pal_sample()
    sample["meta"]["tree"] = tree
    out = write_folder(tmp_path / "bad", [sample])
    with pytest.raises(ShardError, match="00000000 does not say how it was made"):
        write_preview(out, tmp_path / "page.html")


def test_numbers_without_an_end_are_refused() -> None:
    made = boundary_sample("diff_speed")
    meta = made["meta"] | {"tree": TREES["mixup"] | {"n1": float("inf")}}
    sample = ShardSample("00000007", {"npy": ENCODERS["raw"](made["frames"])}, meta)
    with pytest.raises(ShardError, match="00000007 does not say how it was made"):
        show_sample(sample, 4)


def test_the_names_of_parts_are_only_ever_text() -> None:
    tree = composed(2, 3, 8)
    marks = mark_tree(tree, 64, sized(*[8] * 8, 16))
    assert [(part.start, part.stop) for part in marks.parts] == [(0, 8), (8, 24), (24, 64)]
    assert marks.num_clips == 8
    hostile = Part(0, 64, "<b>\"'&")
    drawn = draw_parts(type(marks)(64, (hostile,)))
    assert "<b>&lt;b&gt;&quot;&#x27;&amp;</b>" in drawn
