"""The shard loader: order, shares, split by video, contents, and damaged shards."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from made_shards import moving_clip, write_moving_shards, write_shards

from manifests import ShardError, UsageError
from synth import ShardSample, constant_track, read_dataset
from synth.codecs import decode_filmstrip, encode_filmstrip
from train.loader import (
    SampleTable,
    epoch_batches,
    epoch_order,
    load_batches,
    sample_table,
    split_by_video,
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moving_shards(tmp_path_factory.mktemp("made") / "out", 18)


@pytest.fixture(scope="module")
def samples(shards: Path) -> SampleTable:
    return sample_table(read_dataset(shards))


def label(sample: ShardSample) -> np.ndarray:
    return np.array([int(sample.key), sample.meta["class_ids"][0]], np.float32)


def test_batches_hold_what_was_written(samples: SampleTable) -> None:
    order = epoch_order(samples, 0, 0, 2)
    keys = []
    for batch in load_batches(samples, epoch_batches(order, 4), label, (4, 32, 32, 3), 2):
        assert batch.frames_NTHWC.shape == (4, 4, 32, 32, 3)
        for frames, (key, class_id) in zip(batch.frames_NTHWC, batch.targets, strict=True):
            written = moving_clip(int(class_id), int(key))
            expected = decode_filmstrip(encode_filmstrip(written), 4)
            np.testing.assert_array_equal(frames.numpy(), expected)
            keys.append(int(key))
    assert keys == order[:16].tolist()  # in key order; of 18 samples the last 2 are left out


@pytest.mark.parametrize("num_threads", [1, 3])
def test_order_does_not_depend_on_threads(samples: SampleTable, num_threads: int) -> None:
    batches = epoch_batches(epoch_order(samples, 5, 1, 1), 3)
    loaded = load_batches(samples, batches, label, (4, 32, 32, 3), num_threads)
    assert [batch.targets[:, 0].tolist() for batch in loaded] == [b.tolist() for b in batches]


def test_starting_in_the_middle_gives_the_rest(samples: SampleTable) -> None:
    batches = epoch_batches(epoch_order(samples, 5, 1, 1), 3)
    rest = load_batches(samples, batches[2:], label, (4, 32, 32, 3), 2)
    whole = load_batches(samples, batches, label, (4, 32, 32, 3), 2)
    first = [batch.targets.tolist() for batch in whole][2:]
    assert [batch.targets.tolist() for batch in rest] == first


@given(st.integers(0, 50), st.integers(0, 5), st.integers(1, 6))
def test_order_is_a_permutation_inside_windows_of_shards(
    samples: SampleTable, seed: int, epoch: int, window: int
) -> None:
    order = epoch_order(samples, seed, epoch, window)
    assert sorted(order.tolist()) == list(range(18))
    np.testing.assert_array_equal(order, epoch_order(samples, seed, epoch, window))
    shards, position, left = samples.shard_N[order], 0, 5
    while left:  # each window is made of whole shards that no other window touches
        size = min(window, left)
        inside = set(shards[position:].tolist()[:1])
        end = position
        while len(inside) < size or (end < 18 and shards[end] in inside):
            inside.add(int(shards[end]))
            end += 1
        assert not inside & set(shards[end:].tolist())
        position, left = end, left - size
    assert position == 18


def test_epochs_and_seeds_have_orders_of_their_own(samples: SampleTable) -> None:
    orders = {
        tuple(epoch_order(samples, seed, epoch, 8)) for seed in range(3) for epoch in range(3)
    }
    assert len(orders) == 9  # seed 0 epoch 1 is not seed 1 epoch 0


@given(st.integers(0, 40), st.integers(1, 4), st.integers(1, 3))
def test_any_number_of_workers_shares_the_same_batches(
    count: int, num_workers: int, share: int
) -> None:
    order, size = np.arange(count), share * num_workers
    whole = epoch_batches(order, size)
    parts = [epoch_batches(order, size, rank, num_workers) for rank in range(num_workers)]
    assert {len(part) for part in parts} == {len(whole)}
    for number, batch in enumerate(whole):
        pieces = [part[number] for part in parts]
        assert {len(piece) for piece in pieces} == {share}
        np.testing.assert_array_equal(np.concatenate(pieces), batch)


@given(st.integers(0, 60), st.integers(0, 3), st.integers(0, 9), st.data())
def test_a_step_is_the_same_however_many_workers_resume_there(
    seed: int, epoch: int, step: int, draw: st.DataObject
) -> None:
    """State is (epoch, sample_in_epoch): all that the workers of a resumed run are given."""
    order, size = np.random.default_rng((seed, epoch)).permutation(50), 12
    workers = st.sampled_from((1, 2, 3, 4, 6, 12))
    global_batches = []
    for first, last, count in ((0, step, draw.draw(workers)), (step, None, draw.draw(workers))):
        parts = [epoch_batches(order, size, rank, count)[first:last] for rank in range(count)]
        global_batches += [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]
    np.testing.assert_array_equal(np.concatenate(global_batches), order[:48])


def test_workers_that_cannot_share_a_batch_equally_are_refused() -> None:
    with pytest.raises(UsageError, match="workers must divide batch_size, got 3 for 8"):
        epoch_batches(np.arange(20), 8, 0, 3)


def _read_on_rank(rank: int, meeting: Path, shards: Path, found: Path) -> None:
    """Read two epochs from every step on as 1, 2 and 4 workers; the first writes what all read."""
    dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=4)
    samples, runs = sample_table(read_dataset(shards)), {}
    for count in (1, 2, 4):
        group = dist.new_group(range(count))
        for step in range(8) if rank < count else ():
            keys = []
            for epoch in range(step // 4, 2):
                first = max(step - 4 * epoch, 0)
                order = epoch_order(samples, 3, epoch, 2)
                share = epoch_batches(order, 4, rank, count)[first:]
                for batch in load_batches(samples, share, label, (4, 32, 32, 3), 1 + rank % 2):
                    parts = [torch.empty_like(batch.targets) for _ in range(count)]
                    dist.all_gather(parts, batch.targets, group=group)
                    keys.append(torch.cat(parts)[:, 0].tolist())
            runs[f"{count} from {step}"] = keys
    if rank == 0:
        found.write_text(json.dumps(runs))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_ranks_read_one_global_order_and_resume_it_in_other_numbers(
    shards: Path, samples: SampleTable, tmp_path: Path
) -> None:
    """A rank with another number of batches would hang the others here, as it does in training."""
    found = tmp_path / "found.json"
    torch.multiprocessing.spawn(_read_on_rank, (tmp_path / "meeting", shards, found), nprocs=4)
    orders = [epoch_order(samples, 3, epoch, 2)[:16] for epoch in range(2)]
    whole = np.concatenate(orders).reshape(8, 4).tolist()
    runs = json.loads(found.read_text())
    assert len(runs) == 24
    for count in (1, 2, 4):
        for step in range(8):
            assert runs[f"{count} from {step}"] == whole[step:]


def mixed_table(tmp_path: Path, sources: list[tuple[str, ...]]) -> SampleTable:
    clip, track = moving_clip(0, 0, 2, 16), constant_track(0, 2)
    kinds = ["clip" if len(videos) == 1 else "mixup" for videos in sources]
    made = [(clip, track, videos, kind) for videos, kind in zip(sources, kinds, strict=True)]
    return sample_table(read_dataset(write_shards(tmp_path / "mixed", made)))


def test_split_keeps_videos_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sources: list[tuple[str, ...]] = [(f"v{n}",) for n in range(20)]
    sources += [tuple(f"v{n}" for n in rng.choice(20, 2, replace=False)) for _ in range(30)]
    table = mixed_table(tmp_path, sources)
    for seed in range(5):
        kept, held = split_by_video(table, 0.2, seed)
        videos_kept = {video for videos in kept.video_ids() for video in videos}
        videos_held = {video for videos in held.video_ids() for video in videos}
        assert len(videos_held) == 4
        assert len(videos_kept) == 16
        assert not videos_kept & videos_held
        straddling = sum(0 < len(videos_held & set(videos)) < len(videos) for videos in sources)
        assert len(kept) + len(held) + straddling == len(sources)


def test_split_loses_nothing_where_partners_form_groups(tmp_path: Path) -> None:
    sources: list[tuple[str, ...]] = [
        (f"v{4 * group + a}", f"v{4 * group + (a + 1) % 4}") for group in range(5) for a in range(4)
    ]
    kept, held = split_by_video(mixed_table(tmp_path, sources), 0.2, 3)
    assert (len(kept), len(held)) == (16, 4)


def test_split_is_seeded_and_can_be_off(samples: SampleTable) -> None:
    held = [split_by_video(samples, 0.1, seed)[1].row_N.tolist() for seed in (1, 1)]
    assert held[0] == held[1]
    kept, none = split_by_video(samples, 0.0, 1)
    assert (len(kept), len(none)) == (18, 0)
    assert len({tuple(split_by_video(samples, 0.1, seed)[1].video_ids()) for seed in range(9)}) > 3


def test_kinds_are_chosen(tmp_path: Path) -> None:
    table = mixed_table(tmp_path, [("a",), ("a", "b"), ("b",)])
    only = sample_table(table.dataset, ["clip"])
    assert only.row_N.tolist() == [0, 2]
    with pytest.raises(UsageError, match="no samples of kind 'freeze', only clip, mixup"):
        sample_table(table.dataset, ["freeze"])


def test_other_codecs_load(tmp_path: Path) -> None:
    for codec in ("raw", "h264"):
        out = write_moving_shards(tmp_path / codec, 4, codec=codec)
        table = sample_table(read_dataset(out))
        batches = load_batches(table, [np.arange(4)], label, (4, 32, 32, 3), 2)
        (batch,) = batches
        difference = batch.frames_NTHWC[1].numpy().astype(int) - moving_clip(1, 1)
        assert abs(difference).mean() < (0.1 if codec == "raw" else 6)


def test_clips_of_another_size_are_named(tmp_path: Path) -> None:
    made = [
        (moving_clip(0, n, 2, side), constant_track(0, 2), (f"v{n}",), "clip")
        for n, side in enumerate((32, 32, 48))
    ]
    table = sample_table(read_dataset(write_shards(tmp_path / "sizes", made)))
    batches = load_batches(table, [np.arange(3)], label, (2, 32, 32, 3), 1)
    with pytest.raises(ShardError, match=r"must be 2 frames of 32x32, sample 00000002 .* 48x48"):
        next(batches)


def test_a_truncated_shard_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    out = write_moving_shards(tmp_path / "cut", 8)
    path = out / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(ShardError, match=r"shard-000001\.tar must have \d+ bytes but has \d+"):
        read_dataset(out)


def test_a_damaged_shard_ends_the_batches_with_its_name(tmp_path: Path) -> None:
    out = write_moving_shards(tmp_path / "damaged", 4)
    dataset = read_dataset(out)
    path = out / "shard-000000.tar"
    content = bytearray(path.read_bytes())
    offset = int(dataset.shards[0].offsets[2])
    content[offset : offset + 512] = bytes(512)
    path.write_bytes(content)
    table = sample_table(dataset)
    with pytest.raises(ShardError, match=r"shard-000000\.tar must have sha256"):
        list(load_batches(table, [np.arange(4)], label, (4, 32, 32, 3), 2))
    path.unlink()
    with pytest.raises(ShardError, match=r"shard-000000\.tar cannot be read"):
        table.read(0)


def test_a_sample_that_is_wrong_in_a_whole_shard_is_named(tmp_path: Path) -> None:
    dataset = read_dataset(write_moving_shards(tmp_path / "odd", 4))
    table = sample_table(replace(dataset, classes=dataset.classes[:2]))
    with pytest.raises(ShardError, match=r"below 2, got 2 \(sample 00000002 of .*-000000\.tar"):
        list(load_batches(table, [np.arange(4)], label, (4, 32, 32, 3), 2))
