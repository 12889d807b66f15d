"""The report of the pretraining experiment: intervals that hold the truth, tables, figures."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from made_proof import METHODS, STEPS, made_table, write_made
from matplotlib.image import imread

import benchmarks.pretraining as package
from benchmarks.marks import replace_between
from benchmarks.pretraining.comparisons import (
    LINEAR,
    METRICS,
    Metric,
    Results,
    read_results,
    results_of,
)
from benchmarks.pretraining.experiment import Experiment
from benchmarks.pretraining.figures import draw_curves, draw_gains, draw_headline
from benchmarks.pretraining.grid import read_grid
from benchmarks.pretraining.intervals import Interval, interval, paired, widening
from benchmarks.pretraining.papers import PaperGain, read_papers
from benchmarks.pretraining.records import video_weights
from benchmarks.pretraining.report import make_pretexts
from benchmarks.pretraining.tables import write_tables
from manifests import UsageError

NUM_VIDEOS = 30


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(made_table())


# ---------------------------------------------------------------- intervals


def test_an_interval_of_one_seed_is_of_the_videos_alone() -> None:
    """0, 1, ... 100: the 2.5th percentile is 2.5; the only seed always draws itself."""
    found = interval(np.array([50.0]), np.arange(101.0)[None])
    assert found == Interval(50.0, 2.5, 97.5, 1)


def test_seeds_and_videos_that_agree_leave_no_interval() -> None:
    found = interval(np.full(3, 0.5), np.full((3, 40), 0.5))
    assert found == Interval(0.5, 0.5, 0.5, 3)


def test_an_interval_of_seeds_is_widened_as_by_hand() -> None:
    """Two seeds, 0 and 1: means of draws are 0, 0.5 and 1, each 0.5 * factor away from 0.5 at most.

    sqrt(2) * 12.706 / 1.960 = 9.168: 0.5 - 4.584 and 0.5 + 4.584.
    """
    found = interval(np.array([0.0, 1.0]), np.repeat([[0.0], [1.0]], 400, axis=1))
    assert (found.mean, found.num_seeds) == (0.5, 2)
    assert (found.low, found.high) == pytest.approx((-4.084, 5.084), abs=1e-3)


@pytest.mark.parametrize(
    ("num_seeds", "factor"),
    [(1, 1.0), (2, 9.168), (3, 2.689), (5, 1.584), (10, 1.2165), (40, 1.1687)],
)
def test_fewer_seeds_are_widened_more(num_seeds: int, factor: float) -> None:
    """sqrt(S / (S - 1)) * t / z; of more than ten seeds the t of ten."""
    assert widening(num_seeds) == pytest.approx(factor, abs=2e-3)


@pytest.mark.parametrize("num_seeds", [3, 5])
@pytest.mark.parametrize(
    "spreads",
    [(0.04, 1.0, 0.3), (0.3, 1.0, 0.3), (1.0, 0.5, 0.3), (0.05, 0.3, 1.0)],
    ids=["videos", "both", "seeds", "neither"],
)
def test_about_95_of_100_intervals_hold_the_truth(
    num_seeds: int, spreads: tuple[float, float, float]
) -> None:
    """Whatever the spread is of: seeds, videos, or each video of each seed by itself."""
    weights_BV = video_weights(NUM_VIDEOS, 250) / NUM_VIDEOS
    held = []
    for trial in range(200):
        rng = np.random.default_rng(np.random.SeedSequence(7, spawn_key=(trial,)))
        of_seed, of_video, of_both = spreads
        values_SV = of_seed * rng.normal(size=(num_seeds, 1)) + of_video * rng.normal(
            size=(1, NUM_VIDEOS)
        )
        values_SV = values_SV + of_both * rng.normal(size=(num_seeds, NUM_VIDEOS))
        found = interval(values_SV.mean(axis=1), values_SV @ weights_BV.T, trial)
        held.append(found.low <= 0 <= found.high)
    assert np.mean(held) >= 0.9  # of 200: more than three standard errors below 95 %


def test_without_the_widening_few_seeds_would_be_trusted_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The simulation above can fail: seeds that differ, drawn with replacement and nothing more."""
    monkeypatch.setattr("benchmarks.pretraining.intervals.widening", lambda num_seeds: 1.0)
    with pytest.raises(AssertionError):
        test_about_95_of_100_intervals_hold_the_truth(5, (1.0, 0.5, 0.3))


def test_videos_hard_for_both_cancel_in_a_difference() -> None:
    """A method that gains 0.1 of every video: sure, however unlike the videos are."""
    weights_BV = video_weights(NUM_VIDEOS, 300) / NUM_VIDEOS
    rng = np.random.default_rng(0)
    base_SV = rng.normal(size=(3, 1)) + rng.normal(size=(1, NUM_VIDEOS))
    base = base_SV.mean(axis=1), base_SV @ weights_BV.T
    found = paired(base[0] + 0.1, base[1] + 0.1, *base)
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.sign == "+"
    assert interval(base[0] + 0.1, base[1] + 0.1).sign == "0"
    assert paired(*base, base[0] + 0.1, base[1] + 0.1).sign == "-"


@pytest.mark.parametrize(
    ("low", "high", "sign"),
    [
        (0.1, 0.2, "+"),
        (-0.2, -0.1, "-"),
        (-0.1, 0.1, "0"),
        (0.0, 0.1, "0"),
        (math.nan,) * 2 + ("0",),
    ],
)
def test_a_sign_needs_the_whole_interval(low: float, high: float, sign: str) -> None:
    assert Interval(0.0, low, high, 3).sign == sign


def test_resamples_without_a_score_are_left_out() -> None:
    """Where one seed has none, the others are not asked; without any there is no interval."""
    resampled_SB = np.array([[0.5, np.nan, 0.5], [0.5, 9.0, 0.5]])
    found = interval(np.array([0.5, 0.5]), resampled_SB)
    assert (found.low, found.high) == (0.5, 0.5)
    nothing = interval(np.array([0.5, 0.5]), np.full((2, 4), np.nan))
    assert math.isnan(nothing.low)
    assert math.isnan(nothing.high)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        interval(np.zeros(0), np.zeros((0, 9)))
    with pytest.raises(ValueError, match="at least one"):
        interval(np.zeros(2), np.zeros((3, 9)))
    with pytest.raises(ValueError, match="the same seeds"):
        paired(np.zeros(3), np.zeros((3, 9)), np.zeros(2), np.zeros((2, 9)))


# ---------------------------------------------------------------- results


def test_results_are_read_as_they_were_written(tmp_path: Path, results: Results) -> None:
    read = read_results(write_made(tmp_path / "results.parquet"))
    assert read.scores.keys() == results.scores.keys()
    assert read.steps("ssdet") == list(STEPS)
    assert read.main_metrics("bsp") == [Metric("gtad", "map"), Metric("bmn", "ar_10")]
    assert read.chance("ssdet", LINEAR, STEPS[-1]) == pytest.approx(0.115)
    assert read.chance("bsp", Metric("gtad", "map"), STEPS[-1]) is None


def test_a_difference_is_of_the_seeds_that_both_have(results: Results) -> None:
    """Classification has five seeds, frame labels three: the first three of five are compared."""
    place = ("ssdet", "frame_labels", LINEAR, STEPS[-1])
    own = results.scores[place]
    base = results.scores["ssdet", "classification", LINEAR, STEPS[-1]]
    by_hand = np.mean([own[seed].value - base[seed].value for seed in range(3)])
    found = results.difference(*place)
    assert found is not None
    assert (found.num_seeds, found.mean) == (3, pytest.approx(by_hand))
    share = by_hand / np.mean([base[seed].value for seed in range(3)])
    assert results.relative_gain(*place) == pytest.approx(share)
    assert results.difference("ssdet", "classification", LINEAR, STEPS[-1]) is None
    backwards = results.difference("ssdet", "classification", LINEAR, STEPS[-1], "frame_labels")
    assert backwards is not None
    assert backwards.mean == pytest.approx(-by_hand)


def test_broken_results_are_refused(tmp_path: Path) -> None:
    table = made_table(20, {"bsp": ("classification",)})
    with pytest.raises(UsageError, match=r"two rows of seed 0 of .*'linear'"):
        results_of(pa.concat_tables([table, table]))
    with pytest.raises(UsageError, match=r"not \['chance'\]"):
        results_of(table.drop_columns(["chance"]))
    (tmp_path / "results.parquet").write_text("no table")
    with pytest.raises(UsageError, match="not a table of results"):
        read_results(tmp_path / "results.parquet")
    renamed = table.set_column(5, "metric", pa.array(["of mine"] * len(table)))
    with pytest.raises(UsageError, match=r"no name.*'of mine'"):
        results_of(renamed.slice(0, 1)).metrics("bsp")
    with pytest.raises(UsageError, match="no family 'pal', only \\['bsp'\\]"):
        results_of(table).steps("pal")
    with pytest.raises(UsageError, match="no method 'cuts' of family 'bsp'"):
        write_tables(results_of(table), {"bsp": ("classification", "cuts")})


# ---------------------------------------------------------------- tables


def test_tables_say_everything_once(results: Results) -> None:
    """Every family has its methods in order in each of its tables, every metric a column."""
    text = write_tables(results, METHODS, [])
    for name, family in zip(("SSDet", "BSP", "PAL"), METHODS, strict=True):
        part = text.partition(f"### {name}\n")[2].partition("\n### ")[0]
        rows = [line.split(" | ")[0][3:-1] for line in part.splitlines() if line.startswith("| `")]
        assert rows == [*METHODS[family]] * 3
        header = " ".join(line for line in part.splitlines() if line.startswith("| method"))
        for metric in results.metrics(family):
            assert header.count(f" {METRICS[metric]} |") == 1
    widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert "nan" not in text
    assert set(widths) <= {5, 6, 8, 9, 11}


def test_a_table_by_hand() -> None:
    """One seed, four resamples: classification 0.5, freeze 0.6; no number is hidden."""
    fields = {"family": "ssdet", "seed": 0, "steps": 9, "downstream": "linear", "metric": "map"}
    rows = [
        fields | {"method": name, "value": value, "chance": 0.1, "resampled": [value] * 4}
        for name, value in (("classification", 0.5), ("frame_labels", 0.7), ("freeze", 0.6))
    ]
    papers = [
        PaperGain("ssdet", "freeze", "classification", "Charades", 20.0, 21.0, "SSDet, Table 9"),
        PaperGain("ssdet", "mixup", "classification", "Charades", 20.0, 22.0, "SSDet, Table 9"),
    ]
    made = results_of(pa.Table.from_pylist(rows))
    controls = {"freeze": "frame_labels", "mixup": "frame_labels"}
    table = write_tables(made, {"ssdet": ("frame_labels", "freeze")}, (), controls)
    assert table.splitlines()[10:15] == [
        "Gains over another method than classification:",
        "",
        "| method | over | seeds | linear mAP | sign |",
        "| --- | --- | ---: | ---: | ---: |",
        "| `freeze` | `frame_labels` | 1 | −10.0<br><sub>−10.0 to −10.0</sub> | − |",
    ]
    methods = {"ssdet": ("classification", "freeze")}
    table = write_tables(made, methods, papers, controls)
    assert table.splitlines()[4:] == [
        "| method | seeds | linear mAP | gain | sign | relative gain |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| `classification` | 1 | 50.0<br><sub>50.0 to 50.0</sub> |  |  |  |",
        "| `freeze` | 1 | 60.0<br><sub>60.0 to 60.0</sub> | +10.0<br><sub>+10.0 to +10.0</sub> | + "
        "| +20 % |",
        "| chance |  | 10.0 |  |  |  |",
        "",
        "Relative gains beside the paper's, with the sign of ours:",
        "",
        "| method | over | the paper's benchmark | source | paper | here: linear mAP |",
        "| --- | --- | --- | --- | ---: | ---: |",
        "| `freeze` | `classification` | Charades | SSDet, Table 9 | +5.0 % | +20.0 % (+) |",
        "",
        "Learning curves: linear mAP along the budget, with the sign of the gain over "
        "classification after as many steps:",
        "",
        "| method | 9 steps |",
        "| --- | ---: |",
        "| `classification` | 50.0<br><sub>50.0 to 50.0</sub> |",
        "| `freeze` | 60.0 **+**<br><sub>60.0 to 60.0</sub> |",
    ]


def test_own_scores_of_the_pretexts_are_means_of_the_seeds(tmp_path: Path) -> None:
    """At half and at the end, with chance; not of losses, nor of a step that is neither."""
    experiment = Experiment(read_grid(Path(package.__file__).parent / "small.toml"))
    scored = [at for at in experiment.scored(["cuts"]) if at.method.name == "cuts"]
    for seed in range(3):
        run = experiment.run(experiment.named("cuts"), seed).folder(tmp_path) / "run"
        run.mkdir(parents=True)
        events = [{"event": "settings"}] + [
            {"event": "validation", "step": step, "loss": 9.0, "accuracy": score + 0.1 * seed}
            | {"accuracy_chance": 0.5}
            for step, score in ((400, 0.6), (600, 0.0), (800, 0.7))
        ]
        (run / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert make_pretexts(experiment, scored, tmp_path).splitlines() == [
        "| method | held-out score | chance | 400 steps | 800 steps |",
        "| --- | --- | ---: | ---: | ---: |",
        "| `cuts` | accuracy | 0.500 | 0.700 | 0.800 |",
    ]


def test_the_papers_numbers_are_read(tmp_path: Path, results: Results) -> None:
    papers = read_papers()
    overs = {gain.over for gain in papers}
    assert {"classification", "moco"} <= overs
    text = write_tables(results, METHODS, papers)
    assert "| `pal` | `moco` | ActivityNet, G-TAD, mAP |" in text
    (tmp_path / "p.toml").write_text('[[gains]]\nfamily = "pal"\n')
    with pytest.raises(UsageError, match="method"):
        read_papers(tmp_path / "p.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        read_papers(tmp_path / "absent.toml")


def test_a_page_keeps_all_but_what_is_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- table -->\nold\n<!-- /table -->\nb\n")
    replace_between(page, "table", "new")
    assert page.read_text() == "a\n<!-- table -->\nnew\n<!-- /table -->\nb\n"
    for broken in ("a\n", "<!-- table -->", "<!-- /table --><!-- table -->"):
        page.write_text(broken)
        with pytest.raises(UsageError, match="once each"):
            replace_between(page, "table", "new")
        assert page.read_text() == broken


# ---------------------------------------------------------------- figures

COLOURS = {"blue": (39, 103, 206), "red": (206, 73, 39), "grey": (102, 112, 127)}


def coloured(path: Path) -> dict[str, np.ndarray]:
    """Return where a picture has the colours of the signs, right of the names."""
    picture = imread(path)[..., :3] * 255
    return {name: abs(picture - rgb).max(2) < 4 for name, rgb in COLOURS.items()}


def test_figures_have_repeatable_bytes(tmp_path: Path, results: Results) -> None:
    few = {"ssdet": ("classification", "mixup", "joint"), "pal": ("classification", "pal")}
    for draw in (draw_headline, draw_gains, draw_curves):
        for name in ("a.png", "b.png"):
            draw(results, few, tmp_path / name)
        content = (tmp_path / "a.png").read_bytes()
        assert content == (tmp_path / "b.png").read_bytes()


def test_gains_are_blue_right_of_zero_and_losses_red_left(tmp_path: Path, results: Results) -> None:
    """Of joint all is a gain, of mixup all a loss; in the order that was asked for."""
    draw_headline(results, {"ssdet": ("joint", "mixup")}, tmp_path / "h.png")
    found = coloured(tmp_path / "h.png")
    (blue_y, blue_x), (red_y, red_x) = found["blue"].nonzero(), found["red"].nonzero()
    assert blue_y.max() < red_y.min()
    zero = int(found["grey"].sum(axis=0).argmax())
    assert red_x.max() < zero < blue_x.min()
    draw_headline(results, {"bsp": ("cuts",)}, tmp_path / "c.png")
    found = coloured(tmp_path / "c.png")
    assert not found["blue"].any()
    assert not found["red"].any()


def test_figures_refuse_what_was_not_measured(tmp_path: Path) -> None:
    table = made_table(20, {"bsp": ("cuts",)})
    with pytest.raises(UsageError, match="no method 'classification'"):
        draw_gains(results_of(table), {"bsp": ("cuts",)}, tmp_path / "g.png")
    both = results_of(made_table(20, {"bsp": ("classification", "cuts")}))
    without = {cell: scores for cell, scores in both.scores.items() if cell.metric != LINEAR}
    with pytest.raises(UsageError, match="learning curves need the linear probe"):
        draw_curves(replace(both, scores=without), {"bsp": ("cuts",)}, tmp_path / "c.png")
    assert not list(tmp_path.iterdir())
