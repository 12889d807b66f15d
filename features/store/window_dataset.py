"""Windows of the snippets of a store as a map-style `torch` dataset, for whatever trains on them.

    loader = DataLoader(SnippetWindows(store, window=256, stride=128), batch_size=8, shuffle=True)

Items are dictionaries that PyTorch's own collation puts into batches, and depend on their number
alone, not on workers or order. The dataset may be sent to workers that are forked or spawned.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from manifests import SnippetGrid, StoreError, UsageError

from ..annotations import Annotations, snippet_labels
from .feature_store import FeatureStore


class SnippetWindows(Dataset[dict[str, Any]]):
    """Cut the videos of a store into windows; item `i` is one of them, in order of the videos.

    With `window`, windows start every `stride` snippets, the fewest that show every snippet; what a
    window has after the end of its video is zeros. With `resized`, an item is a whole video,
    brought to that many rows by linear interpolation (`resize_rows`). With neither it is a whole
    video as it is.

    # window 4, stride 2, a video of 5 snippets: 0 1 2 3, 2 3 4 -

    An item has `feats` float32 `(T, D)`, `mask` bool `(T,)` (False where nothing is), `times`
    float64 `(T, 3)` in seconds, `video_id`, `first_snippet`, and, if there are annotations,
    `labels` float32 `(T, C)`: 1 where the centre of a row lies in a segment of the class.

    Args:
        store: Where the rows are.
        window: Snippets of a window.
        stride: Snippets from a window to the next; `window` if None.
        resized: Rows of a video, instead of windows.
        video_ids: Which videos, in this order; all of the store if None.
        annotations: Segments of the videos; a video that it does not name has none.

    Raises:
        UsageError: A number is below 1, or `resized` stands beside `window`.
        StoreError: A video is not in the store.
    """

    def __init__(
        self,
        store: FeatureStore,
        window: int | None = None,
        stride: int | None = None,
        resized: int | None = None,
        video_ids: Sequence[str] | None = None,
        annotations: Annotations | None = None,
    ) -> None:
        if any(number is not None and number < 1 for number in (window, stride, resized)):
            raise UsageError(
                f"window, stride and resized must be >= 1, got {window}, {stride} and {resized}"
            )
        if (resized and window) or (stride and not window):
            raise UsageError("stride belongs to a window, and resized takes whole videos")
        self.store, self.window, self.resized = store, window, resized
        self.annotations = annotations
        self.video_ids = tuple(store.video_ids if video_ids is None else video_ids)
        absent = [video_id for video_id in self.video_ids if video_id not in store]
        if absent:
            raise StoreError(f"video {absent[0]!r} is not in the store {str(store.path)!r}")
        index = store.index.select(["video_id", "num_snippets"]).to_pydict()
        count_of = dict(zip(index["video_id"], index["num_snippets"], strict=True))
        counts = [count_of[video_id] for video_id in self.video_ids]
        step = stride or window or 1
        numbers = [
            SnippetGrid(window, step).num_snippets(n) if window else min(n, 1) for n in counts
        ]
        self._video_N = np.repeat(np.arange(len(counts)), numbers)
        self._first_N = np.concatenate([np.arange(0), *(np.arange(k) * step for k in numbers)])
        self._counts = counts

    def __len__(self) -> int:
        return len(self._video_N)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Return window `number`; raises StoreError where the store is damaged."""
        video, first = int(self._video_N[number]), int(self._first_N[number])
        video_id, count = self.video_ids[video], self._counts[video]
        end = min(first + (self.window or count), count)
        feats_TD = self.store.snippets(video_id, first, end).astype(np.float32)
        times_T3 = self.store.times(video_id)[first:end]
        if self.resized:
            feats_TD = resize_rows(feats_TD, self.resized)
            times_T3 = resize_rows(times_T3, self.resized)
        columns = {"feats": feats_TD, "mask": np.ones(len(feats_TD), bool), "times": times_T3}
        if self.annotations is not None:
            segments = self.annotations.segments.get(video_id, ())
            labels_TC = snippet_labels(times_T3, segments, len(self.annotations.classes))
            columns["labels"] = labels_TC.astype(np.float32)
        padding = max((self.window or 0) - len(feats_TD), 0)
        item: dict[str, Any] = {"video_id": video_id, "first_snippet": first}
        for name, rows in columns.items():
            widths = [(0, padding)] + [(0, 0)] * (rows.ndim - 1)
            item[name] = torch.from_numpy(np.pad(rows, widths))
        return item


def resize_rows(rows_SD: np.ndarray, num_rows: int) -> np.ndarray:
    """Bring rows to another number by linear interpolation, each row the middle of its share.

    Row `k` is taken at `(k + 1/2) S / L - 1/2`, at most the last row and at least the first: what
    `torch.nn.functional.interpolate` does with `mode="linear"`, and with it the loaders of G-TAD
    for ActivityNet. Times resized alike stay the times of their rows.

    # 4 rows 0 1 2 3 to 2: 0.5 2.5; to 8: 0 0.25 0.75 1.25 1.75 2.25 2.75 3

    Args:
        rows_SD: float32 or float64 `(S, D)`, S >= 1.
        num_rows: `L`.
    """
    last = len(rows_SD) - 1
    places_L = np.clip((np.arange(num_rows) + 0.5) * len(rows_SD) / num_rows - 0.5, 0, last)
    below_L = np.floor(places_L).astype(np.int64)
    shares_L1 = (places_L - below_L)[:, None].astype(rows_SD.dtype)
    above_LD = rows_SD[np.minimum(below_L + 1, last)]
    return rows_SD[below_L] * (1 - shares_L1) + above_LD * shares_L1
