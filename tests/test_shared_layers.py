"""Batch norm and dropout of several workers: what one worker makes of the whole batch."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from train.backbones import X3D, X3DArguments
from train.shared_layers import SharedBatchNorm, SharedDropout, share_layers

COUNT, NUM_ROWS = 3, 4  # workers, samples of each


def layers() -> nn.Sequential:
    """Return layers that depend on the batch, with others around them."""
    torch.manual_seed(1)
    made = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(0.3), nn.Flatten()
    )
    made.append(nn.Linear(80, 2))
    return made


def batch() -> torch.Tensor:
    """Return the whole batch; its shares differ in mean and variance."""
    maps = torch.randn(COUNT * NUM_ROWS, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    return maps * torch.linspace(0.5, 4, len(maps)).view(-1, 1, 1, 1) + 3


def one_step(network: nn.Module, maps: torch.Tensor) -> list[torch.Tensor]:
    """Return outputs, the loss's gradients, and the norm's statistics after the step."""
    torch.manual_seed(3)
    outputs = network(maps)
    outputs.square().mean().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    return [outputs.detach(), *gradients, *network.buffers()]  # type: ignore[list-item]


def work(rank: int, folder: str) -> None:
    """Write one worker's results; its loss is the mean of its share alone."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=COUNT)
    network = layers()
    share_layers(network, rank, COUNT, on_cuda=False)
    found = one_step(network, batch()[rank * NUM_ROWS : (rank + 1) * NUM_ROWS])
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_three_workers_make_of_their_shares_what_one_makes_of_the_batch(tmp_path: Path) -> None:
    alone = layers()
    share_layers(alone, 0, 1, on_cuda=False)
    expected = one_step(alone, batch())
    mp.spawn(work, (str(tmp_path),), nprocs=COUNT)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(COUNT)]
    torch.testing.assert_close(torch.cat([parts[0] for parts in found]), expected[0])
    num_gradients = len(list(alone.parameters()))
    for index in range(1, 1 + num_gradients):  # averaged over the workers, as training does
        mean = torch.stack([parts[index] for parts in found]).mean(0)
        torch.testing.assert_close(mean, expected[index], rtol=1e-4, atol=1e-6)
    for index in range(1 + num_gradients, len(expected)):
        for parts in found:
            torch.testing.assert_close(parts[index], expected[index])


def test_batch_norm_of_one_worker_is_that_of_torch(tmp_path: Path) -> None:
    """The formulas of mean, variance and running statistics, against torch's."""
    dist.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        expected, maps = nn.BatchNorm3d(3, eps=1e-3), torch.randn(2, 3, 4, 5, 5) * 2 + 7
        shared = SharedBatchNorm(nn.BatchNorm3d(3, eps=1e-3), 0, 1)
        torch.testing.assert_close(shared(maps), expected(maps))
        torch.testing.assert_close(shared.running_mean, expected.running_mean)
        torch.testing.assert_close(shared.running_var, expected.running_var)
        torch.testing.assert_close(shared.eval()(maps), expected.eval()(maps))
    finally:
        dist.destroy_process_group()


def test_dropout_takes_its_part_of_one_mask() -> None:
    maps, drawn = torch.ones(2, 1000), []
    for rank, count in ((0, 2), (1, 2), (0, 1)):
        torch.manual_seed(5)
        drawn.append(SharedDropout(0.25, rank, count)(maps if count == 2 else torch.ones(4, 1000)))
    assert torch.equal(torch.cat(drawn[:2]), drawn[2])
    assert sorted(set(drawn[2].flatten().tolist())) == pytest.approx([0, 4 / 3])
    assert float((drawn[2] == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert SharedDropout(0.25, 0, 1).eval()(maps) is maps


def test_weights_and_their_names_stay() -> None:
    network = X3D(4, X3DArguments(depth_factor=0.2, width_factor=0.4, feature_dim=16))
    before = {name: tensor.data_ptr() for name, tensor in network.state_dict().items()}
    parameters = list(network.parameters())
    share_layers(network, 1, 2, on_cuda=False)
    assert {name: tensor.data_ptr() for name, tensor in network.state_dict().items()} == before
    assert all(
        ours is theirs for ours, theirs in zip(network.parameters(), parameters, strict=True)
    )
    kinds = {type(module) for module in network.modules()}
    assert {SharedBatchNorm, SharedDropout} <= kinds
    assert not {nn.BatchNorm3d, nn.Dropout} & kinds
