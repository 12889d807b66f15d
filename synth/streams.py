"""The random generators of many rows at once: those of `SeedSequence`, at a tenth of the cost.

Row `i` draws from `default_rng(SeedSequence(seed, spawn_key=(i,)))`. Making that one by one takes
longer than all that a row draws; here its arithmetic is done for a run of rows together.

Source: NumPy's `SeedSequence`, after M. E. O'Neill, "Developing a seed_seq Alternative" (2015).
"""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from numpy.random.bit_generator import ISeedSequence

POOL_WORDS = 4
STATE_WORDS = 8  # 32 bits each: PCG64 takes 256 bits
HASH_IN, HASH_IN_STEP = 0x43B0D7E5, 0x931E8875
HASH_OUT, HASH_OUT_STEP = 0x8B51F9DD, 0x58F38DED
MIX_LEFT, MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
HALF_WORD = np.uint32(16)


class _Seeded(ISeedSequence):
    """What a bit generator asks for its state, known before."""

    def __init__(self, state: np.ndarray) -> None:
        self._state = state

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        """Return the state, which PCG64 asks for as 4 words of 64 bits."""
        assert (n_words, dtype) == (STATE_WORDS // 2, np.uint64)
        return self._state


def row_generators(seed: int, first_row: int, num_rows: int) -> Iterator[np.random.Generator]:
    """Yield the generators of the rows from `first_row` on; row indices are below 2**32."""
    rows_N = np.arange(first_row, first_row + num_rows, dtype=np.uint32)
    for state in _states(seed, rows_N):
        yield np.random.Generator(np.random.PCG64(cast(Any, _Seeded(state))))


def _states(seed: int, rows_N: np.ndarray) -> np.ndarray:
    """Return the first 256 bits of every row's `SeedSequence`, uint64 `(N, 4)`.

    The seed fills a pool, which is the same for all rows; then the row's index is mixed into each
    word of the pool, and the state is hashed from the words in turn.
    """
    pool = np.random.SeedSequence(seed).pool
    extra_words = max(0, -(-seed.bit_length() // 32) - POOL_WORDS)
    step = POOL_WORDS * (POOL_WORDS + extra_words)  # hashes that the pool has taken
    pool_NP = np.stack(
        [_mix(pool[i], _hash(rows_N, HASH_IN, HASH_IN_STEP, step + i)) for i in range(POOL_WORDS)],
        axis=1,
    )
    state_NS = np.stack(
        [_hash(pool_NP[:, i % POOL_WORDS], HASH_OUT, HASH_OUT_STEP, i) for i in range(STATE_WORDS)],
        axis=1,
    )
    return state_NS.astype("<u4").view("<u8").astype(np.uint64)


def _hash(words_N: np.ndarray, first: int, factor: int, step: int) -> np.ndarray:
    """Hash words with the constant of this step: each is `factor` times the one before."""
    before, after = (np.uint32(first * pow(factor, n, 2**32) % 2**32) for n in (step, step + 1))
    hashed_N = (words_N ^ before) * after
    return hashed_N ^ (hashed_N >> HALF_WORD)


def _mix(word: np.uint32, hashed_N: np.ndarray) -> np.ndarray:
    """Mix hashed words into one word of the pool."""
    mixed_N: np.ndarray = np.array([word]) * MIX_LEFT - hashed_N * MIX_RIGHT
    return mixed_N ^ (mixed_N >> HALF_WORD)
