"""The commands that look at a store, write it out, learn from it and score, end to end."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from made_stores import even_times, write_store
from test_cli import complaint, run

import cli
from features import HEADS, METRICS
from manifests import SourceVideo, write_segments, write_sources

pytestmark = pytest.mark.slow

CLASSES = ["jump", "run"]


def annotate(rng: np.random.Generator) -> list[tuple[float, float, int]]:
    starts = np.sort(rng.choice(np.arange(1, 17, 3), 3, replace=False)).astype(float)
    return [(start, start + 2.4, int(rng.integers(2))) for start in starts.tolist()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stores and the segments of their 12 videos; the features tell the classes."""
    folder, rng = tmp_path_factory.mktemp("stores"), np.random.default_rng(0)
    rows, videos, others = [], {}, {}
    times_S3 = even_times(48, 0.4, 0.8)  # 8 frames every 4 at 10 frames/s
    for index in range(12):
        video_id = f"video_{index:02d}"
        feats_SD = rng.normal(1, 0.05, (48, 16))
        for start, end, label in annotate(rng):
            feats_SD[(times_S3[:, 1] >= start) & (times_S3[:, 1] < end), label] += 3
            rows.append(
                {
                    "video_id": video_id,
                    "label": CLASSES[label],
                    "start_seconds": start,
                    "end_seconds": end,
                    "subset": ("train", "test")[index % 2],
                }
            )
        videos[video_id] = (feats_SD, times_S3)
        others[video_id] = (feats_SD + rng.normal(0, 0.05, feats_SD.shape), times_S3)
    write_store(folder / "a.zarr", videos)
    write_store(folder / "b.zarr", others)
    write_segments(folder / "segments.parquet", rows, CLASSES)
    return folder


@pytest.mark.parametrize(("verb", "words"), [("evaluate", METRICS), ("probe", HEADS)])
def test_help_names_every_metric_and_head(verb: str, words: dict[str, object]) -> None:
    said = set(run(cli.features, verb, "--help").output.replace(",", " ").replace(".", " ").split())
    assert set(words) <= said


def test_diff(folder: Path) -> None:
    equal = run(cli.features, "diff", folder / "a.zarr", folder / "a.zarr")
    assert equal.exit_code == 0
    assert "equal" in equal.output
    result = run(cli.features, "diff", folder / "a.zarr", folder / "b.zarr", "--json")
    assert result.exit_code == 1
    assert len(json.loads(result.stdout)["distances"]) == 12


def test_export_with_annotations(folder: Path, tmp_path: Path) -> None:
    words = ("export", folder / "a.zarr", tmp_path / "out", "--format", "actionformer")
    result = run(cli.features, *words, "--segments", folder / "segments.parquet")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "annotations.json").read_text())["database"]
    other = ("export", folder / "a.zarr", tmp_path / "other", "--format", "npy", "--rule", "jjboy")
    assert "--rule" in complaint(run(cli.features, *other))


def test_probe_keeps_what_is_asked_and_evaluate_reads_it(folder: Path, tmp_path: Path) -> None:
    segments = folder / "segments.parquet"
    result = run(
        cli.features, "probe", folder / "a.zarr", "--segments", segments, "--json",
        "--detections", tmp_path / "found.json", "--pictures", tmp_path / "pictures",
        "--save", tmp_path / "head", "-o", tmp_path / "page.html",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["map"] > 0.9 > report["shuffled"]
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 6
    again = run(
        cli.features, "probe", folder / "a.zarr", "--segments", segments, "--json",
        "--trained", tmp_path / "head",
    )  # fmt: skip
    assert json.loads(again.stdout)["map"] == report["map"]
    more = run(
        cli.features, "probe", folder / "a.zarr", "--segments", segments,
        "--trained", tmp_path / "head", "--epochs", 3,
    )  # fmt: skip
    assert "it takes no epochs" in complaint(more)
    score = run(
        cli.features, "evaluate", tmp_path / "found.json", segments, "--metric", "activitynet",
        "--subset", "test", "--tiou", 0.5, "--json",
    )  # fmt: skip
    assert json.loads(score.stdout)["scores"]["mAP"] > 0.5


def test_probe_wants_other_videos_to_score_on(folder: Path) -> None:
    words = ("probe", folder / "a.zarr", "--segments", folder / "segments.parquet")
    said = complaint(run(cli.features, *words, "--test-subset", "train"))
    assert "scored on other videos" in said
    assert "--seed" in complaint(run(cli.features, *words, "--seed", -1))


def test_probe_with_a_detection_head(folder: Path, tmp_path: Path) -> None:
    words = ("probe", folder / "a.zarr", "--segments", folder / "segments.parquet")
    sizes = ("--argument", "temporal_scale=16", "--argument", "hidden_dim=8", "--epochs", 2)
    found = ("--detections", tmp_path / "found.json", "--pictures", tmp_path / "pictures")
    result = run(cli.features, *words, "--head", "bmn", *sizes, *found)
    assert result.exit_code == 0, result.output
    assert "AR@100" in result.stdout
    assert len(json.loads((tmp_path / "found.json").read_text())["results"]) == 6
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 6
    of_store = ("--class-scores", folder / "a.zarr", "--detections", tmp_path / "again.json")
    again = run(cli.features, *words, "--head", "bmn", *sizes, *of_store)
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "found.json").read_bytes()


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("linear", ()),
        ("pdan", ("--argument", "width=8")),
        ("gtad", ("--argument", "temporal_scale=16", "--argument", "hidden_dim=8")),
        ("bmn", ("--argument", "temporal_scale=16", "--argument", "hidden_dim=8")),
    ],
)
def test_videos_without_a_segment_are_annotated_too(
    folder: Path, tmp_path: Path, head: str, options: tuple[str, ...]
) -> None:
    """Those that the sources table beside the segments gives a subset."""
    segments = pq.read_table(folder / "segments.parquet")
    kept = segments.filter(
        pc.invert(pc.is_in(segments["video_id"], pa.array(["video_00", "video_01"])))
    )
    pq.write_table(kept, tmp_path / "segments.parquet")
    videos = [
        SourceVideo(f"video_{i:02d}", "v.mp4", subset=("train", "test")[i % 2]) for i in range(12)
    ]
    write_sources(tmp_path / "sources.parquet", videos, [])
    words = ("probe", folder / "a.zarr", "--segments", tmp_path / "segments.parquet", "--json")
    epochs = () if head == "linear" else ("--epochs", 1)
    result = run(cli.features, *words, "--head", head, *options, *epochs)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["num_train_videos"], report["num_test_videos"]) == (6, 6)
    words = ("export", folder / "a.zarr", tmp_path / "out", "--format", "pdan")
    result = run(cli.features, *words, "--segments", tmp_path / "segments.parquet")
    assert result.exit_code == 0, result.output
    stated = json.loads((tmp_path / "out" / "charades.json").read_text())
    assert stated["video_01"] == {**stated["video_01"], "subset": "testing", "actions": []}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--head", "bmm"), "must be one of linear"),
        (("--head", "gtad", "--save", "kept"), "--save is for heads that predict frames"),
        (("--head", "bmn", "--argument", "width=8"), "temporal_scale"),
        (("--head", "pdan", "--argument", "widht=8"), "width"),
        (("--class-scores", "scores.json"), "heads that predict segments"),
        (("--test-subset", "none"), "'none'"),
    ],
)
def test_impossible_probes(folder: Path, words: tuple[object, ...], said: str) -> None:
    segments = folder / "segments.parquet"
    result = run(cli.features, "probe", folder / "a.zarr", "--segments", segments, *words)
    assert said in complaint(result)


def test_pictures_of_what_was_learned(folder: Path, tmp_path: Path) -> None:
    segments = folder / "segments.parquet"
    words = ("boundary", folder / "a.zarr", segments, "-o", tmp_path / "boundary.png", "--json")
    assert json.loads(run(cli.features, *words).stdout)["auc"] > 0.9
    words = ("similarity", folder / "a.zarr", tmp_path / "out", "--segments", segments)
    result = run(cli.features, *words, "--video", "video_03")
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["video_03.png"]
    assert "sources" in complaint(run(cli.features, *words, "--checkpoint", tmp_path))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "one of --checkpoint and --streams"),
        (("--checkpoint", "run", "--streams", "a=run"), "one of --checkpoint and --streams"),
        (("--streams", "run"), "NAME=RUN"),
        (("--streams", "a=run,a=other"), "must differ"),
        (("--streams", "a=s3://bucket/run"), "local path"),
    ],
)
def test_runs_that_are_named_wrongly(
    folder: Path, tmp_path: Path, given: tuple[str, ...], said: str
) -> None:
    sources = tmp_path / "sources.parquet"
    write_sources(sources, [SourceVideo("a", "a.mp4")], [])
    words = ("extract", sources, "--store", tmp_path / "s.zarr", *given)
    assert said in complaint(run(cli.features, *words))
