"""The papers' numbers: known methods, no number twice, gains as the papers state them."""

import tomllib
from itertools import combinations
from pathlib import Path

import pytest

PAPERS = tomllib.loads(
    Path(__file__)
    .resolve()
    .parents[1]
    .joinpath("benchmarks", "pretraining", "papers.toml")
    .read_text(encoding="utf-8")
)
METHODS = {
    "ssdet": {
        *("classification", "frame_labels", "freeze", "freeze_x2", "mixup", "mixup_hard"),
        *("cutmix_window", "cutmix_view", "joint_single", "joint", "ensemble"),
    },
    "bsp": {
        *("classification", "cuts", "speeds", "boundaries", "regression", "two_stream"),
        *("two_head", "distillation"),
    },
    "pal": {
        *("classification", "moco", "dense", "dense_scale", "paste_same", "pal"),
        *("temporal_0", "temporal_1", "temporal_3"),
        *("beta_1", "beta_0_0.4", "beta_0.4_0.6", "beta_0_1"),
    },
}
GAIN_KEYS = {"family", "method", "benchmark", "classification", "value", "source"}
ABLATION_KEYS = {"family", "method", "over", "benchmark", "reference", "value", "source"}


def number(table: str, method: str, benchmark: str) -> float:
    """Return the one value of a method on a benchmark."""
    (value,) = (
        entry["value"]
        for entry in PAPERS[table]
        if (entry["method"], entry["benchmark"]) == (method, benchmark)
    )
    return value


@pytest.mark.parametrize(("table", "keys"), [("gains", GAIN_KEYS), ("ablations", ABLATION_KEYS)])
def test_every_entry_is_whole_and_of_a_known_method(table: str, keys: set[str]) -> None:
    assert PAPERS.keys() == {"gains", "ablations"}
    for entry in PAPERS[table]:
        assert entry.keys() == keys
        methods = METHODS[entry["family"]]
        assert entry["method"] in methods
        assert entry.get("over", "classification") in methods
        assert entry["method"] != entry.get("over", "classification")
        assert entry["source"].lower().startswith(entry["family"])


@pytest.mark.parametrize("table", ["gains", "ablations"])
def test_no_number_stands_twice(table: str) -> None:
    named = [(entry["method"], entry["benchmark"], entry["family"]) for entry in PAPERS[table]]
    assert len(set(named)) == len(named)


def test_scores_are_points_of_100_and_gains_small() -> None:
    for entry in PAPERS["gains"] + PAPERS["ablations"]:
        reference = entry.get("classification", entry.get("reference"))
        assert 1 < entry["value"] < 100
        assert abs(entry["value"] / reference - 1) < 0.2


@pytest.mark.parametrize(
    ("table", "base"), [("gains", "classification"), ("ablations", "reference")]
)
def test_a_benchmark_has_one_reference(table: str, base: str) -> None:
    for one, other in combinations(PAPERS[table], 2):
        if all(one.get(key) == other.get(key) for key in ("family", "benchmark", "over")):
            assert one[base] == other[base]


def test_gains_are_those_in_the_papers_prose() -> None:
    """PAL 4.2 and 4.3 and BSP 4.2 state their gains in words."""
    activitynet = "ActivityNet, G-TAD, mAP"

    def gain(method: str, benchmark: str) -> float:
        return number("gains", method, benchmark) - number("gains", "moco", benchmark)

    assert gain("pal", activitynet) == pytest.approx(3.1)
    assert gain("pal", "ActivityNet, BMN, AUC") == pytest.approx(2.8)
    (best,) = (e for e in PAPERS["gains"] if e["benchmark"] == "ActivityNet, G-TAD, mAP@0.5")
    assert best["value"] - best["classification"] == pytest.approx(0.93)
    steps = [number("ablations", name, activitynet) for name in ("dense", "dense_scale")]
    assert [step - 29.6 for step in steps] == pytest.approx([0.5, 1.1])
    pasted = [number("ablations", name, activitynet) for name in ("paste_same", "pal")]
    assert pasted[1] - pasted[0] == pytest.approx(0.7)
    assert pasted[1] - 29.6 == pytest.approx(3.2)


def test_means_of_thumos_are_those_of_the_five_columns() -> None:
    columns = {
        "moco": (41.5, 34.1, 25.8, 17.3, 7.9),
        "pal": (46.8, 40.3, 30.8, 19.3, 10.9),
    }
    for method, row in columns.items():
        assert number("gains", method, "THUMOS'14, G-TAD, mAP") == pytest.approx(sum(row) / 5)
        assert number("gains", method, "THUMOS'14, G-TAD, mAP@0.5") == row[2]
