"""Encoders that people bring: modules and saved programs, and files that mean harm."""

import json
import re
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_videos import encode, stamped_frames
from torch import nn
from torch.nn import functional as F

from features import FeatureStore, encoder_of_module, encoder_of_program, extract_features
from features.extraction.own_encoder import state_digest
from features.extraction.program_file import open_program
from manifests import CheckpointError, SourceVideo, UsageError, probe_video

pytestmark = pytest.mark.slow  # exporting takes seconds
CPU = torch.device("cpu")
SIZES: dict[str, Any] = {"num_frames": 8, "height": 32, "width": 48}
NORM: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
TOML = """
[encoder]
name = "tiny-mae"
frames = 8
height = 32
width = 48
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
"""


class Block(nn.Module):
    """Attention and two layers, each after a norm and around a shortcut."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, s, d = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(n, s, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, s, d)
        x = x + self.proj(mixed)
        return x + self.mlp(self.norm2(x))


class TinyMae(nn.Module):
    """A video transformer as VideoMAE and ViViT have it: tubelets, positions, blocks, a norm.

    Args:
        pool: "all": `(N, D)`; "space": `(N, T / tubelet, D)`.
        tubelet: Frames of a token.
    """

    def __init__(self, pool: str = "all", tubelet: int = 2, dim: int = 24) -> None:
        super().__init__()
        self.pool, self.steps = pool, 8 // tubelet
        self.embed = nn.Conv3d(3, dim, (tubelet, 16, 16), (tubelet, 16, 16))
        self.register_buffer("positions", torch.randn(1, self.steps * 6, dim), persistent=False)
        self.blocks = nn.ModuleList(Block(dim, 3) for _ in range(2))
        self.norm = nn.LayerNorm(dim)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(clips).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        if self.pool == "all":
            return tokens.mean(1)
        return tokens.unflatten(1, (self.steps, 6)).mean(2)


def tiny(pool: str = "all", tubelet: int = 2) -> TinyMae:
    torch.manual_seed(3)
    return TinyMae(pool, tubelet).eval()


def clips(num: int, height: int = 32, width: int = 48) -> torch.Tensor:
    return torch.randn(num, 3, 8, height, width, generator=torch.Generator().manual_seed(num))


def save(path: Path, module: nn.Module, any_number: bool = True, most: int = 6) -> Path:
    batch = torch.export.Dim("batch", min=1, max=most)
    shapes = ({0: batch},) if any_number else None
    torch.export.save(torch.export.export(module, (clips(3),), dynamic_shapes=shapes), path)
    path.with_suffix(".toml").write_text(TOML)
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("saved") / "tiny.pt2", tiny())


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[SourceVideo]:
    folder, found = tmp_path_factory.mktemp("videos"), []
    for number, num_frames in enumerate((30, 9)):
        path = encode(folder / f"v{number}.mp4", stamped_frames(num_frames))
        found.append(replace(probe_video(str(path)), video_id=f"v{number}"))
    return found


@torch.inference_mode()
def test_a_program_gives_what_its_module_gives(saved):
    program, module = open_program(saved, CPU), tiny()
    assert (program.input_sizes, program.fewest, program.most) == ((None, 3, 8, 32, 48), 1, 6)
    for num in (1, 2, 5, 6):
        assert torch.equal(program(clips(num)), module(clips(num)))
    many = clips(14)  # more than it may have at once
    torch.testing.assert_close(program(many), module(many), rtol=0, atol=1e-5)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(program, [clips(5)] * 8):
            assert torch.equal(found, module(clips(5)))


@torch.inference_mode()
def test_a_fixed_number_of_clips_is_filled_up(tmp_path):
    program, module = open_program(save(tmp_path / "p.pt2", tiny(), False), CPU), tiny()
    assert (program.fewest, program.most) == (3, 3)
    for num in (1, 3, 4, 7):
        found = program(clips(num))
        assert found.shape == (num, 24)
        torch.testing.assert_close(found, module(clips(num)), rtol=0, atol=1e-5)


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(3, 8, 3, stride=(1, 2, 2), padding=1, bias=False),
        nn.BatchNorm3d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool3d(2),
        nn.Conv3d(8, 16, 3, padding="same"),
        nn.Hardswish(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
    ).eval()


@torch.inference_mode()
@pytest.mark.parametrize("make", [tiny, convolutions])
@pytest.mark.parametrize("is_core", [False, True])
def test_programs_of_other_operators_give_the_same(tmp_path, make, is_core):
    batch = {0: torch.export.Dim("batch", min=1, max=6)}
    with torch.inference_mode(False):
        exported = torch.export.export(make(), (clips(3),), dynamic_shapes=(batch,))
        exported = exported.run_decompositions() if is_core else exported
        torch.export.save(exported, tmp_path / "p.pt2")
    found = open_program(tmp_path / "p.pt2", CPU)(clips(4))
    torch.testing.assert_close(found, make()(clips(4)), rtol=0, atol=1e-5)


def test_module_and_program_make_stores_with_the_same_rows(tmp_path, saved, videos):
    module = tiny()
    encoder = encoder_of_module(module, name="tiny-mae", **SIZES, **NORM)
    extract_features(videos, encoder, tmp_path / "a.zarr", device="cpu")
    report = extract_features(videos, saved, tmp_path / "b.zarr", device="cpu")
    assert report.ok
    a, b = FeatureStore.open(tmp_path / "a.zarr"), FeatureStore.open(tmp_path / "b.zarr")
    assert a.feature_dim == b.feature_dim == 24
    for video_id in ("v0", "v1"):
        np.testing.assert_array_equal(a[video_id], b[video_id])
        np.testing.assert_array_equal(a.times(video_id), b.times(video_id))
        assert np.abs(a[video_id]).max() > 0.1
    assert set(a.spec.differences(b.spec)) == {"weights_digest"}
    assert (a.spec.backbone, a.spec.snippet_len, a.spec.fps) == ("tiny-mae", 8, None)


def test_rate_and_short_side_of_the_toml_are_the_default(tmp_path, saved, videos):
    toml = tmp_path / "own.toml"
    toml.write_text(TOML + "fps = 7.5\nshort_side = 40\n")
    encoder = encoder_of_program(saved, toml, device="cpu")
    extract_features(videos, encoder, tmp_path / "s.zarr")
    spec = FeatureStore.open(tmp_path / "s.zarr").spec
    assert (spec.fps, spec.short_side) == ("15/2", 40)
    extract_features(videos, encoder, tmp_path / "t.zarr", fps=Fraction(5), short_side=32)
    spec = FeatureStore.open(tmp_path / "t.zarr").spec
    assert (spec.fps, spec.short_side) == ("5", 32)
    with pytest.raises(
        UsageError, match="'tiny-mae' takes clips of 8 frames only, got snippet_len"
    ):
        extract_features(videos, encoder, tmp_path / "u.zarr", snippet_len=4)
    other = encoder_of_program(saved, device="cpu")
    with pytest.raises(UsageError, match="streams share one sampling rate"):
        extract_features(videos, {"a": encoder, "b": other}, tmp_path / "u.zarr")
    assert not (tmp_path / "u.zarr").exists()


def test_vectors_along_time_are_averaged_or_kept_per_frame(tmp_path, videos):
    module = tiny("space", tubelet=1)
    arguments = {"name": "m", **SIZES, **NORM, "device": "cpu"}
    frames_NTHWC = np.random.default_rng(0).integers(0, 256, (2, 8, 32, 48, 3), np.uint8)
    rows_ND = encoder_of_module(module, **arguments).encode(frames_NTHWC)
    per_frame = encoder_of_module(module, **arguments, per_frame=True)
    rows_NTD = per_frame.encode(frames_NTHWC)
    assert (rows_ND.shape, rows_NTD.shape) == ((2, 24), (2, 8, 24))
    np.testing.assert_allclose(rows_NTD.mean(1), rows_ND, atol=1e-6)
    extract_features(videos, per_frame, tmp_path / "s.zarr", per_frame=True, snippet_stride=8)
    store = FeatureStore.open(tmp_path / "s.zarr")
    assert [len(store[v]) for v in store.video_ids] == [30, 9]
    with pytest.raises(UsageError, match=r"returns \(N, 8, D\), but 'm' returns \(N, 4, 24\)"):
        encoder_of_module(tiny("space"), **arguments, per_frame=True)
    with pytest.raises(UsageError, match=r"returns \(N, 8, D\), but 'm' returns \(N, 24\)"):
        encoder_of_module(tiny(), **arguments, per_frame=True)


class Wrong(nn.Module):
    def __init__(self, result: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.result = result

    def forward(self, clips: torch.Tensor) -> Any:
        return self.result(clips)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda x: (x,), "returns tuple of one"),
        (lambda x: x, r"returns \(1, 3, 8, 32, 48\) of one"),
        (lambda x: x.mean(), r"returns \(\) of one"),
        (lambda x: x.mean((0, 3, 4)), r"returns \(3, 8\) of one"),
        (lambda x: x @ torch.zeros(5, 5), "raises RuntimeError: mat1 and mat2|raises RuntimeError"),
    ],
)
def test_modules_that_are_no_encoders_are_refused(result, words):
    with pytest.raises(UsageError, match=words):
        encoder_of_module(Wrong(result), name="m", **SIZES, **NORM, device="cpu")


def test_the_digest_of_a_module_is_that_of_its_weights():
    module = tiny()
    assert state_digest(module.state_dict()) == state_digest(tiny().state_dict())
    before = state_digest(module.state_dict())
    with torch.no_grad():
        module.norm.bias[3] += 1e-6
    assert state_digest(module.state_dict()) != before
    half = {"w": torch.zeros(4, dtype=torch.bfloat16), "n": torch.tensor(3)}
    assert state_digest(half) != state_digest(half | {"w": torch.zeros(2, 2, dtype=torch.bfloat16)})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("frames = 8", "farmes = 8", "unknown key 'farmes' in .encoder., did you mean 'frames'"),
        ("frames = 8", "", "key 'frames' is missing"),
        ("frames = 8", "frames = 0", "frames must be from 1"),
        ("frames = 8", "frames = 16", r"takes clips of \(N, 3, 8, 32, 48\), but .* \(N, 3, 16,"),
        ("width = 48", "width = 64", r"takes clips of \(N, 3, 8, 32, 48\), but .* 64\)"),
        ("0.25, 0.25]", "0.25, 0.0]", "std > 0"),
        ("width = 48", "width = 48\nfps = 0", "fps must be above 0"),
        ("width = 48", 'width = 48\nfps = "fast"', "fps must be a number"),
        (
            "[encoder]",
            "[enocder]",
            "unknown key 'enocder' at the top level, did you mean 'encoder'",
        ),
    ],
)
def test_what_the_toml_says_wrong_is_named(tmp_path, saved, old, new, words):
    toml = tmp_path / "e.toml"
    toml.write_text(TOML.replace(old, new, 1))
    with pytest.raises(UsageError, match=words):
        encoder_of_program(saved, toml, device="cpu")


def test_files_that_are_missing_are_named(tmp_path, saved):
    (tmp_path / "p.pt2").write_bytes(saved.read_bytes())
    with pytest.raises(UsageError, match=r"must stand in '.*/p.toml', which does not exist"):
        encoder_of_program(tmp_path / "p.pt2")
    with pytest.raises(CheckpointError, match="no such program"):
        encoder_of_program(tmp_path / "q.pt2", saved.with_suffix(".toml"))


class Odd(nn.Module):
    """Networks that cannot be run as a list of operators on one tensor."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.dropout = what, nn.Dropout(0.5)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> Any:
        mean = x.mean((2, 3, 4))
        if self.what == "dropout":
            return self.dropout(mean)
        if self.what == "count":
            self.count.add_(1)
            return mean + self.count
        if self.what == "two":
            return mean, mean
        with torch.no_grad():
            return mean * 2


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("dropout", "was exported in training mode"),
        ("count", "return one tensor, and change none|changes its own weights"),
        ("two", "return one tensor, and change none"),
    ],
)
def test_programs_that_are_no_encoders_are_refused(tmp_path, what, words):
    torch.export.save(torch.export.export(Odd(what), (clips(2),)), tmp_path / "p.pt2")
    with pytest.raises(CheckpointError, match=words):
        open_program(tmp_path / "p.pt2", CPU)


def test_operators_of_other_libraries_are_refused(tmp_path):
    torch.export.save(torch.export.export(Odd("no_grad"), (clips(2),)), tmp_path / "p.pt2")
    with pytest.raises(
        CheckpointError, match=r"runs 'torch.ops.higher_order.* without torch.no_grad"
    ):
        open_program(tmp_path / "p.pt2", CPU)


def rewrite(source: Path, target: Path, changes: Mapping[str, bytes]) -> Path:
    """Copy an archive with other contents of the members that end so."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            found = [content for ending, content in changes.items() if name.endswith(ending)]
            new.writestr(name, found[0] if found else old.read(name))
    return target


def member(source: Path, ending: str) -> Any:
    with zipfile.ZipFile(source) as archive:
        return json.loads(archive.read(next(n for n in archive.namelist() if n.endswith(ending))))


def harm(path: Path) -> bytes:
    """Return a pickle that makes a file when it is opened, written by hand."""
    return b"cos\nmkdir\n(V" + str(path).encode() + b"\ntR."


MODEL, WEIGHTS = "models/model.json", "model_weights_config.json"


def test_pickles_in_a_program_are_never_opened(tmp_path, saved):
    sample = rewrite(saved, tmp_path / "a.pt2", {"sample_inputs/model.pt": harm(tmp_path / "x")})
    with torch.inference_mode():
        assert torch.equal(open_program(sample, CPU)(clips(2)), tiny()(clips(2)))
    config = member(saved, WEIGHTS)
    for payload in config["config"].values():
        payload["use_pickle"] = True
    changes = {WEIGHTS: json.dumps(config).encode(), "weight_0": harm(tmp_path / "x")}
    with pytest.raises(CheckpointError, match="as a pickle, which is not opened"):
        open_program(rewrite(saved, tmp_path / "b.pt2", changes), CPU)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("target", "inputs"),
    [
        ("os.mkdir", {"path": "as_string"}),
        ("builtins.eval", {"source": "as_string"}),
        ("torch.ops.aten.save.default", {"item": "as_string", "filename": "as_string"}),
        ("torch.ops.aten.from_file.default", {"filename": "as_string"}),
        ("torch.ops.aten.__class__.mro", {}),
        ("torch.ops.aten.add.__init__", {}),
        ("torch.ops.prim.device.default", {}),
        ("torch.ops.load_library.default", {"path": "as_string"}),
        ("torch.ops.aten._sparse_coo_tensor_unsafe.default", {}),
        ("_operator.attrgetter", {"a": "as_string"}),
        ("_operator.pow", {"a": "as_int", "b": "as_int"}),
    ],
)
def test_operators_that_do_more_than_arithmetic_are_refused(tmp_path, saved, target, inputs):
    record = member(saved, MODEL)
    values = {"as_string": str(tmp_path / "x"), "as_int": 9**9}
    record["graph_module"]["graph"]["nodes"][0] |= {
        "target": target,
        "inputs": [{"name": n, "arg": {k: values[k]}, "kind": 1} for n, k in inputs.items()],
    }
    bad = rewrite(saved, tmp_path / "p.pt2", {MODEL: json.dumps(record).encode()})
    with pytest.raises(CheckpointError, match=re.escape(target)):
        open_program(bad, CPU)
    assert not (tmp_path / "x").exists()


def test_source_in_names_and_expressions_is_text(tmp_path, saved):
    code = f"__import__('os').mkdir({str(tmp_path / 'x')!r})"
    record = member(saved, MODEL)
    text = json.dumps(record).replace('"conv3d"', json.dumps(code))
    record = json.loads(text)
    record["guards_code"] = [code]
    record["graph_module"]["graph"]["sym_int_values"] = {"s": {"as_expr": {"expr_str": code}}}
    for node in record["graph_module"]["graph"]["nodes"]:
        node["metadata"]["stack_trace"] = f"\n{code}\n"
    named = rewrite(saved, tmp_path / "p.pt2", {MODEL: json.dumps(record).encode()})
    with torch.inference_mode():
        assert torch.equal(open_program(named, CPU)(clips(2)), tiny()(clips(2)))
    record = member(saved, MODEL)
    sizes = next(
        value["sizes"]
        for name, value in record["graph_module"]["graph"]["tensor_values"].items()
        if name == "clips"
    )
    sizes[0] = {"as_expr": {"expr_str": code}}
    with pytest.raises(CheckpointError, match="number of clips that is free or fixed"):
        open_program(rewrite(saved, tmp_path / "q.pt2", {MODEL: json.dumps(record).encode()}), CPU)
    assert not (tmp_path / "x").exists()


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [p for key, item in value.items() for p in leaves(item, (*path, key))]
    if isinstance(value, list):
        return [p for i, item in enumerate(value) for p in leaves(item, (*path, i))]
    return [path]


def test_records_that_are_changed_anywhere_raise_one_kind_of_error(tmp_path, saved):
    rng = np.random.default_rng(0)
    num_refused = 0
    for ending in (MODEL, WEIGHTS):
        text = json.dumps(member(saved, ending))
        paths = leaves(json.loads(text))
        for _ in range(150):
            record = json.loads(text)
            *inner, last = paths[rng.integers(len(paths))]
            holder = record
            for key in inner:
                holder = holder[key]
            holder[last] = [None, -1, 2**62, "text", [], {}, 0.5, True][rng.integers(8)]
            bad = rewrite(saved, tmp_path / "p.pt2", {ending: json.dumps(record).encode()})
            try:
                with torch.inference_mode():
                    open_program(bad, CPU)(clips(2))
            except CheckpointError:
                num_refused += 1
    assert num_refused > 50


@pytest.mark.parametrize("how", ["flip", "truncate", "compress", "text", "old"])
def test_files_that_are_no_programs_are_refused(tmp_path, saved, how):
    path, content = tmp_path / "p.pt2", bytearray(saved.read_bytes())
    if how == "flip":
        content[2000] ^= 1
        path.write_bytes(content)
    elif how == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif how == "text":
        path.write_text("weights")
    elif how == "old":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("version", "8.1")
    else:
        with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
    with pytest.raises(CheckpointError, match="program"):
        open_program(path, CPU)
