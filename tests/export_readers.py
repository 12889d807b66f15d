"""Small readers of other tools' files, written from the documented formats and nothing else.

Each returns, by video name, the features `(T, C)` as the tool would see them and the seconds of its
rows by the tool's own formula.
"""

import ast
import csv
import json
import re
from pathlib import Path

import h5py
import numpy as np

Read = dict[str, tuple[np.ndarray, np.ndarray]]


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def yaml_scalars(path: Path) -> dict[str, object]:
    """Read `name: scalar` lines, whatever their depth."""
    found: dict[str, object] = {}
    words = {"true": True, "false": False, "null": None}
    for line in path.read_text().splitlines():
        if match := re.fullmatch(r" *(\w+): +(.+)", line):
            text = match[2]
            found[match[1]] = words[text] if text in words else _literal(text)
    return found


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def python_arguments(path: Path) -> dict[str, list[object]]:
    """Read every `name = literal` and `name=literal` of a Python file, in order."""
    found: dict[str, list[object]] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        pairs = []
        if isinstance(node, ast.keyword) and node.arg:
            pairs = [(node.arg, node.value)]
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            pairs = [(node.targets[0].id, node.value)]
        for name, value in pairs:
            if isinstance(value, ast.Constant):
                found.setdefault(name, []).append(value.value)
    return found


def options(path: Path) -> dict[str, str]:
    """Read `--name value` lines."""
    lines = [line.split() for line in path.read_text().splitlines() if line.startswith("--")]
    return {name[2:]: value for name, value in lines}


def read_actionformer(folder: Path) -> Read:
    """t = (g * s' + 0.5 * w) / r; feat_stride <= 0: s' = D * r / L, w = s'."""
    config = yaml_scalars(folder / "actionformer.yaml")
    database = json.loads((folder / config["json_file"]).read_text())["database"]
    found = {}
    for name, entry in database.items():
        path = folder / config["feat_folder"] / f"{config['file_prefix']}{name}{config['file_ext']}"
        feats_TC = np.load(path).astype(np.float32)
        rate = config["default_fps"] or entry["fps"]
        stride, window = config["feat_stride"], config["num_frames"]
        if stride <= 0:
            stride = window = entry["duration"] * rate / config["max_seq_len"]
        found[name] = feats_TC, (np.arange(len(feats_TC)) * stride + 0.5 * window) / rate
    return found


def read_opentad(folder: Path) -> Read:
    """t = (g * snippet_stride + offset_frames) / r; resize: t = g / L * D, a row is [g, g + 1]."""
    config = python_arguments(folder / "opentad.py")
    database = json.loads((folder / config["annotation_path"][0]).read_text())["database"]
    blocked = (folder / config["block_list"][0]).read_text().splitlines()
    found = {}
    for name, entry in database.items():
        if name in blocked:
            continue
        feats_TC = np.load(folder / config["data_path"][0] / f"{name}.npy")
        row_T = np.arange(len(feats_TC))
        if "resize_length" in config:
            assert len(feats_TC) == config["resize_length"][0]
            found[name] = feats_TC, (row_T + 0.5) / len(feats_TC) * entry["duration"]
            continue
        stride = config["feature_stride"][0] * config["sample_stride"][0]
        rate = entry["frame"] / entry["duration"]
        found[name] = feats_TC, (row_T * stride + config["offset_frames"][0]) / rate
    return found


def read_gtad_thumos(folder: Path) -> Read:
    """Rows [::5], flow then rgb, cut to the shorter; snippet k is frame 5 k, t = frame / fps."""
    rates = {
        row["video-name"]: float(row["frame-rate"])
        for row in read_rows(folder / "thumos14_test_groundtruth.csv")
    }
    found = {}
    for csv_name in ("val", "test"):
        for name in {row["video"] for row in read_rows(folder / f"{csv_name}_Annotation.csv")}:
            split = "val" if "val" in name else "test"
            flow, rgb = (
                h5py.File(folder / f"{stream}_{split}.h5")[name][::5] for stream in ("flow", "rgb")
            )
            num = min(len(flow), len(rgb))
            feats_TC = np.concatenate([flow[:num], rgb[:num]], axis=1)
            found[name] = feats_TC, np.arange(num) * 5 / rates.get(name, 25.0)
    return found


def read_gtad_anet(folder: Path) -> Read:
    file = h5py.File(folder / "csv_mean_100.hdf5")
    return {name: (file[name][...], seconds) for name, seconds in _bin_seconds(folder).items()}


def read_bmn(folder: Path) -> Read:
    """csv_mean_100/<v_id>.csv: a header and 100 rows."""
    return {
        name: (
            np.loadtxt(
                folder / "csv_mean_100" / f"{name}.csv", np.float32, delimiter=",", skiprows=1
            ),
            seconds,
        )
        for name, seconds in _bin_seconds(folder).items()
    }


def _bin_seconds(folder: Path) -> dict[str, np.ndarray]:
    """D_c = feature_frame / duration_frame * duration_second; bin i is [i, i + 1] / 100 * D_c."""
    entries: dict[str, dict] = {}
    for path in sorted(folder.glob("anet_anno_*.json")):
        entries |= json.loads(path.read_text())
    return {
        name: (np.arange(100) + 0.5)
        / 100
        * (entry["feature_frame"] / entry["duration_frame"] * entry["duration_second"])
        for name, entry in entries.items()
    }


def read_frame_labels(folder: Path, stream: str, num_classes: int) -> dict[str, tuple]:
    """(T,1,1,C), r = T / D, label iff start < i / r < end; seconds i / r, and labels (T, K)."""
    found = {}
    for name, entry in json.loads((folder / "charades.json").read_text()).items():
        feats = np.load(folder / stream / f"{name}.npy")
        assert feats.shape[1:3] == (1, 1)
        rate = len(feats) / entry["duration"]
        labels_TK = np.zeros((len(feats), num_classes), bool)
        for row in range(len(feats)):
            for class_index, start, end in entry["actions"]:
                labels_TK[row, class_index] |= start < row / rate < end
        found[name] = feats[:, 0, 0], np.arange(len(feats)) / rate, labels_TK, entry["subset"]
    return found


def read_sentences(folder: Path, split: str) -> list[tuple[str, float, float, str, float]]:
    """Lines `vid start end##sentence.`, lengths from the CSV."""
    lengths = {
        row["id"]: float(row["length"]) for row in read_rows(folder / f"Charades_v1_{split}.csv")
    }
    found = []
    for line in (folder / f"charades_sta_{split}.txt").read_text().splitlines(keepends=True):
        place, sentence = line.split("##")
        video, start, end = place.split(" ")
        assert sentence.endswith(".\n")
        found.append((video, float(start), float(end), sentence[:-2], lengths[video]))
    return found
