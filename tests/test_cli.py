"""The commands: help with an example per verb, exit statuses, and one sentence for bad input."""

import json
import shutil
import tomllib
from fractions import Fraction
from importlib.resources import files
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from made_dataset import RECIPE, digests, make_sources, write_recipe

import cli
from manifests import UsageError, write_atomic
from manifests.recipe_tables import SECTIONS
from manifests.tables import write_segments
from synth import write_plan
from synth.recipe import read_recipe
from train import read_train_recipe

SYNTH_VERBS = ("manifest", "plan", "render", "status", "verify", "preview", "demo")
FEATURES_VERBS = (
    *("extract", "predict", "info", "verify", "diff", "export", "probe", "evaluate"),
    *("similarity", "boundary"),
)

SHIPPED = sorted(path.stem for path in Path(str(files("manifests.recipes"))).glob("*.toml"))


def run(command: click.Command, *words: object) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words])


def complaint(result: Result, status: int = 2) -> str:
    """Return the one sentence that a failing command says."""
    assert result.exit_code == status, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos, sources.parquet, recipe.toml, plan/ and shards/."""
    folder = tmp_path_factory.mktemp("made")
    sources = make_sources(folder)
    recipe = write_recipe(folder)
    assert run(cli.synth, "plan", recipe, sources, "-o", folder / "plan").exit_code == 0
    result = run(cli.synth, "render", folder / "plan", folder / "shards", "--workers", 0)
    assert result.exit_code == 0, result.output
    return folder


@pytest.mark.parametrize(
    ("command", "verb"),
    [(cli.synth, verb) for verb in SYNTH_VERBS] + [(cli.features, verb) for verb in FEATURES_VERBS],
)
def test_every_verb_has_help_with_an_example(command: click.Group, verb: str) -> None:
    result = run(command, verb, "--help")
    assert result.exit_code == 0
    assert f"{command.name} {verb} " in result.output.partition("Example")[2]


def test_train_has_help_with_an_example() -> None:
    assert "train ssdet" in run(cli.train, "--help").output


def test_results_are_json_on_stdout_and_progress_is_not(made: Path) -> None:
    result = run(cli.synth, "status", made / "shards", "--json")
    assert json.loads(result.stdout)["is_complete"] is True
    result = run(cli.synth, "verify", made / "shards", "--plan", made / "plan", "--json")
    assert json.loads(result.stdout)["problems"] == []
    assert "verify:" in result.stderr


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_are_valid(name: str) -> None:
    path = Path(str(files("manifests.recipes") / f"{name}.toml"))
    assert set(tomllib.loads(path.read_text())) == set(SECTIONS)
    assert read_recipe(path).kinds
    training = read_train_recipe(path)
    assert (training.steps is None) != (training.epochs is None)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    out = tmp_path / "sources.parquet"
    missing = complaint(run(cli.synth, "manifest", tmp_path / "none", "-o", out))
    assert "none" in missing
    (tmp_path / "empty").mkdir()
    empty = complaint(run(cli.synth, "manifest", tmp_path / "empty", "-o", out))
    assert "empty" in empty
    assert not out.exists()


def test_unreadable_video_is_a_rejected_row(made: Path, tmp_path: Path) -> None:
    for label in ("bounce", "turn"):
        shutil.copytree(made / label, tmp_path / "videos" / label)
    (tmp_path / "videos" / "turn" / "text.mp4").write_text("no video")
    out = tmp_path / "sources.parquet"
    result = run(cli.synth, "manifest", tmp_path / "videos", "-o", out, "--workers", 1)
    assert result.exit_code == 1
    assert "1 of 7 videos were rejected" in result.stderr
    rows = pq.read_table(out).to_pylist()
    assert [row["video_id"] for row in rows if row["status"] == "rejected"] == ["text"]
    assert all(row["reason"] for row in rows if row["status"] == "rejected")
    relaxed = [
        "manifest", tmp_path / "videos", "-o", out, "--workers", 1, "--max-rejected", 0.5
    ]  # fmt: skip
    assert run(cli.synth, *relaxed).exit_code == 0


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("frame_stride = 2", "frame_strde = 2", "did you mean 'frame_stride'"),
        ("frames = 8", 'frames = "8"', "synth.frames must be a whole number"),
        ("frames = 8", "frames = 0", "frames must be >= 1"),
        ("mixup = 1", "mixpu = 1", "'mixup'"),
        ("[synth]", "[snth]", "did you mean 'synth'"),
        ("frames = 8", "frames = ", "not valid TOML"),
        ("frames = 8", "frames = 80", "no video is long enough for 80 frames x stride 2"),
        ("crop = 64", "crop = 65", "crop must be in 1..short_side"),
    ],
)
def test_wrong_recipes(made: Path, tmp_path: Path, old: str, new: str, says: str) -> None:
    recipe = write_recipe(tmp_path, RECIPE.replace(old, new))
    result = run(cli.synth, "plan", recipe, made / "sources.parquet", "-o", tmp_path / "plan")
    assert says in complaint(result)
    assert not (tmp_path / "plan").exists()


NEW_KINDS = """
[synth]
frames = 8
frame_stride = 1
short_side = [64, 64]
crop = 64
[synth.kinds]
boundary = 1
"""


def test_plan_says_what_it_drew_and_left_out(made: Path, tmp_path: Path) -> None:
    table = pq.read_table(made / "sources.parquet")
    few = table.take([0, 1, 2, 3, 6])  # three of one class, one of each other
    pq.write_table(few, tmp_path / "few.parquet")
    recipe = write_recipe(tmp_path, NEW_KINDS.replace("crop", "samples_per_video = 20\ncrop"))
    result = run(cli.synth, "plan", recipe, tmp_path / "few.parquet", "-o", tmp_path / "plan")
    assert result.exit_code == 0, result.output
    for op in ("diff_class", "same_class", "diff_speed", "same_speed"):
        assert f" x {op}\n" in result.stdout
    assert "  100 x boundary\n" in result.stdout
    assert "2 videos are the only one of their class" in result.stdout
    assert "held another plan" not in result.stdout
    recipe = write_recipe(tmp_path, NEW_KINDS.replace("crop", "samples_per_video = 2\ncrop"))
    result = run(cli.synth, "plan", recipe, tmp_path / "few.parquet", "-o", tmp_path / "plan")
    assert "plan held another plan, which this one replaces\n" in result.stdout
    for command in ("status", "verify"):
        result = run(cli.synth, command, tmp_path / "plan")
        assert result.exit_code == 2
        assert "holds a plan, not shards" in result.stderr


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("frames = 8", "frames = 9", "frames must be even"),
        ("frames = 8", "frames = 16", "diff_speed at gamma 4, which reads 58 frames x stride 1"),
        ("boundary = 1", "pal = 1\n[synth.pal]\nnum_clips = 3", "multiple of pal.num_clips"),
        ("boundary = 1", "annotated = 1\nclip = 1", "needs a plan of its own"),
        ("boundary = 1", "annotated = 1", "needs annotated segments: there is no"),
        ("boundary = 1", "boundary = 1\n[synth.boundary]\ngammas = [1.1]", "boundary.gammas"),
    ],
)
def test_wrong_recipes_of_new_kinds(
    made: Path, tmp_path: Path, old: str, new: str, says: str
) -> None:
    recipe = write_recipe(tmp_path, NEW_KINDS.replace(old, new))
    result = run(cli.synth, "plan", recipe, made / "sources.parquet", "-o", tmp_path / "plan")
    assert says in complaint(result)
    assert not (tmp_path / "plan").exists()


def test_annotated_plans_take_segments_from_beside_the_sources_or_as_told(
    made: Path, tmp_path: Path
) -> None:
    rows = [
        {"video_id": name, "label": "up", "label_id": 0, "start_seconds": 0.0, "end_seconds": 0.5}
        for name in ("bounce_0", "turn_1", "zoom_2")
    ]
    segments = tmp_path / "segments.parquet"
    write_segments(segments, rows, ["up"])
    recipe = write_recipe(tmp_path, NEW_KINDS.replace("boundary", "annotated"))
    words = ("plan", recipe, made / "sources.parquet", "-o", tmp_path / "plan")
    assert "there is no" in complaint(run(cli.synth, *words))
    result = run(cli.synth, *words, "--segments", segments)
    assert result.exit_code == 0, result.output
    assert "3 samples in 1 shards from 3 videos" in result.stdout
    other = write_recipe(tmp_path, NEW_KINDS)
    result = run(cli.synth, "plan", other, *words[2:], "--segments", segments)
    assert "--segments belongs to kind 'annotated'" in complaint(result)
    table = pq.read_table(made / "sources.parquet")  # elsewhere: no file stands where it says
    pq.write_table(table, tmp_path / "sources.parquet")
    recipe = write_recipe(tmp_path, NEW_KINDS.replace("boundary", "annotated"))
    words = ("plan", recipe, tmp_path / "sources.parquet", "-o", tmp_path / "plan2")
    assert "none of the 3 videos with annotated segments can be read" in complaint(
        run(cli.synth, *words)
    )
    shutil.copytree(made / "turn", tmp_path / "turn")
    result = run(cli.synth, *words)
    assert result.exit_code == 1
    assert "2 videos cannot be read and are left out" in result.stdout
    assert "2 videos are too short or cannot be read, more than --max-rejected" in result.stderr


@pytest.mark.parametrize("words", [("demo",), ("preview", "shards", "-o")])
def test_a_url_does_not_become_a_local_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "local path" in complaint(run(cli.synth, *words, "s3://bucket/out"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_everything_in_a_bucket(made: Path, tmp_path: Path, bucket: str) -> None:
    """Videos, table, plan and shards are objects; the bytes are those of local files."""
    for path in made.glob("*/*.mp4"):
        write_atomic(f"{bucket}/data/{path.parent.name}/{path.name}", path.read_bytes())
    write_atomic(f"{bucket}/data/sources.parquet", (made / "sources.parquet").read_bytes())
    recipe = write_recipe(tmp_path)
    sources, plan, out = f"{bucket}/data/sources.parquet", f"{bucket}/plan", f"{bucket}/out"
    assert run(cli.synth, "plan", recipe, sources, "-o", plan).exit_code == 0
    local = tmp_path / "plan"
    assert run(cli.synth, "plan", recipe, made / "sources.parquet", "-o", local).exit_code == 0
    for words in (
        ("render", plan, out, "--workers", 0),
        ("render", local, tmp_path / "out", "--workers", 0),
        ("render", plan, out),  # nothing is left to do
        ("status", out, "--plan", plan),
        ("verify", out, "--plan", plan, "--deep", "--workers", 0),
        ("preview", out, "-o", tmp_path / "preview.html"),
    ):
        assert run(cli.synth, *words).exit_code == 0, words
    ours, theirs = digests(out), digests(tmp_path / "out")
    assert ours.keys() == theirs.keys()
    assert all(ours[name] == theirs[name] for name in ours if name.endswith((".tar", ".parquet")))


def test_a_bucket_that_is_not_there(made: Path, tmp_path: Path, bucket: str) -> None:
    write_plan(write_recipe(tmp_path), made / "sources.parquet", tmp_path / "plan")
    result = run(cli.synth, "render", tmp_path / "plan", f"{bucket}-not/out", "--workers", 0)
    assert result.exit_code == 2
    assert "bucket" in complaint(result)


def test_tables_that_cannot_be_planned(made: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    table = pq.read_table(made / "sources.parquet")
    position = table.column_names.index("label_id")

    def plan(changed) -> str:
        path = tmp_path / "changed.parquet"
        pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)
        return complaint(run(cli.synth, "plan", recipe, path, "-o", tmp_path / "plan"))

    one_class = pa.array([0] * len(table), pa.int32())
    assert "two classes" in plan(table.set_column(position, table.schema[position], one_class))
    no_label = pa.array([None, *table["label_id"].to_pylist()[1:]], pa.int32())
    assert "needs a label" in plan(table.set_column(position, table.schema[position], no_label))
    assert "'num_frames' is missing" in plan(table.drop_columns(["num_frames"]))


def test_plans_outputs_and_sources_that_do_not_match(made: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, RECIPE.replace("seed = 7", "seed = 8"))
    run(cli.synth, "plan", recipe, made / "sources.parquet", "-o", tmp_path / "plan")
    result = run(cli.synth, "render", tmp_path / "plan", made / "shards", "--workers", 0)
    assert "another plan" in complaint(result)
    other = make_sources(tmp_path / "other", per_class=1)
    result = run(
        cli.synth, "render", tmp_path / "plan", tmp_path / "out", "--workers", 0, "--sources", other
    )
    assert "another sources table" in complaint(result)
    result = run(cli.synth, "render", made / "none", tmp_path / "out", "--workers", 0)
    assert "no plan.parquet" in complaint(result)
    assert not (tmp_path / "out").exists()


def test_unfinished_and_damaged_shards(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(made / "shards", out)
    recipe = files("manifests.recipes") / "demo-ssdet.toml"
    tar = out / "shard-000000.tar"
    tar.chmod(0o644)
    tar.write_bytes(tar.read_bytes()[:-4096])
    result = run(cli.train, recipe, "--shards", out, "--out", tmp_path / "run")
    assert "shard-000000.tar" in complaint(result)
    result = run(cli.synth, "verify", out)
    assert result.exit_code == 1
    (out / "dataset.json").unlink()
    result = run(cli.train, recipe, "--shards", out, "--out", tmp_path / "run")
    assert "not finished" in complaint(result)
    assert run(cli.synth, "status", out).exit_code == 1
    assert not (tmp_path / "run").exists()


def test_a_store_or_run_that_is_none(made: Path, tmp_path: Path) -> None:
    complaint(run(cli.features, "info", tmp_path / "none.zarr"))
    complaint(run(cli.features, "verify", made))
    result = run(
        cli.features, "extract", made / "sources.parquet", "--checkpoint", tmp_path,
        "--store", tmp_path / "s.zarr",
    )  # fmt: skip
    complaint(result)
    result = run(
        cli.features, "extract", made / "sources.parquet", "--checkpoint", tmp_path,
        "--store", tmp_path / "s.zarr", "--fps", "fast",
    )  # fmt: skip
    assert "--fps must be a number" in complaint(result)


@pytest.mark.parametrize("text", ["1e999999999", "1/0", "-5", "nan", "15/2/2", "7.5/1e9", ""])
def test_rates_that_are_none(text: str) -> None:
    """An exponent would also keep the processor busy for ever."""
    with pytest.raises(UsageError, match="--fps must be a number or a fraction"):
        cli.rate(text)
    assert cli.rate("7.5") == Fraction(15, 2)
    assert cli.rate("30000/1001") == Fraction(30000, 1001)


def test_reports_become_json_without_nan() -> None:
    assert cli.plain({"loss": float("nan"), "path": Path("x"), "n": (1, 2.5, None)}) == {
        "loss": None,
        "path": "x",
        "n": [1, 2.5, None],
    }


def test_an_impossible_output_is_wrong_use(made: Path) -> None:
    result = run(cli.synth, "preview", made / "shards", "-o", "/proc/none/preview.html")
    complaint(result, cli.WRONG_USE)
