"""Compare two feature stores: what their specs, their indices and their rows say differently."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from manifests import Progress, StoreError

from .feature_store import FeatureStore

VIDEOS_AT_ONCE = 64
GRID_FIELDS = ("snippet_len", "snippet_stride", "tail", "alignment", "fps")


class Distance(NamedTuple):
    """Cosine distances of the rows of a video (or, per video, of all videos): 0 to 2."""

    mean: float
    largest: float


@dataclass(frozen=True)
class DiffReport:
    """What differs between store `a` and store `b`.

    Attributes:
        path_a: Where the first lies.
        path_b: Where the second lies.
        is_equal: The stores have one digest: one spec, the same videos in one order, equal rows.
        spec: FeatureSpec field -> its value in a and in b, of those that differ.
        only_a: Videos that only a knows, rejected ones included.
        only_b: Videos that only b knows.
        other_order: Whether the videos that both know stand in another order.
        other_reasons: Video -> its reason in a and in b (None: it has rows), where they differ.
        other_counts: Video -> its rows in a and in b, where both have rows, but not as many.
        other_times: Videos with as many rows in both, at other times.
        other_rows: Videos with rows at the same times in both, but other rows.
        channel_ranges: Name -> (first, end) of the channels that were compared: the streams where
            both stores have the same ones, else "all". Empty where none were.
        not_compared: Why no distances were taken, or None.
        distances: Video -> name of a channel range -> distances of its rows.
        median: Name of a channel range -> the median over videos of their mean distance.
        largest: Name of a channel range -> the largest distance of any row.
    """

    path_a: str
    path_b: str
    is_equal: bool
    spec: Mapping[str, tuple[Any, Any]]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    other_order: bool
    other_reasons: Mapping[str, tuple[str | None, str | None]]
    other_counts: Mapping[str, tuple[int, int]]
    other_times: tuple[str, ...]
    other_rows: tuple[str, ...]
    channel_ranges: Mapping[str, tuple[int, int]]
    not_compared: str | None
    distances: Mapping[str, Mapping[str, Distance]]
    median: Mapping[str, float]
    largest: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        values = asdict(self)
        values["distances"] = {
            video_id: {name: found._asdict() for name, found in of.items()}
            for video_id, of in self.distances.items()
        }
        return values

    def lines(self, most: int = 10) -> list[str]:
        """Return the report for people, at most `most` videos of each kind."""
        found = [f"equal: {self.path_a} and {self.path_b} have one digest"] * self.is_equal
        found += [f"{name}: {a!r} in a, {b!r} in b" for name, (a, b) in self.spec.items()]
        found += ["the videos of a stand in another order in b"] * self.other_order
        for words, videos in (
            ("only in a", dict.fromkeys(self.only_a, "")),
            ("only in b", dict.fromkeys(self.only_b, "")),
            ("other reasons", {v: f": {a!r}, {b!r}" for v, (a, b) in self.other_reasons.items()}),
            (
                "other numbers of rows",
                {v: f": {a}, {b}" for v, (a, b) in self.other_counts.items()},
            ),
            ("other times", dict.fromkeys(self.other_times, "")),
            ("other rows", {v: _say_distances(self.distances.get(v)) for v in self.other_rows}),
        ):
            if videos:
                found.append(f"{words}: {len(videos):,} videos")
                found += [f"  {video_id}{said}" for video_id, said in list(videos.items())[:most]]
                found += ["  ..."] * (len(videos) > most)
        if self.is_equal:
            return found
        if self.not_compared:
            found.append(f"no distances: {self.not_compared}")
        for name, (first, end) in self.channel_ranges.items():
            if name in self.median:
                found.append(
                    f"cosine distance of {name!r} (channels {first} to {end - 1}): median "
                    f"{self.median[name]:.3g} over {len(self.distances):,} videos, largest "
                    f"{self.largest[name]:.3g}"
                )
        return found


def _say_distances(distances: Mapping[str, Distance] | None) -> str:
    if distances is None:
        return ""
    return ": " + ", ".join(
        f"{name} {found.mean:.3g} (largest {found.largest:.3g})"
        for name, found in distances.items()
    )


def compare_stores(path_a: Path | str, path_b: Path | str) -> DiffReport:
    """Compare two finished stores; rows are read only where their digests differ.

    The distance of two rows is 1 - cos of their angle, in float64; of two rows of zeros 0, of one
    such row and another 1.

    Raises:
        StoreError: One cannot be opened, is damaged, or has a row to compare that is not finite.
    """
    store_a, store_b = FeatureStore.open(path_a), FeatureStore.open(path_b)
    rows_a, rows_b = _index_rows(store_a.index), _index_rows(store_b.index)
    both = [video_id for video_id in rows_a if video_id in rows_b]
    reasons = {v: (rows_a[v].reason, rows_b[v].reason) for v in both}
    accepted = [v for v in both if rows_a[v].is_ok and rows_b[v].is_ok]
    counts = {v: (rows_a[v].num_snippets, rows_b[v].num_snippets) for v in accepted}
    alike = [v for v in accepted if counts[v][0] == counts[v][1]]
    changed = {v for v in alike if rows_a[v].digest != rows_b[v].digest}
    other_times = {v for v in changed if not np.array_equal(store_a.times(v), store_b.times(v))}
    not_compared = _why_not(store_a, store_b, alike)
    ranges, distances = {}, {}
    if not_compared is None:
        ranges = _common_ranges(store_a, store_b)
        same_times = [v for v in alike if v not in other_times]
        distances = _distances(store_a, store_b, same_times, changed, ranges)
    found = {name: [of[name] for of in distances.values()] for name in ranges if distances}
    return DiffReport(
        path_a=str(path_a),
        path_b=str(path_b),
        is_equal=store_a.digest == store_b.digest,
        spec=store_a.spec.differences(store_b.spec),
        only_a=tuple(v for v in rows_a if v not in rows_b),
        only_b=tuple(v for v in rows_b if v not in rows_a),
        other_order=both != [v for v in rows_b if v in rows_a],
        other_reasons={v: pair for v, pair in reasons.items() if pair[0] != pair[1]},
        other_counts={v: pair for v, pair in counts.items() if pair[0] != pair[1]},
        other_times=tuple(v for v in alike if v in other_times),
        other_rows=tuple(v for v in alike if v in changed - other_times),
        channel_ranges=ranges,
        not_compared=not_compared,
        distances=distances,
        median={name: float(np.median([d.mean for d in of])) for name, of in found.items()},
        largest={name: max(d.largest for d in of) for name, of in found.items()},
    )


class _IndexRow(NamedTuple):
    is_ok: bool
    reason: str | None
    num_snippets: int
    digest: str | None


def _index_rows(index: pa.Table) -> dict[str, _IndexRow]:
    columns = (index[n].to_pylist() for n in ("status", "reason", "num_snippets", "digest"))
    rows = (_IndexRow(row[0] == "ok", *row[1:]) for row in zip(*columns, strict=True))
    return dict(zip(index["video_id"].to_pylist(), rows, strict=True))


def _why_not(store_a: FeatureStore, store_b: FeatureStore, alike: list[str]) -> str | None:
    """Return why rows cannot be compared, or None."""
    if store_a.feature_dim != store_b.feature_dim:
        return f"rows of a have {store_a.feature_dim} channels, those of b {store_b.feature_dim}"
    spec_a, spec_b = store_a.spec, store_b.spec
    if (spec_a.grid, spec_a.fps) != (spec_b.grid, spec_b.fps):
        return f"the time grids differ ({spec_a.explain(spec_b, GRID_FIELDS)})"
    return None if alike else "no video has as many rows in both"


def _common_ranges(store_a: FeatureStore, store_b: FeatureStore) -> dict[str, tuple[int, int]]:
    if store_a.channel_ranges == store_b.channel_ranges:
        return store_a.channel_ranges
    return {"all": (0, store_a.feature_dim)}


def _distances(
    store_a: FeatureStore,
    store_b: FeatureStore,
    video_ids: list[str],
    changed: Iterable[str],
    ranges: Mapping[str, tuple[int, int]],
) -> dict[str, dict[str, Distance]]:
    """Return the distances of every video, 0 where both digests are one."""
    distances = {v: dict.fromkeys(ranges, Distance(0.0, 0.0)) for v in video_ids}
    to_read = [video_id for video_id in video_ids if video_id in changed]
    with Progress("diff", "videos", len(to_read)) as progress:
        for start in range(0, len(to_read), VIDEOS_AT_ONCE):
            some = to_read[start : start + VIDEOS_AT_ONCE]
            rows = zip(some, store_a.read_many(some), store_b.read_many(some), strict=True)
            for video_id, a_SD, b_SD in rows:
                if not (np.isfinite(a_SD).all() and np.isfinite(b_SD).all()):
                    raise StoreError(f"video {video_id!r} has rows that are not finite")
                for name, (first, end) in ranges.items():
                    d_S = cosine_distances(a_SD[:, first:end], b_SD[:, first:end])
                    distances[video_id][name] = Distance(float(d_S.mean()), float(d_S.max()))
                progress.advance()
    return distances


def cosine_distances(a_SD: np.ndarray, b_SD: np.ndarray) -> np.ndarray:
    """Return 1 - cos of the angle between rows, float64 `(S,)` in [0, 2]; exactly 0 for equal rows.

    Of two rows of zeros it is 0, of one such row and another 1.
    """
    a_SD, b_SD = a_SD.astype(np.float64), b_SD.astype(np.float64)
    lengths_S = np.linalg.norm(a_SD, axis=1) * np.linalg.norm(b_SD, axis=1)
    cosines_S = np.einsum("sd,sd->s", a_SD, b_SD) / np.where(lengths_S > 0, lengths_S, 1.0)
    equal_S = (a_SD == b_SD).all(axis=1)
    return np.where(equal_S, 0.0, np.clip(1.0 - cosines_S, 0.0, 2.0))
