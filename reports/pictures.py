"""The paper's Figure 4: what each method predicts after each step, beside the image and the truth."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
from reports.curves import rows_of
from reports.palettes import VOID, Palette, in_learning_order, palette_of
from reports.records import RecordError, Run
from reports.rows import file_stem
from reports.style import display_name, figure_title, house_style, require_formats, wrapped_name, write_figure
from reports.tables import frame, scenarios_of

Labels = npt.NDArray[np.uint8]

_WIDTH = 8.0
_GAP = 0.05
_LINE = 0.16
"""Inches: the figure's width where its pictures are not too small or too large for it, a gap, a line of type."""
_SMALLEST, _LARGEST = 0.8, 1.8
"""Inches: a picture's width."""
_PIXELS = 300
"""The longer side of a picture as it is stored in the figure."""
_NAMED = 5


def write_pictures(
    runs: Sequence[Run],
    out: Path,
    ids: Sequence[str] | None = None,
    count: int = 4,
    formats: Sequence[str] = ("png", "pdf"),
) -> list[Path]:
    """Write each scenario's `<scenario>-pictures.*` into the folder `out` and return the files, in order.

    As in the paper's Figure 4 an image is a block: above, the image and the truth at every step (classes not yet known
    are background, or void by the conventions); below, each method's predictions after every step, blank where it
    recorded none. Colours are the data set's own, the classes that occur are named below. A row of the tables shows
    its lowest seed with predictions.

    The images are `ids` where a scenario has them, or else the `count` on which the methods disagree most after the
    last step: the largest mean over pairs of methods of the share of non-void pixels that they label differently, ties
    and a single method by id. Drawn are only images that all of a scenario's methods recorded. Equal runs give equal
    files. Raises ValueError for an unknown format or a `count` below 1; RecordError if no run holds predictions, if no
    scenario has an id, if a scenario's runs differ in their conventions, or if a picture is damaged.
    """
    require_formats(formats)
    if count < 1:
        raise ValueError(f"count {count}: allowed are numbers from 1")
    found = [shown for scenario in scenarios_of(runs) if (shown := _shown(scenario, runs))]
    if not found:
        raise RecordError(f"pictures: none of {len(runs)} finished runs holds predictions that can be drawn")
    _require_known(ids or (), found)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    with house_style():
        for shown in found:
            chosen = _most_disputed(shown)[:count] if ids is None else [name for name in ids if name in shown.ids]
            if chosen:
                figure = _figure(shown, chosen)
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
    own = [run for run in runs if run.spec["scenario"] == scenario]
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
        *({path.stem for path in (run.path / "predictions" / kind).glob("*.png")} for kind in kinds)
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
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
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


def _block(shown: _Shown, name: str) -> _Block:
    run = next(iter(shown.runs.values()))
    truth = _truth(shown, name)
    image = _pixels(run.path / "predictions" / "images" / f"{name}.png", ("RGB",))
    rows: dict[str, list[Labels | None]] = {"truth": [_known_truth(shown, truth, known) for known in shown.known]}
    for row, each in shown.runs.items():
        steps = range(len(shown.known))
        there = [(each.path / "predictions" / f"step-{step}" / f"{name}.png").is_file() for step in steps]
        rows[row] = [_prediction(shown, each, step, name, truth.shape) if there[step] else None for step in steps]
    return _Block(name, image, rows)


def _known_truth(shown: _Shown, truth: Labels, known: int) -> Labels:
    unknown = VOID if shown.spec["conventions"].get("future_classes") == "ignore" else 0
    return np.where((truth >= known) & (truth != VOID), np.uint8(unknown), truth)


def _figure(shown: _Shown, names: Sequence[str]) -> Figure:
    """The blocks one below the other and the legend, laid out in inches."""
    blocks = [_block(shown, name) for name in names]
    classes = [step_class for step in shown.spec["steps"] for step_class in step["classes"]]
    colours = in_learning_order(palette_of(shown.scenario.split("-", 1)[0]), classes)
    columns = len(shown.known) + 1
    cell = min(max((_WIDTH - 2 * _GAP) / columns - _GAP, _SMALLEST), _LARGEST)
    width = columns * (cell + _GAP) + _GAP
    title = textwrap.wrap(_title(shown), int(13 * width)) + figure_title(shown.scenario).split("\n")[1:]
    legend = _Legend.of(blocks, shown.spec["class_names"], width)
    heights = [_LINE * 1.5 + len(block.rows) * (cell * block.aspect + _GAP) for block in blocks]
    height = (len(title) + 1) * _LINE + sum(heights) + legend.height + 2 * _LINE
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    axes.text(width / 2, 0.5 * _LINE, "\n".join(title), ha="center", va="top", fontsize=9, parse_math=False)
    top = (len(title) + 1) * _LINE
    for block, own in zip(blocks, heights, strict=True):
        _draw_block(axes, block, colours, top, cell)
        top += own
    legend.draw(axes, colours, top + _LINE)
    return figure


def _title(shown: _Shown) -> str:
    seeds = {name: run.spec["seed"] for name, run in shown.runs.items()}
    if len(set(seeds.values())) == 1:
        return f"{shown.scenario}, seed {next(iter(seeds.values()))}"
    return f"{shown.scenario}, seeds {', '.join(f'{seed} ({name})' for name, seed in seeds.items())}"


def _draw_block(axes: Axes, block: _Block, colours: Palette, top: float, cell: float) -> None:
    """Draw the header, the image beside the truth, and a row per method with its name at the left."""
    height = cell * block.aspect
    lefts = [_GAP + column * (cell + _GAP) for column in range(1 + len(block.rows["truth"]))]
    _write(axes, _shortened(block.name, cell), lefts[0] + cell / 2, top + _LINE)
    for step, left in enumerate(lefts[1:]):
        _write(axes, f"truth, step {step}" if step == 0 else f"step {step}", left + cell / 2, top + _LINE)
    top += 1.5 * _LINE
    _draw(axes, _reduced(block.image, Image.Resampling.LANCZOS), lefts[0], top, cell, height)
    for name, row in block.rows.items():
        if name != "truth":
            text, size = wrapped_name(name, int(cell * 14)), 8 if len(name) < cell * 28 else 5
            axes.text(lefts[0] + cell, top + height / 2, text, ha="right", va="center", fontsize=size, parse_math=False)
        for labels, left in zip(row, lefts[1:], strict=True):
            if labels is not None:
                _draw(axes, colours[_reduced(labels, Image.Resampling.NEAREST)], left, top, cell, height)
        top += height + _GAP


def _write(axes: Axes, text: str, middle: float, bottom: float) -> None:
    axes.text(middle, bottom, text, ha="center", va="bottom", fontsize=7, parse_math=False)


def _shortened(name: str, width: float) -> str:
    return name if len(name) <= width * 17 else f"{name[: int(width * 17) - 1]}…"


def _draw(axes: Axes, pixels: npt.NDArray[np.uint8], left: float, top: float, width: float, height: float) -> None:
    extent = (left, left + width, top + height, top)
    axes.imshow(pixels, extent=extent, interpolation="none", aspect="auto")


def _reduced(pixels: npt.NDArray[np.uint8], resampling: Image.Resampling) -> npt.NDArray[np.uint8]:
    """The pixels, the longer side no longer than a figure shows."""
    factor = _PIXELS / max(pixels.shape[:2])
    if factor >= 1:
        return pixels
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    return np.asarray(Image.fromarray(pixels).resize(size, resampling))


@dataclass(frozen=True)
class _Legend:
    """The classes that occur, by label, in columns."""

    names: dict[int, str]
    columns: int
    width: float

    @classmethod
    def of(cls, blocks: Sequence[_Block], class_names: Sequence[object], width: float) -> _Legend:
        maps = [labels for block in blocks for row in block.rows.values() for labels in row if labels is not None]
        labels = sorted({int(label) for each in maps for label in np.unique(each)})
        names = {label: "void" if label == VOID else str(class_names[label]) for label in labels}
        longest = 0.3 + 0.065 * max(map(len, names.values()))
        return cls(names, max(1, int((width - 2 * _GAP) / longest)), width)

    @property
    def height(self) -> float:
        return -(-len(self.names) // self.columns) * _LINE

    def draw(self, axes: Axes, colours: Palette, top: float) -> None:
        for place, (label, name) in enumerate(self.names.items()):
            row, column = divmod(place, self.columns)
            left, above = _GAP + column * (self.width - 2 * _GAP) / self.columns, top + row * _LINE
            box = Rectangle(
                *((left, above + 0.02), 0.18, 0.11), facecolor=colours[label] / 255, edgecolor="black", linewidth=0.4
            )
            axes.add_patch(box)
            axes.text(left + 0.23, above + 0.075, name, va="center", fontsize=7, parse_math=False)
