"""Figures: repeatable bytes, untouched global state, bars where the segments are."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from features.pictures.colours import class_colour, class_rgb
from features.pictures.figure import (
    class_legend,
    ground_truth_bar,
    new_figure,
    style_axes,
    write_figure,
)

SEGMENTS = [(4.0, 6.0, 1), (0.0, 2.0, 0), (1.0, 5.0, 2)]


def drawn() -> Figure:
    figure = new_figure(4, 2)
    axes = figure.subplots()
    style_axes(axes, title="title", x_label="time [s]")
    axes.plot([0, 1, 2], [3, 1, 2])
    class_legend(figure, ["a", "b", "c"], [0, 2])
    return figure


def test_equal_figures_give_equal_bytes_without_a_program_name(tmp_path: Path) -> None:
    """No time and no version in a file: pictures can be compared by their bytes."""
    for name in ("a.png", "b.png"):
        write_figure(tmp_path / name, drawn())
    content = (tmp_path / "a.png").read_bytes()
    assert content == (tmp_path / "b.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert b"atplotlib" not in content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_global_state_is_neither_changed_nor_followed(tmp_path: Path) -> None:
    """A user's own font, or backend, stays theirs and does not change our files."""
    before, backend = dict(mpl.rcParams), mpl.rcParams._get_backend_or_none()  # type: ignore[attr-defined]
    write_figure(tmp_path / "plain.png", drawn())
    assert dict(mpl.rcParams) == before
    assert mpl.rcParams._get_backend_or_none() == backend  # type: ignore[attr-defined]
    with mpl.rc_context({"font.family": "serif", "savefig.dpi": 40}):
        write_figure(tmp_path / "serif.png", drawn())
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "serif.png").read_bytes()


@pytest.mark.filterwarnings("error")  # of a layout that does not fit
def test_many_long_names_leave_room_for_what_is_drawn(tmp_path: Path) -> None:
    figure = new_figure(4, 3)
    axes = figure.subplots()
    names = [f"putting clothes somewhere and closing the door {i} $_$" for i in range(157)]
    class_legend(figure, names, range(157))
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[-1] == "and 133 more"
    assert max(map(len, labels)) == 24
    write_figure(tmp_path / "many.png", figure)
    inches = axes.get_position().height * figure.get_figheight()
    assert inches > 2
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.y1 <= axes.get_window_extent().y0


@pytest.mark.parametrize("vertical", [False, True])
def test_segments_become_bars_in_lanes(vertical: bool) -> None:
    """Overlapping segments get lanes of their own; a lane is taken again once it is free."""
    axes = new_figure(4, 1).subplots()
    ground_truth_bar(axes, SEGMENTS, (0.0, 8.0), vertical=vertical)
    bars = [patch.get_bbox() for patch in axes.patches]  # type: ignore[attr-defined]
    along = [(bar.y0, bar.y1) if vertical else (bar.x0, bar.x1) for bar in bars]
    across = [(bar.x0, bar.x1) if vertical else (bar.y0, bar.y1) for bar in bars]
    assert along == [(0, 2), (1, 5), (4, 6)]
    np.testing.assert_allclose(across, [(0.04, 0.46), (0.54, 0.96), (0.04, 0.46)])
    assert (axes.get_ylim() if vertical else axes.get_xlim()) == ((8, 0) if vertical else (0, 8))
    colours = [to_rgb(patch.get_facecolor()) for patch in axes.patches]
    np.testing.assert_allclose(np.array(colours), np.array([class_rgb(k) for k in (0, 2, 1)]))


def test_colours_agree_in_css_and_rgb() -> None:
    """217 degrees, 68 %, 48 %: blue; the tenth-next class has its hue, darker."""
    assert class_colour(0) == "hsl(217 68% 48%)"
    assert class_colour(10) == "hsl(217 68% 36%)"
    np.testing.assert_allclose(class_rgb(0), (0.1536, 0.4039, 0.8064), atol=5e-4)
    assert len({class_rgb(index) for index in range(30)}) == 30
