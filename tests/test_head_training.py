"""Training heads of whole videos: repeatable, by the paper's numbers; heads that are kept."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_frame_heads import SMALL

from features.heads import (
    FRAME_HEADS,
    MSTCT,
    PDAN,
    TGM,
    AnnotatedVideo,
    FrameHead,
    HeadRecipe,
    LinearHead,
    SuperEvents,
    TrainedHead,
    build_head,
    train_head,
    train_linear,
)
from features.heads.training import pad_videos
from manifests import CheckpointError, UsageError

RATES = {"pdan": 0.01, "tgm": 0.01, "super_events": 0.05, "ms_tct": 1e-3}  # for thirty steps


def made_videos(num_videos: int = 6, num_classes: int = 3) -> list[AnnotatedVideo]:
    """Videos of 20 to 45 rows in which channel `c` rises while class `c` is on."""
    rng = np.random.default_rng(4)
    videos = []
    for v in range(num_videos):
        num_rows = 20 + 5 * v
        times_S3 = np.arange(num_rows)[:, None] + np.array([0.0, 0.5, 1.0])
        labels_SC = np.zeros((num_rows, num_classes), bool)
        segments = []
        for c in range(num_classes):
            start = int(rng.integers(num_rows - 8))
            segments.append((float(start), start + 8.0, c))
            labels_SC[start : start + 8, c] = True
        feats_SD = rng.normal(size=(num_rows, 6))
        feats_SD[:, :num_classes] += 4 * labels_SC
        stored = feats_SD.astype(np.float16)
        videos.append(AnnotatedVideo(f"v{v}", stored, times_S3, labels_SC, segments))
    return videos


def trained(kind: str, seed: int = 0, epochs: int = 30) -> FrameHead:
    videos = made_videos()
    head = FRAME_HEADS[kind]
    recipe = replace(head.recipe, epochs=epochs, lr=RATES[kind], lr_per_share=False)
    torch.manual_seed(seed)
    network = head(6, 3, SMALL[kind])
    targets = [network.targets(video) for video in videos]
    losses = train_head(network, [video.feats_SD for video in videos], targets, recipe, seed)
    assert len(losses) == epochs
    assert losses[-1] < 0.7 * losses[0]
    return network


@pytest.mark.slow
@pytest.mark.parametrize("kind", FRAME_HEADS)
def test_training_repeats_and_learns(kind: str) -> None:
    first = trained(kind)
    video = made_videos(8)[-1]  # not among those it was trained on
    scores_SC = TrainedHead(kind, ("a", "b", "c"), first).predict(video.feats_SD)
    assert scores_SC[video.labels_SC].mean() > 2 * scores_SC[~video.labels_SC].mean()
    torch.rand(7)  # what others draw does not matter
    again, other = trained(kind).state_dict(), trained(kind, seed=1).state_dict()
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again[name]), name
    assert any(not torch.equal(weight, other[name]) for name, weight in again.items())


def test_training_leaves_the_generator_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_head("pdan", 6, 3, {"width": 8}, seed=1)
    recipe = HeadRecipe(batch_size=2, epochs=1, lr=1e-3)
    head = build_head("tgm", 6, 3, {"width": 8}, seed=1)
    videos = made_videos(2)
    train_head(head, [v.feats_SD for v in videos], [head.targets(v) for v in videos], recipe, 0)
    assert torch.equal(torch.rand(3), expected)


def test_recipes_are_the_papers() -> None:
    assert PDAN.recipe == HeadRecipe(32, 100, 1e-4, False, 0.5, 8)
    assert MSTCT.recipe == HeadRecipe(32, 50, 1e-4, False, 0.5, 8, window=256)
    # MultiTHUMOS has 200 training videos
    assert SuperEvents.recipe.rate(200) == pytest.approx(0.1 * 16 / 200)
    assert TGM.recipe.rate(200) == pytest.approx(0.02 * 8 / 200)
    assert TGM.recipe.rate(4) == 0.02  # a batch holds them all
    assert PDAN.recipe.rate(200) == 1e-4


def test_rate_falls_when_the_loss_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []

    class Flat(PDAN):
        def loss(self, feats_NDT, lengths_N, targets_NJKT):
            return 0 * self(feats_NDT, lengths_N).sum()

    stepped = torch.optim.Adam.step

    def step(self, *given, **named):
        rates.append(self.param_groups[0]["lr"])
        return stepped(self, *given, **named)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    videos, head = made_videos(2), Flat(6, 3, SMALL["pdan"])
    recipe = HeadRecipe(2, 8, 1.0, plateau_factor=0.5, plateau_patience=2)
    train_head(head, [v.feats_SD for v in videos], [head.targets(v) for v in videos], recipe, 0)
    # epoch 1 is the best, 2 to 4 are worse than 2 allow: from epoch 5 on the half
    assert rates == [1.0] * 4 + [0.5] * 3 + [0.25]


def test_windows_are_cut_from_features_and_targets_alike() -> None:
    seen = []

    class Watched(PDAN):
        def loss(self, feats_NDT, lengths_N, targets_NJKT):
            seen.append((feats_NDT, lengths_N, targets_NJKT))
            return super().loss(feats_NDT, lengths_N, targets_NJKT)

    head, rows = Watched(1, 1, SMALL["pdan"]), [np.arange(n, dtype=np.float32) for n in (30, 5)]
    feats = [rows_S[:, None] for rows_S in rows]
    targets = [rows_S[:, None, None] for rows_S in rows]
    train_head(head, feats, targets, HeadRecipe(2, 4, 1e-6, window=12), seed=3)
    starts = set()
    for feats_NDT, lengths_N, targets_NJKT in seen:
        assert sorted(lengths_N.tolist()) == [5, 12]
        assert torch.equal(feats_NDT, targets_NJKT[:, 0])
        longest = feats_NDT[lengths_N.argmax(), 0]
        assert torch.equal(longest.diff(), torch.ones(11))
        starts.add(float(longest[0]))
    assert len(starts) > 1


def test_a_loss_that_explodes_is_named() -> None:
    videos, head = made_videos(2), build_head("pdan", 6, 3, {"width": 8})
    with pytest.raises(UsageError, match=r"finite, but is .* in epoch \d+ at learning rate 1e\+30"):
        train_head(
            head,
            [v.feats_SD for v in videos],
            [head.targets(v) for v in videos],
            HeadRecipe(2, 20, 1e30),
            0,
        )


def test_scores_that_are_no_numbers_are_named() -> None:
    videos, head = made_videos(2), PDAN(6, 3, SMALL["pdan"])
    targets = [head.targets(video) for video in videos]
    train_head(head, [v.feats_SD for v in videos], targets, HeadRecipe(2, 1, 1e30), seed=0)
    with pytest.raises(UsageError, match="but some are NaN"):
        TrainedHead("pdan", ("a", "b", "c"), head).predict(videos[0].feats_SD)


def test_padding_is_zero_and_lengths_are_kept() -> None:
    feats_NDT, lengths_N = pad_videos([np.ones((3, 2)), np.ones((1, 2))], torch.device("cpu"))
    assert feats_NDT.shape == (2, 2, 3)
    assert lengths_N.tolist() == [3, 1]
    assert feats_NDT[1].tolist() == [[1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("kind", ["linear", *FRAME_HEADS])
def test_a_kept_head_scores_the_same(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    feats_SD = rng.normal(size=(9, 6))
    scorer: LinearHead | FrameHead
    if kind == "linear":
        scorer = train_linear(feats_SD, feats_SD[:, :3] > 0)
    else:
        torch.manual_seed(0)
        scorer = FRAME_HEADS[kind](6, 3, SMALL[kind]).eval()
    head = TrainedHead(kind, ("a", "b", "c"), scorer, {"mean_seconds": [1.0, None, 2.0]})
    head.save(tmp_path / "head")
    again = TrainedHead.load(tmp_path / "head")
    np.testing.assert_array_equal(head.predict(feats_SD), again.predict(feats_SD))
    assert (again.kind, again.classes, again.feature_dim) == (kind, ("a", "b", "c"), 6)
    assert (again.notes, again.num_parameters) == (head.notes, head.num_parameters)
    assert head.predict(feats_SD[:0]).shape == (0, 3)
    with pytest.raises(UsageError, match="takes rows of 6 channels, but these have 5"):
        again.predict(feats_SD[:, :5])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("weights_sha256", "0", "it is damaged"),
        ("kind", "deep", "holds no head"),
        ("arguments", {"width": 10**9}, "holds no head"),  # not even tried in memory
        ("arguments", {"depth": 3}, "unknown key 'depth'"),
        ("classes", ["a"], "holds no head"),
        ("feature_dim", 7, "holds no head"),
    ],
)
def test_damaged_heads_are_refused(tmp_path: Path, key: str, value: object, message: str) -> None:
    TrainedHead("pdan", ("a", "b"), build_head("pdan", 6, 2, {"width": 8})).save(tmp_path)
    record = json.loads((tmp_path / "head.json").read_text()) | {key: value}
    (tmp_path / "head.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=message):
        TrainedHead.load(tmp_path)


def test_no_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no head"):
        TrainedHead.load(tmp_path)
