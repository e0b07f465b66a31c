"""The paper's Figure 4: what each method predicts after each step, beside the image and the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from reports.files import RecordError
from reports.lettering import labels_of, line_height, numbered_note, text_width, words_of, wrapped
from reports.palettes import VOID, Palette, in_learning_order, palette_of
from reports.picture_layout import SIZE, Label, Layout, Place, Placed, page_layout, shortest_layout
from reports.picture_legend import Legend
from reports.predictions import Labels, Shown, image_of, most_disputed, prediction_of, require_known, shown_of, truth_of
from reports.records import Run, scenarios_of
from reports.rows import file_stem
from reports.style import figure_title, house_style, require_formats, write_figure

_LEAST_WIDTH = 3.4
"""Inches that a title needs."""
_USUAL = 4
"""Images where neither their ids nor their number are given."""
_PIXELS = 300
"""The longer side of a picture as it is stored in the figure."""


def write_pictures(
    runs: Sequence[Run],
    out: Path,
    ids: Sequence[str] | None = None,
    count: int | None = None,
    formats: Sequence[str] = ("png", "pdf"),
) -> list[Path]:
    """Write each scenario's `<scenario>-pictures.*` into the folder `out` and return the files, in order.

    As in the paper's Figure 4 an image is a block: the image, the truth at every step (classes not yet known are
    background, or void by the conventions), and each method's predictions after every step, blank where it recorded
    none. The steps are side by side, or the methods where that shows larger pictures on a page of 7.5 x 10 inches; a
    figure is longer only if the images asked for do not fit one. Colours are the data set's own, the classes that
    occur are named below. A row of the tables shows its lowest seed with predictions.

    The images are `ids` where a scenario has them, or else the `count` on which the methods disagree most after the
    last step, by default as many as fit a page, four at most: the largest mean over pairs of methods of the share of
    non-void pixels that they label differently, ties and a single method by id. Drawn are only images that all of a
    scenario's methods recorded. Equal runs give equal files. Raises ValueError for an unknown format or a `count` below
    1; RecordError if no run holds predictions, if no scenario has an id, if a scenario's runs differ in their
    conventions, or if a picture is damaged.
    """
    require_formats(formats)
    if count is not None and count < 1:
        raise ValueError(f"count {count}: allowed are numbers from 1")
    found = [shown for scenario in scenarios_of(runs) if (shown := shown_of(scenario, runs))]
    if not found:
        raise RecordError(f"pictures: none of {len(runs)} finished runs holds predictions that can be drawn")
    require_known(ids or (), found)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    words = {word for shown in found for word in (*words_of(shown.runs.values()), *shown.ids)}
    with house_style(words):
        for shown in found:
            if page := _page_of(shown, ids, count):
                figure = _figure(page, _colours(shown))
                written += write_figure(figure, out / f"{file_stem(shown.scenario)}-pictures", formats)
    return written


# ---------------------------------------------------------------- what is drawn


@dataclass(frozen=True)
class _Block:
    """An image's pictures: the image itself, and rows of label maps over the steps, the truth first."""

    name: str
    image: npt.NDArray[np.uint8]
    rows: dict[str, list[Labels | None]]

    @property
    def aspect(self) -> float:
        """Height over width."""
        height, width = self.image.shape[:2]
        return float(height / width)

    @property
    def maps(self) -> Iterable[Labels]:
        """The label maps that there are."""
        return (labels for row in self.rows.values() for labels in row if labels is not None)


def _block(shown: Shown, name: str, label: str) -> _Block:
    truth, image = truth_of(shown, name), image_of(shown, name)
    rows: dict[str, list[Labels | None]] = {"truth": [_known_truth(shown, truth, known) for known in shown.known]}
    for row, each in shown.runs.items():
        steps = range(len(shown.known))
        there = [(each.path / "predictions" / f"step-{step}" / f"{name}.png").is_file() for step in steps]
        rows[row] = [prediction_of(shown, each, step, name, truth.shape) if there[step] else None for step in steps]
    return _Block(label, image, rows)


def _known_truth(shown: Shown, truth: Labels, known: int) -> Labels:
    return np.where((truth >= known) & (truth != VOID), np.uint8(shown.unknown), truth)


def _colours(shown: Shown) -> Palette:
    classes = [step_class for step in shown.spec["steps"] for step_class in step["classes"]]
    return in_learning_order(palette_of(shown.scenario.split("-", 1)[0]), classes)


@dataclass(frozen=True)
class _Page:
    """What a figure holds, and where its pictures stand."""

    title: str
    blocks: Sequence[_Block]
    legend: Legend
    layout: Layout

    @property
    def width(self) -> float:
        return max(self.layout.width, _LEAST_WIDTH)


def _page_of(shown: Shown, ids: Sequence[str] | None, count: int | None) -> _Page | None:
    """The images asked for, without `ids` and `count` as many as fit a page; None without an image."""
    if ids is not None:
        chosen = [name for name in ids if name in shown.ids]
        return _page(shown, chosen, longer=True) if chosen else None
    chosen = most_disputed(shown)[: count or _USUAL]
    while count is None and len(chosen) > 1:
        if page := _page(shown, chosen, longer=False):
            return page
        chosen.pop()
    return _page(shown, chosen, longer=True)


def _page(shown: Shown, names: Sequence[str], longer: bool) -> _Page | None:
    """The figure of these images; None where they do not fit a page and the figure may not be `longer`."""
    classes = shown.spec["class_names"]
    blocks = [_block(shown, name, label) for name, label in zip(names, labels_of(names, "image", 1), strict=True)]
    title = _title(shown, numbered_note([*classes, *names]))
    legend = Legend.of((labels for block in blocks for labels in block.maps), labels_of(classes, "class"))
    pictures = (list(blocks[0].rows), len(shown.known), [block.aspect for block in blocks])
    layout = page_layout(*pictures, around=lambda width: _above(title, width) + _below(legend, width))
    if layout is None and longer:
        layout = shortest_layout(*pictures)
    return _Page(title, blocks, legend, layout) if layout else None


def _above(title: str, width: float) -> float:
    return line_height(9) * (_wrapped_title(title, width).count("\n") + 1) + 0.15


def _below(legend: Legend, width: float) -> float:
    return legend.height(max(width, _LEAST_WIDTH)) + 0.2


def _wrapped_title(title: str, width: float) -> str:
    return wrapped(title, max(width, _LEAST_WIDTH) - 0.2, 9)


def _title(shown: Shown, note: str) -> str:
    """The scenario, the seed that most rows show and what others do, and what must be known of the runs."""
    seeds = {name: f"seed {run.spec['seed']}" for name, run in shown.runs.items()}
    usual = Counter(seeds.values()).most_common(1)[0][0]
    others = [f"{name}: {seed}" for name, seed in seeds.items() if seed != usual]
    scenario, *notes = figure_title(shown.scenario, note, runs=shown.runs.values()).split("\n")
    return "\n".join([f"{scenario}, {'; '.join([usual, *others])}", *notes])


# ---------------------------------------------------------------- the figure


def _figure(page: _Page, colours: Palette) -> Figure:
    """The title, the blocks and the legend, laid out in inches."""
    above, layout = _above(page.title, page.width), page.layout
    height = above + layout.height + _below(page.legend, page.width)
    figure = Figure(figsize=(page.width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, page.width), ylim=(height, 0))
    axes.set_axis_off()
    title = _wrapped_title(page.title, page.width)
    axes.text(page.width / 2, 0.08, title, ha="center", va="top", fontsize=9, parse_math=False)
    margin = (page.width - layout.width) / 2
    for block, ((left, top), placed) in zip(page.blocks, layout.blocks, strict=True):
        _draw_block(axes, block, placed, colours, (margin + left, above + top), layout.cell)
    page.legend.draw(axes, colours, above + layout.height + 0.12, page.width)
    return figure


def _draw_block(axes: Axes, block: _Block, placed: Placed, colours: Palette, corner: Place, width: float) -> None:
    """Draw the image, the pictures of each row, and what is written beside them."""

    def draw(pixels: npt.NDArray[np.uint8], place: Place) -> None:
        left, top = corner[0] + place[0], corner[1] + place[1]
        extent = (left, left + width, top + width * block.aspect, top)
        axes.imshow(pixels, extent=extent, interpolation="none", aspect="auto")

    draw(_reduced(block.image, Image.Resampling.LANCZOS), placed.image)
    for number, row in enumerate(block.rows.values()):
        for step, labels in enumerate(row):
            if labels is not None:
                draw(colours[_reduced(labels, Image.Resampling.NEAREST)], placed.pictures[number, step])
    for label in (replace(placed.name, text=_shortened(block.name, placed.room)), *placed.labels):
        _write(axes, label, corner)


def _write(axes: Axes, label: Label, corner: Place) -> None:
    axes.text(
        *(corner[0] + label.place[0], corner[1] + label.place[1], label.text),
        ha=label.across,
        va=label.down,
        rotation=label.rotation,
        fontsize=SIZE,
        linespacing=1.1,
        parse_math=False,
    )


def _shortened(name: str, width: float) -> str:
    """A name whose middle is left out where it is wider than so many inches."""
    short, kept = name, len(name)
    while text_width(short, SIZE) > width and kept > 2:
        kept -= 1
        short = f"{name[: kept - kept // 2]}…{name[len(name) - kept // 2 :]}"
    return short


def _reduced(pixels: npt.NDArray[np.uint8], resampling: Image.Resampling) -> npt.NDArray[np.uint8]:
    """The pixels, the longer side no longer than a figure shows."""
    factor = _PIXELS / max(pixels.shape[:2])
    if factor >= 1:
        return pixels
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    return np.asarray(Image.fromarray(pixels).resize(size, resampling))
