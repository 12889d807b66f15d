"""The page of a run: counts that add up, text that stays text, no reference to the outside."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_clock import FakeClock
from made_results import made_report, made_result

from manifests import to_path
from synth.render_chart import TICK_SECONDS, Scale, draw_over_time, round_up, say_tick, tick_seconds
from synth.render_log import RenderLog
from synth.render_page import PAGE_NAME, RejectedSample, build_page, write_render_page
from synth.shards import shard_path, write_index

EVIL = "</td><script>alert('1')</script>&amp;\udc80"


class Page(HTMLParser):
    """Tags, attributes and text of a page; unbalanced tags fail."""

    VOID = frozenset({"meta", "path"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += f"{data}\n"


def made_log(num_shards: int = 6) -> RenderLog:
    """Return the log of a run that finished shards 1 to 4 of 6; shard 0 was done before."""
    clock = FakeClock()
    log = RenderLog(num_shards, 10 * num_shards, clock)
    log.found(vars(made_report(0, reasons={"too short": 1})))
    for shard in range(1, 5):
        clock.now += 8
        log.finish(made_result(shard, 7.0 + shard, reasons={"cannot be decoded": 2}, node=EVIL))
    return log


def index_row(key: str, reason: str | None) -> dict[str, object]:
    status = "rendered" if reason is None else "rejected"
    row = {"key": key, "status": status, "reason": reason, "offset": None, "bytes": None}
    return {**row, "kind": "clip", "video_ids": ["v"]}


def test_interrupted_run() -> None:
    page = Page(build_page(made_log(), "shards", {}))
    assert "Stopped before the end." in page.text
    assert "An earlier run had finished 1 shard." in page.text
    words = page.text.split("\n")
    for number, name in [
        ("41", "of 60 samples rendered"),
        ("9", "rejected"),
        ("5", "of 6 shards done"),
        ("1.25 samples/s", "mean of this run"),
        ("100 MB", "peak memory of a worker"),
        ("40.0 kB", "written"),
    ]:
        at = [k for k, word in enumerate(words) if word == name]
        assert any(number in words[max(k - 2, 0) : k + 3] for k in at), name
    assert "5 of 6" in page.text
    assert "Rejected samples\n" in page.text
    assert "Failed shards" not in page.text
    assert "Tried again" not in page.text


def test_finished_run_without_a_rejection() -> None:
    log = RenderLog(1, 10, FakeClock())
    log.finish(made_result(0, 0.0))
    page = Page(build_page(log, "shards", {}))
    assert "All 1 shard of the plan are done." in page.text
    assert "None." in page.text
    assert "Rejected samples\n" not in page.text


def test_failed_run_lists_shards_with_reasons() -> None:
    log = made_log(200)
    for shard in range(5, 110):
        log.retry(shard, f"a render process died: signal {shard}")
        log.fail(shard, f"a render process died: signal {shard}")
    page = Page(build_page(log, "shards", {}))
    assert "105 shards could not be rendered." in page.text
    assert "a render process died: signal 104" in page.text
    assert "5 more are not listed." in page.text
    assert "signal 109" not in page.text.partition("Tried again")[0]
    assert "Tried again" in page.text


def test_run_in_which_everything_failed() -> None:
    log = RenderLog(1, 10)
    log.fail(0, "No space left on device")
    page = Page(build_page(log, "shards", {}))
    assert "1 shard could not be rendered." in page.text
    assert "No space left on device" in page.text


def test_text_stays_text() -> None:
    log = made_log()
    log.finish(made_result(5, reasons={EVIL: 1}))
    log.retry(6, EVIL)
    log.fail(6, EVIL)
    html = build_page(log, EVIL, {EVIL: [RejectedSample(EVIL, EVIL)]})
    page = Page(html)
    assert "script" not in page.tags
    # Title and head; reason of failed, tried again and rejected; key and details; five nodes.
    assert page.text.count(EVIL) == 12
    assert not any(name.startswith("on") for name, _ in page.attributes)


def test_page_refers_to_nothing_outside() -> None:
    html = build_page(made_log(), "shards", {})
    assert not re.search(r"https?:|//|url\(|@import|src=|href=", html)


def test_page_is_written_with_examples_from_the_indices(tmp_path: Path) -> None:
    log = made_log()
    for shard in (1, 2):
        rows = [
            index_row(f"{shard}0", None),
            index_row(f"{shard}1", "cannot be decoded: v.mp4: bad <header>"),
            index_row(f"{shard}2", "cannot be decoded"),
            index_row(f"{shard}3", "too short"),
        ]
        write_index(shard_path(tmp_path, shard, "parquet"), rows)
    shard_path(tmp_path, 3, "parquet").write_bytes(b"no index")
    write_render_page(log, tmp_path)
    page = Page((tmp_path / PAGE_NAME).read_text(encoding="utf-8"))
    shown = page.text.partition("Rejections")[2].partition("Slowest")[0]
    assert re.findall(r"^\d\d$", shown, re.MULTILINE) == ["11", "12", "21"]
    assert "v.mp4: bad <header>" in shown
    assert "too short" in shown  # its example, shard 0, has no index any more


def test_run_with_nothing_to_do_leaves_the_page_before(tmp_path: Path) -> None:
    write_render_page(RenderLog(4, 40), tmp_path)
    assert not list(tmp_path.iterdir())
    write_render_page(made_log(), tmp_path)
    before = (tmp_path / PAGE_NAME).read_bytes()
    log = RenderLog(4, 40)
    log.found(vars(made_report(0)))
    write_render_page(log, tmp_path)
    assert (tmp_path / PAGE_NAME).read_bytes() == before


@pytest.mark.slow
def test_page_in_an_object_store(bucket: str) -> None:
    write_render_page(made_log(), f"{bucket}/shards")
    assert (to_path(bucket) / "shards" / PAGE_NAME).read_text().startswith("<!DOCTYPE html>")


def test_page_stays_small() -> None:
    clock = FakeClock()
    log = RenderLog(100_000, 1_000_000, clock)
    for shard in range(3000):
        clock.now += 7
        log.finish(made_result(shard, 60.0, reasons={f"reason {shard}" * 99: 1}, node=f"n{shard}"))
        log.fail(shard, "x" * 10_000)
    assert len(build_page(log, "shards", {})) < 400_000


def test_chart_is_drawn_to_scale() -> None:
    """Stretches of 2 s with 1, 3 and 2 in a run of 5 s; the top is 4."""
    scale = Scale(4.0, lambda value: f"{value:g}")
    html = draw_over_time("Shards", "mean 2", [1, 3, 2], 2.0, 5.0, scale, "red")
    assert 'd="M0 0.75V0.75H0.4V0.25H0.8V0.5H1"' in html
    assert re.findall(r"top:([\d.]+)%", html) == ["100", "50", "0"]
    assert re.findall(r"left:([\d.]+)%\">([^<]*)", html) == [
        ("0", "0"),
        *((str(20 * second), f"{second} s") for second in range(1, 6)),
    ]
    assert 'title="after 2 s: 3"' in html


def test_scale_of_counts_has_no_halves() -> None:
    assert Scale(79, str, is_whole=True).ticks == [0, 79]
    assert Scale(80, str, is_whole=True).ticks == [0, 40, 80]


@given(st.floats(1e-9, 1e15))
def test_scales_end_at_round_numbers(value: float) -> None:
    top = round_up(value)
    assert value <= top <= 2 * value
    assert float(f"{top:.0e}") == pytest.approx(top)


@given(st.floats(0.001, 1e8))
def test_time_axis_has_few_ticks(seconds: float) -> None:
    step = tick_seconds(seconds)
    assert seconds / step <= 8
    assert step == TICK_SECONDS[0] or seconds / step > 2


@pytest.mark.parametrize(
    ("tick", "step", "name"),
    [
        (0, 60, "0"),
        (20, 10, "20 s"),
        (90, 30, "1:30 min"),
        (600, 300, "10 min"),
        (5400, 1800, "1:30 h"),
        (1800, 1800, "30 min"),
        (10_800, 3600, "3 h"),
        (172_800, 43_200, "48 h"),
        (172_800, 86_400, "2 d"),
    ],
)
def test_names_of_ticks(tick: float, step: float, name: str) -> None:
    assert say_tick(tick, step) == name
