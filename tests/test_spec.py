"""The FeatureSpec: what it names, what it leaves out, and what it refuses."""

from dataclasses import replace

import pytest

from features import FeatureSpec
from manifests import StoreError

SPEC = FeatureSpec(
    backbone="toy",
    backbone_arguments={"size": "M"},
    weights_digest="0" * 64,
    feature_dim=20,
    snippet_len=8,
    snippet_stride=4,
    height=112,
    width=112,
    short_side=112,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)
# Of SPEC, as the first version of the store computed it.
FIRST_DIGEST = "c1c673ac72c8945efff78a302e43f9f1870f2e9eea8a3234fb55506210f3699a"


def stream(name: str, feature_dim: int) -> dict[str, object]:
    return {"name": name, "feature_dim": feature_dim, "backbone": "toy", "mean": [0.5] * 3}


def test_specs_of_the_first_version_keep_their_digest():
    assert "streams" not in SPEC.to_dict()
    assert SPEC.digest == FIRST_DIGEST


def test_every_new_field_changes_the_digest_and_survives_a_round_trip():
    changes = [
        {"crop": "three"},
        {"crop": "three", "crop_pooling": "keep", "feature_dim": 60},
        {"alignment": "centre"},
        {"window_len": 16, "window_stride": 8, "pooling": "frame"},
        {"interpolation": "bicubic"},
        {"streams": (stream("a", 4), stream("b", 16)), "backbone": "streams"},
    ]
    specs = [SPEC, *(replace(SPEC, **change) for change in changes)]
    assert len({spec.digest for spec in specs}) == len(specs)
    for spec in specs:
        assert FeatureSpec.from_dict(spec.to_dict()) == spec


def test_channels_of_streams_and_of_kept_crops_follow_each_other():
    assert SPEC.channel_ranges == {"toy": (0, 20)}
    streams = (stream("rgb", 6), stream("flow", 12))
    two = replace(SPEC, feature_dim=18, streams=streams)
    assert two.channel_ranges == {"rgb": (0, 6), "flow": (6, 18)}
    three = replace(two, crop="three", crop_pooling="keep")
    assert three.channel_ranges == {
        "rgb.first": (0, 2),
        "rgb.centre": (2, 4),
        "rgb.last": (4, 6),
        "flow.first": (6, 10),
        "flow.centre": (10, 14),
        "flow.last": (14, 18),
    }
    ten = replace(SPEC, crop="ten", crop_pooling="keep")
    assert list(ten.channel_ranges)[4:6] == ["toy.centre", "toy.top_left_mirrored"]
    assert list(ten.channel_ranges.values())[-1] == (18, 20)
    assert replace(SPEC, crop="ten").channel_ranges == {"toy": (0, 20)}


def test_differences_are_named_stream_by_stream():
    mine = replace(SPEC, streams=(stream("rgb", 4), stream("flow", 16)))
    other = (stream("rgb", 4), stream("flow", 16) | {"mean": [0.0] * 3})
    theirs = replace(SPEC, streams=other, alignment="centre")
    assert mine.differences(theirs) == {
        "alignment": ("left", "centre"),
        "streams.flow.mean": ([0.5] * 3, [0.0] * 3),
    }
    assert SPEC.differences(replace(SPEC, crop="three")) == {"crop": ("centre", "three")}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"crop": "five"}, "crop must be one of"),
        ({"crop": ["centre"]}, "impossible"),
        ({"crop_pooling": "max"}, "'mean' or 'keep'"),
        ({"alignment": "right"}, "'left' or 'centre', got 'right'"),
        ({"window_len": 0}, "sizes >= 1, got 0"),
        ({"backbone": ["toy"]}, "impossible: backbone must be a text"),
        ({"interpolation": 5}, "impossible: interpolation must be a text"),
        ({"prediction": "softmax"}, "impossible: prediction must be a record"),
        ({"streams": 5}, "impossible"),
        ({"streams": ["rgb"]}, "impossible"),
        ({"streams": [{"name": "rgb"}]}, "must add up"),
        ({"streams": [{"name": "rgb", "feature_dim": 19}]}, "must add up"),
        ({"streams": [stream("rgb", 10), stream("rgb", 10)]}, "names, each another"),
        ({"streams": [stream("", 20)]}, "names, each another"),
        ({"streams": [stream("rgb", 20)], "crop": "three", "crop_pooling": "keep"}, "all 3 crops"),
    ],
)
def test_impossible_specs_are_refused(change, sentence):
    with pytest.raises(StoreError, match=sentence):
        FeatureSpec.from_dict(SPEC.to_dict() | change)
