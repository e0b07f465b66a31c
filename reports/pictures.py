"""The paper's Figure 4: what each method predicts after each step, beside the image and the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from reports.conventions import require_one_convention
from reports.files import RecordError
from reports.lettering import labels_of, line_height, numbered_note, text_width, words_of, wrapped
from reports.palettes import VOID, Palette, in_learning_order, palette_of
from reports.panels import rows_of
from reports.picture_layout import GAP, LINE, SIZE, Label, Layout, Place, Placed, page_layout, shortest_layout
from reports.records import Run, runs_on, scenarios_of
from reports.rows import file_stem
from reports.style import display_name, figure_title, house_style, require_formats, write_figure
from reports.tables import frame

Labels = npt.NDArray[np.uint8]

_LEAST_WIDTH = 3.4
"""Inches that a title needs."""
_USUAL = 4
"""Images where neither their ids nor their number are given."""
_PIXELS = 300
"""The longer side of a picture as it is stored in the figure."""
_NAMED = 5


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
    found = [shown for scenario in scenarios_of(runs) if (shown := _shown(scenario, runs))]
    if not found:
        raise RecordError(f"pictures: none of {len(runs)} finished runs holds predictions that can be drawn")
    _require_known(ids or (), found)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    words = {word for shown in found for word in (*words_of(shown.runs.values()), *shown.ids)}
    with house_style(words):
        for shown in found:
            if page := _page_of(shown, ids, count):
                figure = _figure(page, _colours(shown))
                written += write_figure(figure, out / f"{file_stem(shown.scenario)}-pictures", formats)
    return written


# ---------------------------------------------------------------- what there is


@dataclass(frozen=True)
class _Shown:
    """A scenario's runs with predictions, one per row of the tables by its name, and the images they all have."""

    scenario: str
    runs: dict[str, Run]
    ids: list[str]

    @property
    def spec(self) -> dict[str, Any]:
        return next(iter(self.runs.values())).spec

    @property
    def known(self) -> list[int]:
        """The number of labels after each step, background included."""
        return [int(size) for size in 1 + np.cumsum([len(step["classes"]) for step in self.spec["steps"]])]

    @property
    def last(self) -> int:
        return len(self.spec["steps"]) - 1


def _shown(scenario: str, runs: Sequence[Run]) -> _Shown | None:
    """The scenario's runs that can be drawn; None if there is none or if they share no image."""
    own = runs_on(scenario, runs)
    require_one_convention(own)
    by_path = {str(run.path): run for run in own}
    chosen: dict[str, Run] = {}
    for key, row in rows_of(frame(own)).items():
        seeds = [by_path[path] for path in dict.fromkeys(row.sort_values("seed")["run"])]
        with_pictures = [run for run in seeds if _ids(run)]
        if with_pictures:
            chosen[display_name(*key)] = with_pictures[0]
    shared = set.intersection(*map(_ids, chosen.values())) if chosen else set()
    return _Shown(scenario, chosen, sorted(shared)) if shared else None


def _ids(run: Run) -> set[str]:
    """The images of which a run has the truth and the prediction after the last step."""
    kinds = ("images", "truth", f"step-{len(run.spec['steps']) - 1}")
    return set.intersection(
        *({path.stem for path in (run.path / "predictions" / kind).glob("[!.]*.png")} for kind in kinds)
    )


def _require_known(ids: Iterable[str], found: Sequence[_Shown]) -> None:
    available = list(dict.fromkeys(name for shown in found for name in shown.ids))
    for name in ids:
        if name not in available:
            rest = f" and {len(available) - _NAMED} more" if len(available) > _NAMED else ""
            raise RecordError(f"pictures: no image {name!r}; there are {', '.join(available[:_NAMED])}{rest}")


def _pixels(path: Path, modes: Sequence[str]) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            if image.mode not in modes:
                raise RecordError(f"{path}: a picture of mode {image.mode}, it must be {' or '.join(modes)}")
            return np.asarray(image)
    except FileNotFoundError:
        raise RecordError(f"{path}: missing") from None
    except RecordError:
        raise
    except Exception as error:  # decoders raise nearly anything
        raise RecordError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None


def _truth(shown: _Shown, name: str) -> Labels:
    return _labels(next(iter(shown.runs.values())), "truth", name, shown.known[-1], None)


def _prediction(shown: _Shown, run: Run, step: int, name: str, size: tuple[int, ...]) -> Labels:
    return _labels(run, f"step-{step}", name, shown.known[step], size)


def _labels(run: Run, kind: str, name: str, known: int, size: tuple[int, ...] | None) -> Labels:
    path = run.path / "predictions" / kind / f"{name}.png"
    labels = _pixels(path, ("L", "P"))
    if size is not None and labels.shape != size:
        raise RecordError(f"{path}: {labels.shape[1]} x {labels.shape[0]} pixels, the truth has {size[1]} x {size[0]}")
    if ((labels >= known) & (labels != VOID)).any():
        raise RecordError(f"{path}: a label of {labels[labels != VOID].max()}, allowed are 0-{known - 1} and {VOID}")
    return labels


# ---------------------------------------------------------------- the choice of images


def _most_disputed(shown: _Shown) -> list[str]:
    return sorted(shown.ids, key=lambda name: (-_disagreement(shown, name), name))


def _disagreement(shown: _Shown, name: str) -> float:
    """The mean over pairs of methods of the share of non-void pixels whose last labels differ; 0 for one method."""
    truth = _truth(shown, name)
    valid = truth != VOID
    last = [_prediction(shown, run, shown.last, name, truth.shape)[valid] for run in shown.runs.values()]
    shares = [float((one != other).mean()) for one, other in combinations(last, 2) if valid.any()]
    return float(sum(shares) / len(shares)) if shares else 0.0


# ---------------------------------------------------------------- the figure


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


def _block(shown: _Shown, name: str, label: str) -> _Block:
    run = next(iter(shown.runs.values()))
    truth = _truth(shown, name)
    image = _pixels(run.path / "predictions" / "images" / f"{name}.png", ("RGB",))
    rows: dict[str, list[Labels | None]] = {"truth": [_known_truth(shown, truth, known) for known in shown.known]}
    for row, each in shown.runs.items():
        steps = range(len(shown.known))
        there = [(each.path / "predictions" / f"step-{step}" / f"{name}.png").is_file() for step in steps]
        rows[row] = [_prediction(shown, each, step, name, truth.shape) if there[step] else None for step in steps]
    return _Block(label, image, rows)


def _known_truth(shown: _Shown, truth: Labels, known: int) -> Labels:
    unknown = VOID if shown.spec["conventions"].get("future_classes") == "ignore" else 0
    return np.where((truth >= known) & (truth != VOID), np.uint8(unknown), truth)


def _colours(shown: _Shown) -> Palette:
    classes = [step_class for step in shown.spec["steps"] for step_class in step["classes"]]
    return in_learning_order(palette_of(shown.scenario.split("-", 1)[0]), classes)


@dataclass(frozen=True)
class _Page:
    """What a figure holds, and where its pictures stand."""

    title: str
    blocks: Sequence[_Block]
    legend: _Legend
    layout: Layout

    @property
    def width(self) -> float:
        return max(self.layout.width, _LEAST_WIDTH)


def _page_of(shown: _Shown, ids: Sequence[str] | None, count: int | None) -> _Page | None:
    """The images asked for, without `ids` and `count` as many as fit a page; None without an image."""
    if ids is not None:
        chosen = [name for name in ids if name in shown.ids]
        return _page(shown, chosen, longer=True) if chosen else None
    chosen = _most_disputed(shown)[: count or _USUAL]
    while count is None and len(chosen) > 1:
        if page := _page(shown, chosen, longer=False):
            return page
        chosen.pop()
    return _page(shown, chosen, longer=True)


def _page(shown: _Shown, names: Sequence[str], longer: bool) -> _Page | None:
    """The figure of these images; None where they do not fit a page and the figure may not be `longer`."""
    classes = shown.spec["class_names"]
    blocks = [_block(shown, name, label) for name, label in zip(names, labels_of(names, "image", 1), strict=True)]
    title = _title(shown, numbered_note([*classes, *names]))
    legend = _Legend.of(blocks, labels_of(classes, "class"))
    pictures = (list(blocks[0].rows), len(shown.known), [block.aspect for block in blocks])
    layout = page_layout(*pictures, around=lambda width: _above(title, width) + _below(legend, width))
    if layout is None and longer:
        layout = shortest_layout(*pictures)
    return _Page(title, blocks, legend, layout) if layout else None


def _above(title: str, width: float) -> float:
    return line_height(9) * (_wrapped_title(title, width).count("\n") + 1) + 0.15


def _below(legend: _Legend, width: float) -> float:
    return legend.height(max(width, _LEAST_WIDTH)) + 0.2


def _wrapped_title(title: str, width: float) -> str:
    return wrapped(title, max(width, _LEAST_WIDTH) - 0.2, 9)


def _title(shown: _Shown, note: str) -> str:
    """The scenario, the seed that most rows show and what others do, and what must be known of the runs."""
    seeds = {name: f"seed {run.spec['seed']}" for name, run in shown.runs.items()}
    usual = Counter(seeds.values()).most_common(1)[0][0]
    others = [f"{name}: {seed}" for name, seed in seeds.items() if seed != usual]
    scenario, *notes = figure_title(shown.scenario, note, runs=shown.runs.values()).split("\n")
    return "\n".join([f"{scenario}, {'; '.join([usual, *others])}", *notes])


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


@dataclass(frozen=True)
class _Legend:
    """The classes that occur, by label, in columns over so many inches."""

    names: dict[int, str]

    @classmethod
    def of(cls, blocks: Sequence[_Block], class_names: Sequence[str]) -> _Legend:
        maps = [labels for block in blocks for row in block.rows.values() for labels in row if labels is not None]
        labels = sorted({int(label) for each in maps for label in np.unique(each)})
        return cls({label: "void" if label == VOID else class_names[label] for label in labels})

    def height(self, width: float) -> float:
        return sum(self._heights(width))

    def draw(self, axes: Axes, colours: Palette, top: float, width: float) -> None:
        columns, tops = self._columns(width), np.cumsum([top, *self._heights(width)])
        for place, (label, name) in enumerate(zip(self.names, self._wrapped(width), strict=True)):
            row, column = divmod(place, columns)
            left, middle = GAP + column * (width - 2 * GAP) / columns, tops[row] + LINE / 2
            box = Rectangle(
                *((left, middle - 0.055), 0.18, 0.11), facecolor=colours[label] / 255, edgecolor="black", linewidth=0.4
            )
            axes.add_patch(box)
            axes.text(left + 0.23, tops[row], name, va="top", fontsize=SIZE, linespacing=1.1, parse_math=False)

    def _wrapped(self, width: float) -> list[str]:
        return [wrapped(name, width - 2 * GAP - 0.3, SIZE) for name in self.names.values()]

    def _columns(self, width: float) -> int:
        longest = max(text_width(line, SIZE) for name in self._wrapped(width) for line in name.split("\n"))
        return max(1, min(len(self.names), int((width - 2 * GAP) / (longest + 0.35))))

    def _heights(self, width: float) -> list[float]:
        """Of the rows."""
        names, columns = self._wrapped(width), self._columns(width)
        rows = [names[first : first + columns] for first in range(0, len(names), columns)]
        return [(max(name.count("\n") for name in row) + 1) * LINE + 0.02 for row in rows]
