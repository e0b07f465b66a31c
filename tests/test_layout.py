"""Figures of few and many methods, steps and classes: nothing is cut, upon anything else or unreadable."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_boxes import faults
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text
from test_figures import WRITERS, write_run
from test_pictures import write_run as write_pictured
from usual import usual

from bench.cli.entry import main
from reports import lettering, style
from reports.curves import write_figure3
from reports.lettering import fonts_for, fonts_notes, text_width, wrapped
from reports.picture_layout import PAGE, page_layout, shortest_layout
from reports.pictures import write_pictures
from reports.records import Run, find_runs
from reports.rows import METHODS

Drawn = Callable[[Callable[..., Any]], tuple[Figure, list[str]]]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Drawn:
    """The figure that a writer makes of the runs below `tmp_path`, and its faults; nothing may be warned of."""

    def draw(write: Callable[..., Any]) -> tuple[Figure, list[str]]:
        found: list[tuple[Figure, list[str]]] = []

        def look(figure: Figure, *_: Any) -> list[Path]:
            found.append((figure, faults(figure)))
            return []

        for module in ("panels", "curves", "pictures"):
            monkeypatch.setattr(f"reports.{module}.write_figure", look)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            write(find_runs(tmp_path), tmp_path / "out")
        return found[0]

    return draw


# ---------------------------------------------------------------- whole figures

ABLATION = [
    "ours(sampling=uniform)",
    "ours(head=linear,loss=cross-entropy,memory=reservoir,sampling=uniform)",
    "them_$x^2$ & co",
    "theirs(" + ",".join(f"setting_{i}=value_{i}" for i in range(5)) + ")",
]
ODD = ["a_{b} $c$ & d^2", "\\alpha %", "كلب كبير", "שלום", "revolving chair; with a name that is very long; armchair"]
SWEEPS: dict[str, tuple[list[str], list[int], dict[str, Any]]] = {
    "one method, few steps": (["er"], [2, 1, 1, 1], {"scenario": "shapes-2-1-disjoint"}),
    "one method, one increment": (["er"], [2, 1], {"scenario": "scenes-2-1-disjoint:order=a_b,rule=ade"}),
    "odd and long names, one increment": ([*METHODS, *ABLATION], [3, 2], {"class_names": ["background", *ODD]}),
    "twenty increments": (["er", "ours", "joint"], [1] * 21, {}),
    "150 classes": (["er", "ours"], [100, 50], {}),
}


@pytest.mark.parametrize("sweep", usual(SWEEPS, "odd and long names, one increment"))
def test_no_figure_is_cut_and_nothing_is_upon_anything_else(tmp_path: Path, drawn: Drawn, sweep: str) -> None:
    strategies, sizes, changes = SWEEPS[sweep]
    for place, strategy in enumerate(strategies):
        ious = [[70 - place - t] * known for t, known in enumerate(np.cumsum([1, *sizes])[1:])]
        write_run(tmp_path, ious, strategy=strategy, seconds=5.0 + place, **changes)
    for name, write in WRITERS.items():
        figure, found = drawn(write)
        assert (name, found) == (name, [])
        width, height = figure.get_size_inches()
        assert 4 < width < 9 and height < 15


def test_figure_3_is_whole(tmp_path: Path, drawn: Drawn) -> None:
    for scenario in ("shapes-15-1-disjoint", "scenes-100-10-disjoint"):
        for strategy in METHODS:
            write_run(tmp_path, [[60] * 3, [50] * 4], scenario=scenario, strategy=strategy)
    assert drawn(write_figure3)[1] == []


def test_what_is_cut_or_upon_another_is_found() -> None:
    figure = Figure(figsize=(2, 2))
    figure.text(0.5, 0.5, "one")
    figure.text(0.52, 0.5, "two")
    figure.suptitle("a title that is wider than its figure is")
    cut, upon = faults(figure)
    assert cut == "'a title that is wider than its figure is' is outside of the figure"
    assert upon == "'one' is upon 'two'"


# ---------------------------------------------------------------- bars


def test_with_one_increment_forgetting_is_a_bar_for_each_method(tmp_path: Path, drawn: Drawn) -> None:
    """60 falls to 50 and to 45: forgetting 10 and 15 points."""
    for strategy, last in (("er", 50), ("ours", 45)):
        write_run(tmp_path, [[60] * 3, [last] * 4], strategy=strategy)
    figure, _ = drawn(WRITERS["forgetting"])
    forgetting, transfer = figure.axes
    assert [bar.get_width() for bar in forgetting.patches] == pytest.approx([10, 15])
    assert [bar.get_width() for bar in transfer.patches] == pytest.approx([-10, -15])
    assert [label.get_text() for label in forgetting.get_yticklabels()] == ["ER", "Ours"]
    assert not forgetting.get_legend() and not figure.legends


def test_without_an_increment_accuracy_is_a_bar_and_its_whisker_one_standard_deviation(
    tmp_path: Path, drawn: Drawn
) -> None:
    for seed, iou in ((0, 40), (1, 60)):
        write_run(tmp_path, [[iou] * 3], seed=seed)
    axes = drawn(WRITERS["curves"])[0].axes[0]
    assert axes.patches[0].get_width() == pytest.approx(50)
    (whisker,) = (line.get_segments()[0] for line in axes.collections)
    assert whisker[:, 0] == pytest.approx([50 - 200**0.5, 50 + 200**0.5])


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("count", [1, 3, 12])
def test_pictures_of_few_steps_fit_a_page_whatever_the_number_of_methods(
    tmp_path: Path, drawn: Drawn, count: int
) -> None:
    maps = {name: np.full((30, 40), 1, dtype=np.uint8) for name in ("2007_000032", "2007_000039", "b_$x$", "d" * 60)}
    for strategy in [*METHODS, "mine", "theirs_$x$"][:count]:
        write_pictured(tmp_path, strategy, maps, np.full((30, 40), 2, dtype=np.uint8))
    figure, found = drawn(write_pictures)
    assert found == []
    width, height = figure.get_size_inches()
    assert width <= PAGE[0] and height <= PAGE[1] and width / height > 0.5
    assert len(figure.axes[0].images) == 4 * (1 + 2 + 2 * count)


def test_steps_are_side_by_side_as_in_figure_4_or_methods_where_they_are_many() -> None:
    def steps_differ_in(methods: int, steps: int, images: int) -> tuple[bool, bool]:
        layout = page_layout(["truth", *["er"] * methods], steps, [0.75] * images, lambda width: 1.0)
        assert layout
        first, second = (layout.blocks[0][1].pictures[1, step] for step in (0, 1))
        return first[0] != second[0], first[1] != second[1]

    assert steps_differ_in(methods=3, steps=6, images=2) == (True, False)
    assert steps_differ_in(methods=10, steps=2, images=4) == (False, True)


def test_images_that_do_not_fit_a_page_make_it_longer_not_wider() -> None:
    series, aspects = ["truth", *(f"method {number}" for number in range(30))], [0.75] * 4
    assert page_layout(series, 21, aspects, lambda width: 1.0) is None
    layout = shortest_layout(series, 21, aspects)
    assert layout.width <= PAGE[0] and layout.height > PAGE[1] and len(layout.blocks) == 4


def test_pictures_and_curves_can_be_asked_for_of_some_methods(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    for strategy in ("er", "ours(head=linear,sampling=uniform)", "mib"):
        write_pictured(runs, strategy)
    asked = "ours(sampling=uniform,head=linear),er"
    for command in (["pictures"], ["curves", "curves"]):
        common = ["--runs", str(runs), "--out", str(out), "--format", "svg"]
        with pytest.raises(SystemExit) as ended:
            main([*command, *common, "--strategies", asked])
        assert ended.value.code == 0
        written = Path(capsys.readouterr().out.strip()).read_text()
        assert "ER<" in written and "Ours" in written and "MiB" not in written
        with pytest.raises(SystemExit) as ended:
            main([*command, *common, "--strategies", "er,lwf-mc"])
        assert ended.value.code == 2
        there = "er, mib, ours(head=linear,sampling=uniform)"
        assert capsys.readouterr().err == f"bench: --strategies lwf-mc: no finished run; there are runs of {there}\n"


# ---------------------------------------------------------------- characters and lines


@pytest.fixture
def fonts(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """The machine has the fonts of matplotlib alone, and those that are added."""
    monkeypatch.setattr(fontManager, "ttflist", [font for font in fontManager.ttflist if "matplotlib" in font.fname])
    monkeypatch.setattr(lettering, "findSystemFonts", list)
    lettering._notice_new_fonts.cache_clear()
    return fontManager.addfont


def font_of(character: str, family: str, path: Path) -> Path:
    """A font that has one character, a box."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (900, 800), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "box"])
    builder.setupCharacterMap({ord(character): "box"})
    builder.setupGlyf({".notdef": pen.glyph(), "box": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "box": (1000, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def cats_and_dogs(tmp_path: Path) -> list[Run]:
    write_pictured(tmp_path, class_names=["background", "猫", "bird", "犬"])
    return find_runs(tmp_path)


def words(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)}


@pytest.mark.parametrize("write", [WRITERS["classes"], write_pictures])
def test_a_name_is_drawn_in_a_font_that_has_it_or_told_by_its_number(
    tmp_path: Path, drawn: Drawn, fonts: Callable[[Path], None], write: Callable[..., Any]
) -> None:
    runs = cats_and_dogs(tmp_path)
    fonts(font_of("猫", "Tiny Cat", tmp_path / "cat.ttf"))
    figure, found = drawn(write)
    assert found == []
    told = words(figure)
    assert {"猫", "class 3"} <= told and "犬" not in told
    assert any("numbers where no font has the name" in word for word in told)
    assert fonts_notes(runs)[0].startswith("no font on this machine has 犬: ")


def test_no_placeholder_font_is_taken_for_one_that_has_a_character(fonts: Callable[[Path], None]) -> None:
    assert fonts_for(["cat", "猫"]) == ["DejaVu Sans"]


def test_a_font_that_was_installed_since_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fonts: Callable[[Path], None]
) -> None:
    new = font_of("犬", "Tiny Dog", tmp_path / "dog.ttf")
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setattr(lettering, "findSystemFonts", lambda: [str(tmp_path / "broken.ttf"), str(new)])
    assert fonts_for(["cat", "犬"]) == ["DejaVu Sans", "Tiny Dog"]
    lettering._notice_new_fonts.cache_clear()


def test_lines_break_at_blanks_then_behind_signs_and_last_within_words() -> None:
    def lines(text: str, *like: str) -> list[str]:
        with style.house_style():
            return wrapped(text, max(text_width(line, 8) for line in like) + 0.01, 8).split("\n")

    assert lines("one two three", "one two") == ["one two", "three"]
    assert lines("ours memory.size=20", "memory.") == ["ours", "memory.", "size=20"]
    assert lines("aaaaaaaa", "aaa") == ["aaa", "aaa", "aa"]
