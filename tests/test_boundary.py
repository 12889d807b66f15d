"""Boundary-sensitive synthesis against BSP's Eq. 1-3 in exact fractions."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import oracle_boundary as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle_synthesis import random_clip

from synth import LabelTrack, constant_track
from synth.boundary import (
    BOUNDARY_CLASSES,
    FASTEST,
    LONGEST_TAU,
    change_point,
    diff_class_frames,
    diff_class_labels,
    diff_class_weights,
    diff_speed_frames,
    diff_speed_index,
    diff_speed_labels,
    draw_eps,
    draw_speed,
    longest_speed,
    same_class_frames,
    same_class_labels,
    same_speed_frames,
    same_speed_labels,
    speed_length,
)

GAMMAS = tuple(map(Fraction, ("1/4", "1/2", "2", "4")))
TAUS = (2, 3, 4, 5, 8, 12)

# tau, eps, w1[1..2 tau]
WEIGHTS = [
    (2, 1, [1, "1/2", 0, 0]),
    (4, 1, [1, 1, 1, "1/2", 0, 0, 0, 0]),
    (4, 2, [1, 1, "3/4", "1/2", "1/4", 0, 0, 0]),
    (4, 3, [1, "5/6", "4/6", "3/6", "2/6", "1/6", 0, 0]),
]
# tau, t, gamma, source frames from 1
SPEEDS = [
    (2, 2, 2, [1, 2, 4, 6]),
    (4, 3, 2, [1, 2, 3, 5, 7, 9, 11, 13]),
    (4, 3, "1/2", [1, 2, 3, 4, 4, 5, 5, 6]),
    (4, 2, 4, [1, 2, 6, 10, 14, 18, 22, 26]),
    (4, 2, "1/4", [1, 2, 2, 3, 3, 3, 3, 4]),
    (4, 6, "1/4", [1, 2, 3, 4, 5, 6, 6, 7]),
    (4, 6, "1/2", [1, 2, 3, 4, 5, 6, 7, 7]),
    (4, 2, "3/2", [1, 2, 4, 5, 7, 8, 10, 11]),
    (4, 3, "1/3", [1, 2, 3, 3, 4, 4, 4, 5]),
]


def varying_track(seed: int, num_frames: int, class_ids: tuple[int, ...]) -> LabelTrack:
    """Return a track whose weights, whole 64ths, differ from frame to frame."""
    share = 64 // len(class_ids)
    weights = np.random.default_rng(seed).integers(0, share + 1, (len(class_ids), num_frames))
    return LabelTrack(np.array(class_ids, np.int64), weights / 64)


def exact_labels(track: LabelTrack) -> list[oracle.Labels]:
    ids = track.class_ids.tolist()
    return [
        dict(zip(ids, map(Fraction, column), strict=True)) for column in track.weights_CT.T.tolist()
    ]


def assert_labels(track: LabelTrack, expected: list[oracle.Labels]) -> None:
    assert track.num_frames == len(expected)
    ids = track.class_ids.tolist()
    for t, row in enumerate(expected):
        assert set(row) <= set(ids)
        exact = [float(row.get(class_id, 0)) for class_id in ids]
        np.testing.assert_allclose(track.weights_CT[:, t], exact, rtol=0, atol=1e-12)


def check_sample(
    op: str,
    tau: int,
    frames: Callable[..., np.ndarray],
    labels: Callable[..., LabelTrack],
    ids: tuple[tuple[int, ...], ...],
    extra: int = 0,
    **numbers: Any,
) -> None:
    """Compare one sample with the oracle: clips just long enough, or `extra` frames longer."""
    exact = {**numbers, **{n: Fraction(v) for n, v in numbers.items() if n == "gamma"}}
    floats = {**numbers, **{n: float(v) for n, v in numbers.items() if n == "gamma"}}
    show = partial(oracle.shown, op, tau=tau, **exact)
    lengths = oracle.frames_read(op, tau, **exact)[: len(ids)]
    if op == "diff_class":
        assert lengths == [tau + numbers["eps"]] * 2
    clips = [random_clip(7 * tau + k, length + extra) for k, length in enumerate(lengths)]
    tracks = [varying_track(tau + k, length + extra, ids[k]) for k, length in enumerate(lengths)]
    before = [clip.copy() for clip in clips], [track.weights_CT.copy() for track in tracks]
    made = frames(*clips, tau, **floats)
    assert made.dtype == np.uint8
    assert len(made) == 2 * tau
    np.testing.assert_array_equal(made, oracle.frames_of(show, clips, tau))
    assert not any(np.shares_memory(made, clip) for clip in clips)
    made_labels = labels(*tracks, tau, **floats)
    assert_labels(made_labels, oracle.labels_of(show, list(map(exact_labels, tracks)), tau))
    for kept, clip in zip(before[0], clips, strict=True):
        np.testing.assert_array_equal(kept, clip)
    for kept, track in zip(before[1], tracks, strict=True):
        np.testing.assert_array_equal(kept, track.weights_CT)
    if not extra:
        for k in range(len(ids)):  # one frame less is too short, in any clip
            short = [clip[:-1] if j == k else clip for j, clip in enumerate(clips)]
            cut = [
                track.take(np.arange(track.num_frames - 1)) if j == k else track
                for j, track in enumerate(tracks)
            ]
            with pytest.raises(ValueError, match=r"reads .* clip"):
                frames(*short, tau, **floats)
            with pytest.raises(ValueError, match=r"reads .* clip"):
                labels(*cut, tau, **floats)


def test_class_ids_are_the_positions_of_the_paper() -> None:
    assert dict(enumerate(BOUNDARY_CLASSES)) == {
        0: "diff_class",
        1: "same_class",
        2: "diff_speed",
        3: "same_speed",
    }


@pytest.mark.parametrize(("tau", "eps", "weights"), WEIGHTS)
def test_hand_worked_weights(tau: int, eps: int, weights: list) -> None:
    w1 = diff_class_weights(tau, eps)
    assert w1.shape == (2 * tau,)
    assert w1.dtype == np.float64
    np.testing.assert_allclose(w1, [float(Fraction(w)) for w in weights], rtol=0, atol=1e-15)


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("extra", [0, 3])
def test_every_diff_class_matches_equation_1(tau: int, extra: int) -> None:
    for eps in range(1, tau):
        for ids in (((3,), (1,)), ((2,), (2,)), ((0, 4), (4, 5))):
            check_sample(
                "diff_class", tau, diff_class_frames, diff_class_labels, ids, extra, eps=eps
            )


def test_a_diff_class_track_by_hand() -> None:
    track = diff_class_labels(constant_track(3, 6), constant_track(1, 6), 4, 2)
    assert track.class_ids.tolist() == [1, 3]
    assert track.weights_CT.tolist() == [
        [0, 0, 0.25, 0.5, 0.75, 1, 1, 1],
        [1, 1, 0.75, 0.5, 0.25, 0, 0, 0],
    ]
    np.testing.assert_array_equal(track.background_T, np.zeros(8))
    of_one_class = diff_class_labels(constant_track(3, 6), constant_track(3, 6), 4, 2)
    assert of_one_class.class_ids.tolist() == [3]
    np.testing.assert_array_equal(of_one_class.weights_CT, np.ones((1, 8)))


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("extra", [0, 2])
def test_every_same_class_matches_equation_2(tau: int, extra: int) -> None:
    for ids in (((3,), (3,)), ((3,), (1,)), ((0, 4), (4, 5))):
        check_sample("same_class", tau, same_class_frames, same_class_labels, ids, extra)


@pytest.mark.parametrize(("tau", "t", "gamma", "order"), SPEEDS)
def test_hand_worked_speeds(tau: int, t: int, gamma: int | str, order: list[int]) -> None:
    index = diff_speed_index(tau, t, float(Fraction(gamma)))
    assert index.dtype == np.int64
    assert (index + 1).tolist() == order
    assert speed_length(tau, t, float(Fraction(gamma))) == order[-1]
    exact = partial(oracle.shown, "diff_speed", tau=tau, t=t, gamma=Fraction(gamma))
    assert [exact(i)[0][2] for i in range(1, 2 * tau + 1)] == order


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("extra", [0, 2])
def test_every_diff_speed_matches_equation_3(tau: int, extra: int) -> None:
    for gamma in (*GAMMAS, Fraction(3, 2), Fraction(1, 3), Fraction(7, 10)):
        for t in range(2, 2 * tau - 1):
            check_sample(
                "diff_speed",
                tau,
                diff_speed_frames,
                diff_speed_labels,
                ((2, 5),),
                extra,
                t=t,
                gamma=gamma,
            )


@settings(max_examples=150, deadline=None)
@given(
    st.integers(2, 300),
    st.fractions(Fraction(1, 50), 50, max_denominator=50).filter(lambda gamma: gamma != 1),
    st.integers(min_value=0),
)
def test_source_frames_are_exact_at_any_speed(tau: int, gamma: Fraction, place: int) -> None:
    t = 2 + place % (2 * tau - 3)
    index = diff_speed_index(tau, t, float(gamma))
    exact = [
        oracle.shown("diff_speed", i, tau, t=t, gamma=gamma)[0][2] for i in range(1, 2 * tau + 1)
    ]
    assert (index + 1).tolist() == exact
    assert speed_length(tau, t, float(gamma)) == index.max() + 1 == exact[-1]
    assert np.all(np.diff(index) >= 0)


@pytest.mark.parametrize("tau", TAUS)
def test_longest_speed_is_the_longest_of_every_draw(tau: int) -> None:
    for gammas in (GAMMAS, GAMMAS[:1], GAMMAS[:2], GAMMAS[2:3], (Fraction(9, 10), Fraction(6, 5))):
        lengths = [
            max(oracle.shown("diff_speed", i, tau, t=t, gamma=gamma)[0][2] for i in (t, 2 * tau))
            for gamma in gammas
            for t in range(2, 2 * tau - 1)
        ]
        assert longest_speed(tau, [float(gamma) for gamma in gammas]) == max(lengths)


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("extra", [0, 2])
def test_same_speed_is_the_video_at_its_own_rate(tau: int, extra: int) -> None:
    check_sample("same_speed", tau, same_speed_frames, same_speed_labels, ((2, 5),), extra)


def test_the_change_point_lies_where_the_sample_changes() -> None:
    tau = 6
    # mu between frames m and m + 1, from 1: the content changes there and nowhere before.
    mu = change_point("same_class", {"tau": tau})
    shown = same_class_labels(constant_track(0, tau), constant_track(1, tau), tau)
    assert mu == 6.5
    assert 1 + np.flatnonzero(shown.weights_CT[1])[0] == 7
    # The transition of diff-class is even around mu, but for the frame that Eq. 1 begins late.
    assert change_point("diff_class", {"tau": tau, "eps": 3}) == 6.5
    w1 = diff_class_weights(tau, 3)
    assert w1[5] == 0.5
    assert w1[6] < 0.5 < w1[4]
    for t in range(2, 2 * tau - 1):
        mu = change_point("diff_speed", {"tau": tau, "t": t, "gamma": 2.0})
        steps = np.diff(diff_speed_index(tau, t, 2.0))
        assert 1 + np.flatnonzero(steps != 1)[0] == t
        assert mu == t + 0.5
    assert change_point("same_speed", {"tau": tau}) is None


@pytest.mark.parametrize(
    ("op", "node"),
    [
        ("mixup", {"tau": 4}),
        ("diff_class", {}),
        ("same_class", {"tau": "4"}),
        ("same_class", {"tau": True}),
        ("same_class", {"tau": float("nan")}),
        ("diff_speed", {"tau": 4}),
        ("diff_speed", {"tau": 4, "t": 10**9}),
    ],
)
def test_a_change_point_of_a_senseless_node_is_refused(op: str, node: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        change_point(op, node)


@pytest.mark.parametrize("tau", [2, 3, 8])
def test_draws_are_uniform_over_what_is_allowed(tau: int) -> None:
    rng, draws = np.random.default_rng(tau), 12_000
    counts: dict[tuple[int, float], int] = {}
    for _ in range(draws):
        t, gamma = draw_speed(rng, tau, (0.25, 0.5, 2, 4))
        assert type(t) is int
        assert type(gamma) is float
        counts[t, gamma] = counts.get((t, gamma), 0) + 1
    assert set(counts) == {(t, g) for t in range(2, 2 * tau - 1) for g in (0.25, 0.5, 2.0, 4.0)}
    share = draws / len(counts)
    assert all(abs(count - share) < 5 * np.sqrt(share) for count in counts.values())

    low, high = 1, tau - 1
    drawn = [draw_eps(rng, tau, low, high) for _ in range(2000)]
    assert set(map(type, drawn)) == {int}
    assert set(drawn) == set(range(low, high + 1))
    share = 2000 / (tau - 1)
    assert all(abs(drawn.count(eps) - share) < 5 * np.sqrt(share) for eps in set(drawn))


def test_draws_of_one_seed_are_the_same() -> None:
    drawn = [
        (draw_speed(rng, 8, (0.5, 2.0)), draw_eps(rng, 8, 2, 4))
        for rng in (np.random.default_rng(5), np.random.default_rng(5))
    ]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(("low", "high"), [(0, 2), (3, 2), (1, 4), (4, 4), (-1, -1)])
def test_an_impossible_range_of_eps_is_refused(low: int, high: int) -> None:
    with pytest.raises(ValueError, match="eps needs 1 <= low <= high < tau"):
        draw_eps(np.random.default_rng(0), 4, low, high)


@pytest.mark.parametrize("gammas", [(), (1,), (0.5, 0.0), (-2.0,), (float("nan"),), (2, 1e300)])
def test_senseless_gammas_are_refused(gammas: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="gamma"):
        draw_speed(np.random.default_rng(0), 4, gammas)
    with pytest.raises(ValueError, match="gamma"):
        longest_speed(4, gammas)


CLIP, TRACK = random_clip(0, 40), constant_track(0, 40)


@pytest.mark.parametrize("tau", [-3, 0, 1, LONGEST_TAU + 1, 10**13])
def test_tau_out_of_bounds_is_refused_before_anything_is_allocated(tau: int) -> None:
    calls: list[Callable[[], object]] = [
        lambda: draw_eps(np.random.default_rng(0), tau, 1, 1),
        lambda: draw_speed(np.random.default_rng(0), tau, (2,)),
        lambda: longest_speed(tau, (2,)),
        lambda: diff_class_weights(tau, 1),
        lambda: diff_class_frames(CLIP, CLIP, tau, 1),
        lambda: diff_class_labels(TRACK, TRACK, tau, 1),
        lambda: same_class_frames(CLIP, CLIP, tau),
        lambda: same_class_labels(TRACK, TRACK, tau),
        lambda: diff_speed_index(tau, 2, 1e-9),
        lambda: speed_length(tau, 2, 1e-9),
        lambda: diff_speed_frames(CLIP, tau, 2, 1e-9),
        lambda: diff_speed_labels(TRACK, tau, 2, 1e-9),
        lambda: same_speed_frames(CLIP, tau),
        lambda: same_speed_labels(TRACK, tau),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"tau must be in \[2, 2048\], got"):
            call()


@pytest.mark.parametrize("eps", [-1, 0, 4, 5, 10**13])
def test_eps_out_of_bounds_is_refused(eps: int) -> None:
    for call in (
        lambda: diff_class_weights(4, eps),
        lambda: diff_class_frames(CLIP, CLIP, 4, eps),
        lambda: diff_class_labels(TRACK, TRACK, 4, eps),
    ):
        with pytest.raises(ValueError, match=r"eps must be in \[1, tau - 1\] with tau 4, got"):
            call()


@pytest.mark.parametrize(
    ("t", "gamma", "message"),
    [
        (1, 2.0, "t must be"),
        (7, 2.0, "t must be"),
        (-(10**13), 2.0, "t must be"),
        (3, 1.0, "gamma must be"),
        (3, 0.0, "gamma must be"),
        (3, -2.0, "gamma must be"),
        (3, float("nan"), "gamma must be"),
        (3, float("inf"), "gamma must be"),
        (3, FASTEST * 1.01, "gamma must be"),
    ],
)
def test_speeds_out_of_bounds_are_refused(t: int, gamma: float, message: str) -> None:
    for call in (
        lambda: diff_speed_index(4, t, gamma),
        lambda: speed_length(4, t, gamma),
        lambda: diff_speed_frames(CLIP, 4, t, gamma),
        lambda: diff_speed_labels(TRACK, 4, t, gamma),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_the_fastest_and_the_longest_stay_exact() -> None:
    tau, gamma = LONGEST_TAU, Fraction(2 * FASTEST - 1, 2)  # ties on every other frame
    index = diff_speed_index(tau, 2, float(gamma))
    exact = [oracle.shown("diff_speed", i, tau, t=2, gamma=gamma)[0][2] for i in (3, 4, 2 * tau)]
    assert [int(index[i]) + 1 for i in (2, 3, 2 * tau - 1)] == exact
    slow = diff_speed_index(tau, 2, 1e-300)
    assert slow.tolist() == [0, *[1] * (2 * tau - 1)]


def test_a_clip_too_short_for_gamma_is_named_and_never_clamped() -> None:
    with pytest.raises(ValueError, match=r"tau 4, t 3 and gamma 2\.0 reads 13 frames.*of 12"):
        diff_speed_frames(random_clip(0, 12), 4, 3, 2.0)
    assert len(diff_speed_frames(random_clip(0, 13), 4, 3, 2.0)) == 8


@pytest.mark.parametrize("other", [random_clip(1, 8, width=16), random_clip(1, 8, height=4)])
def test_clips_of_different_sizes_are_refused(other: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must have one size"):
        diff_class_frames(random_clip(0, 8), other, 4, 2)
    with pytest.raises(ValueError, match="must have one size"):
        same_class_frames(random_clip(0, 8), other, 4)
