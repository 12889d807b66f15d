"""The generators of many rows are those that NumPy makes one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.streams import row_generators

SEEDS = [0, 1, 2023, 2**32 - 1, 2**32, 2**64 + 3, 2**128 - 1, 2**128, 2**160, 2**200 + 17]


def check(seed: int, first_row: int, num_rows: int) -> None:
    made = list(row_generators(seed, first_row, num_rows))
    assert len(made) == num_rows
    for row, rng in enumerate(made, first_row):
        alone = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(row,)))
        assert rng.bit_generator.state == alone.bit_generator.state
        assert rng.random(3).tolist() == alone.random(3).tolist()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("first_row", [0, 7, 10_000_000, 2**32 - 3])
def test_streams_are_those_of_seed_sequence(seed: int, first_row: int) -> None:
    check(seed, first_row, 3)


@settings(deadline=None)
@given(st.integers(0, 2**300), st.integers(0, 2**32 - 20), st.integers(0, 19))
def test_streams_of_any_seed_and_run_of_rows(seed: int, first_row: int, num_rows: int) -> None:
    check(seed, first_row, num_rows)


def test_rows_beyond_32_bits_are_no_streams_of_other_rows() -> None:
    with pytest.raises(OverflowError):
        list(row_generators(0, 2**32 - 1, 2))
