"""Which videos a recipe can use: what is counted, and one sentence for what cannot be planned."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_plans import made_recipe, made_sources

from manifests import UsageError, read_sources
from synth.candidates import Candidates
from synth.recipe import read_recipe
from synth.selection import select_candidates

BOUNDARY = {"kinds": "{boundary = 1}", "frame_stride": 2}
PAL = {"kinds": "{pal = 1}", "frames": 16}
NO_LABEL = {"label": None, "label_id": None}


def length(num_frames: int) -> dict[str, int]:
    return {"num_frames": num_frames, "end_frame": num_frames}


def select(
    folder: Path, num_videos: int, recipe: dict[str, Any], **changes: Any
) -> tuple[Candidates, dict[str, Any]]:
    table = read_sources(made_sources(folder, num_videos, **changes))
    return select_candidates(read_recipe(made_recipe(folder, **recipe)), table, "sources.parquet")


def refusal(folder: Path, num_videos: int, recipe: dict[str, Any], **changes: Any) -> str:
    """Return the one sentence that such a plan is refused with."""
    with pytest.raises(UsageError) as caught:
        select(folder, num_videos, recipe, **changes)
    assert "\n" not in str(caught.value)
    assert "sources.parquet" in str(caught.value)
    return str(caught.value)


def test_videos_too_short_for_the_fastest_speed_are_counted(tmp_path: Path) -> None:
    # tau 4, gamma 4: at t = 2 frame 26 is read, of stride 2: 51 frames. 60 frames and more fit.
    changes = {"v001": length(51), "v002": length(50), "v003": length(15)}
    videos, counts = select(tmp_path, 6, BOUNDARY, **changes)
    assert (counts["videos"], counts["too_short"]) == (4, 2)
    assert "v001" in videos.video_ids
    assert not {"v002", "v003"} & set(videos.video_ids)
    slower = BOUNDARY | {"boundary": "{gammas = [0.25, 0.5]}"}
    assert select(tmp_path, 6, slower, **changes)[1]["too_short"] == 0  # 15: 8 frames x stride 2
    without = BOUNDARY | {"boundary": "{classes = {same_speed = 1, diff_speed = 0}}"}
    assert select(tmp_path, 6, without, **changes)[1]["too_short"] == 0


def test_if_no_video_is_long_enough_the_speed_is_named(tmp_path: Path) -> None:
    changes = dict.fromkeys(("v000", "v001", "v002"), length(50))
    sentence = refusal(tmp_path, 3, BOUNDARY, **changes)
    assert "diff_speed at gamma 4, which reads 26 frames x stride 2 (51 frames)" in sentence
    assert "the longest of 3 has 50" in sentence


def test_videos_alone_in_their_class_are_counted(tmp_path: Path) -> None:
    videos, counts = select(tmp_path, 4, BOUNDARY)  # classes 0 1 2 0
    assert counts["alone_in_class"] == 2
    assert videos.video_ids[videos.with_classmates].tolist() == ["v000", "v003"]
    assert select(tmp_path, 6, BOUNDARY)[1]["alone_in_class"] == 0
    without = BOUNDARY | {"boundary": "{classes = {diff_class = 1}}"}
    assert "alone_in_class" not in select(tmp_path, 4, without)[1]


@pytest.mark.parametrize(
    ("num_videos", "recipe", "says"),
    [
        (3, BOUNDARY, "same_class needs two videos of a class, but each of the 3 classes has one"),
        (1, BOUNDARY | {"boundary": "{classes = {same_class = 1}}"}, "same_class needs two videos"),
        (1, BOUNDARY | {"boundary": "{classes = {diff_class = 1}}"}, "at least two classes"),
        (3, {"kinds": "{joint = 1}"}, "kind 'joint' needs at least 4 videos, got 3"),
        (2, PAL, "kind 'pal' needs at least 3 videos, got 2"),
        (1, PAL | {"pal": '{background = "same"}'}, "kind 'pal' needs at least 2 videos, got 1"),
    ],
)
def test_too_few_videos_are_one_sentence(
    tmp_path: Path, num_videos: int, recipe: dict[str, Any], says: str
) -> None:
    assert says in refusal(tmp_path, num_videos, recipe)


def test_the_second_video_of_a_class_may_be_the_one_that_is_too_short(tmp_path: Path) -> None:
    sentence = refusal(tmp_path, 5, BOUNDARY, v003=length(50), v004=length(9))
    assert "each of the 3 classes has one usable video" in sentence


@pytest.mark.parametrize("kind", ["clip", "joint", "boundary"])
def test_single_clips_need_labels(tmp_path: Path, kind: str) -> None:
    sentence = refusal(tmp_path, 8, {"kinds": f"{{{kind} = 1}}", "frame_stride": 1}, v005=NO_LABEL)
    assert "every video needs a label, but 1 have none, first 'v005'" in sentence


@pytest.mark.parametrize("kinds", ["{pal = 1}", "{clip_pair = 1}", "{pal = 1, clip = 0}"])
def test_pairs_need_none(tmp_path: Path, kinds: str) -> None:
    bare = dict.fromkeys((f"v{number:03d}" for number in range(4)), NO_LABEL)
    videos, counts = select(tmp_path, 4, PAL | {"kinds": kinds, "frame_stride": 1}, **bare)
    assert counts["videos"] == len(videos) == 4


def test_pal_needs_one_clip_of_a_video_and_no_more(tmp_path: Path) -> None:
    changes = {"v000": length(2), "v001": length(1)}  # 16 frames in 8 clips: 2 each
    videos, counts = select(tmp_path, 4, PAL, **changes)
    assert (len(videos), counts["too_short"]) == (3, 1)
    every = dict.fromkeys((f"v{number:03d}" for number in range(4)), length(1))
    assert "no video is long enough for a clip of 2 frames" in refusal(tmp_path, 4, PAL, **every)


def made_candidates(labels: list[int]) -> Candidates:
    zeros = np.zeros(len(labels), np.int64)
    ids = np.array([f"v{n}" for n in range(len(labels))], object)
    return Candidates(ids, np.array(labels), zeros, zeros + 9, zeros + 48, zeros + 64)


@pytest.mark.parametrize("labels", [[0, 0], [0, 1], [2, 0, 2, 1, 2, 0], [5, 5, 5, 1]])
@pytest.mark.parametrize("partners", ["other", "other_class", "same_class"])
def test_others_are_uniform_among_those_that_fit(labels: list[int], partners: Any) -> None:
    videos, rng = made_candidates(labels), np.random.default_rng(0)
    for video in range(len(labels)):
        fitting = [n for n in range(len(labels)) if videos.fits(video, n, partners)]
        expected = {
            "other": [n for n in range(len(labels)) if n != video],
            "other_class": [n for n, label in enumerate(labels) if label != labels[video]],
            "same_class": [
                n for n, label in enumerate(labels) if label == labels[video] and n != video
            ],
        }
        assert fitting == expected[partners]
        if fitting:
            drawn = [videos.draw_other(rng, [video], partners) for _ in range(600)]
            counts = np.bincount(drawn, minlength=len(labels))[fitting]
            assert counts.sum() == 600
            share = 1 / len(fitting)
            assert (np.abs(counts - 600 * share) <= 5 * np.sqrt(600 * share * (1 - share))).all()


def test_others_are_none_of_those_shown() -> None:
    videos, rng = made_candidates([0, 1, 2, 0, 1]), np.random.default_rng(0)
    for shown in ([3], [0, 4], [4, 0, 2], [1, 2, 3, 0]):
        drawn = {videos.draw_other(rng, shown, "other") for _ in range(200)}
        assert drawn == set(range(5)) - set(shown)
