"""How figures look: each method's colour, marker and name, the same in all of them; and how a figure is written."""

from __future__ import annotations

import io
import logging
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.atomic import write_atomic_bytes
from reports.division import EARLIER_DIVISION, by_earlier_division
from reports.records import Run
from reports.rows import REFERENCES, embedded_note, method_of, row_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
NOT_LEARNED = "#B4B4B4"
"""The colour of hatching: a class that is not yet learned."""

_KEY_WIDTH = 5.0
"""What a name in a legend has beside it, in its size of type: the line, and the gaps to it and the next column."""

LineStyle = str | tuple[int, tuple[int, ...]]
RowKey = tuple[str, str]
"""A row's strategy label and its variant."""


@dataclass(frozen=True)
class Look:
    """A method's colour, its marker (matplotlib's letter) and the name in print."""

    colour: str
    marker: str
    name: str


# Petroff, Accessible Color Sequences for Data Visualization (arXiv:2107.02270): ten colours chosen to stay apart under
# the three colour blindnesses. Its light grey is left to methods from other packages, black takes its place. Markers
# tell the methods apart in grey print too. Methods of one protocol alone share their looks with those of the other; of
# the offline ones those of a family have one colour.
METHOD_STYLES: dict[str, Look] = {
    "finetune": Look("#717581", "X", "Finetune"),
    "er": Look("#3f90da", "o", "ER"),
    "lwf-mc": Look("#ffa90e", "s", "LwF.MC"),
    "icarl": Look("#a96b59", "^", "iCaRL"),
    "agem": Look("#b9ac70", "v", "A-GEM"),
    "mir": Look("#92dadd", "D", "MIR"),
    "mib": Look("#832db6", "P", "MiB"),
    "coriseg": Look("#e76300", "p", "CoRiSeg"),
    "ours": Look("#bd1f01", "*", "Ours"),
    "joint": Look("#000000", "h", "Joint"),
    "lwf": Look("#3f90da", "o", "LwF"),
    "ilt": Look("#3f90da", "^", "ILT"),
    "ewc": Look("#b9ac70", "v", "EWC"),
    "pi": Look("#b9ac70", "D", "PI"),
    "rw": Look("#b9ac70", "p", "RW"),
    "plop": Look("#e76300", ">", "PLOP"),
    "ewf": Look("#bd1f01", "*", "EWF"),
    "ssul": Look("#92dadd", "d", "SSUL"),
    "ssul-m": Look("#92dadd", "H", "SSUL-M"),
    "dkd": Look("#a96b59", "<", "DKD"),
    "dkd-m": Look("#a96b59", "8", "DKD-M"),
}
_FOREIGN_COLOUR, _FOREIGN_MARKERS = "#94a4a2", "<>d8H"
SOLID: LineStyle = "-"
_VARIANT_LINES: tuple[LineStyle, ...] = ("--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 3)))

# Without the date and the version, equal runs give equal files.
_METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}
_SETTINGS: dict[str, Any] = {
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "figures",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "hatch.color": NOT_LEARNED,
    "hatch.linewidth": 0.6,
}


# ---------------------------------------------------------------- methods


def look_of(method: str) -> Look:
    """Return a method's look; one from another package has its own name, and a marker that the name determines."""
    marker = _FOREIGN_MARKERS[zlib.crc32(method.encode()) % len(_FOREIGN_MARKERS)]
    return METHOD_STYLES.get(method, Look(_FOREIGN_COLOUR, marker, method))


def display_name(strategy: str, variant: str = "") -> str:
    """Return a row's name in print: `Ours (head=linear) [memory.size=20]`."""
    method = method_of(strategy)
    parameters = strategy.removeprefix(method)
    return row_name(f"{look_of(method).name} {parameters}".rstrip(), variant)


def line_styles(rows: Iterable[RowKey]) -> dict[RowKey, LineStyle]:
    """Return each row's line: solid for the first of a method without parameters, another for each of its kin."""
    found: dict[RowKey, LineStyle] = {}
    solid: set[str] = set()
    others: dict[str, Iterator[LineStyle]] = {}
    for strategy, variant in rows:
        method = method_of(strategy)
        if strategy == method and method not in solid:
            solid.add(method)
            found[strategy, variant] = SOLID
        else:
            found[strategy, variant] = next(others.setdefault(method, cycle(_VARIANT_LINES)))
    return found


def emphasis(strategy: str) -> tuple[float, int]:
    """Return a line's width in points and its place in the drawing order: `ours` stands out, references recede."""
    if method_of(strategy) == "ours":
        return (2.4 if strategy == "ours" else 1.5), 5
    return (1.2, 3) if method_of(strategy) in REFERENCES else (1.5, 4)


# ---------------------------------------------------------------- parts of a figure


def figure_title(scenario: str, *lines: str, runs: Iterable[Run] = ()) -> str:
    """Return a title: the scenario, the notes on its data set and on the division of its runs, and what `lines` say."""
    earlier = EARLIER_DIVISION if any(by_earlier_division(run.spec) for run in runs) else ""
    return "\n".join(filter(None, [scenario, embedded_note(scenario).replace("`", ""), earlier, *lines]))


def wrapped_name(name: str, width: float, size: float) -> str:
    """Return a row's name in lines of at most `width` inches in type of `size` points, broken where settings begin."""
    from reports.lettering import wrapped

    return wrapped(" ".join(name.replace("(", " (").replace(",", ", ").replace("[", " [").split()), width, size)


def draw_gap(axes: Axes, text: str) -> dict[RowKey, object]:
    """Say in empty axes what is missing; return that no row has an artist."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
    return {}


def add_legend(figure: Figure, handles: Mapping[str, Any], title: str = "") -> None:
    """Put one legend below all axes of a constrained figure, in as many columns as its longest name allows.

    `handles` are the artists by name. The figure grows by the room that the legend takes.
    """
    from reports.lettering import line_height, text_width, wrapped

    width, key = figure.get_figwidth() - 0.3, _KEY_WIDTH * 9 / 72
    names = [wrapped(name, width / 2 - key, 9) for name in handles]
    widest = max(text_width(line, 9) for name in names for line in name.split("\n"))
    columns = min(len(names), 5, max(1, int(width / (widest + key))))
    rows = math.ceil(len(names) / columns)
    lines = [sum(name.count("\n") + 1 for name in names[at : at + rows]) for at in range(0, len(names), rows)]
    figure.set_figheight(figure.get_figheight() + 1.25 * line_height(9) * (max(lines) + bool(title)))
    legend = figure.legend(
        *(list(handles.values()), names),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
        title=title,
        title_fontsize=9,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


# ---------------------------------------------------------------- files


def require_formats(formats: Iterable[str]) -> None:
    """Raise ValueError for a format that figures are not written in."""
    for unknown in sorted(set(formats) - set(FORMATS)):
        raise ValueError(f"figure format {unknown!r}: allowed are {', '.join(FORMATS)}")


@contextmanager
def house_style(texts: Iterable[str] = ()) -> Iterator[None]:
    """Draw with this package's settings alone: the user's own matplotlibrc must not change the files.

    Characters of `texts` that the house's font has not come from others of this machine.
    """
    import matplotlib.style

    from reports.lettering import DPI, HOUSE, fonts_for

    others = fonts_for(texts)[1:]
    fonts = {"font.family": [HOUSE, *others, "sans-serif"]} if others else {}
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)  # it tells where a font has no such weight
    try:
        with matplotlib.style.context(["default", {**_SETTINGS, "figure.dpi": DPI, "savefig.dpi": DPI, **fonts}]):
            yield
    finally:
        log.setLevel(level)


def write_figure(figure: Figure, stem: Path, formats: Sequence[str]) -> list[Path]:
    """Write `STEM.FORMAT` for each format and return the files; to be called within `house_style`.

    Equal figures give equal files. Text in PDF is TrueType, in SVG it stays text.
    """
    if figure.get_layout_engine() is not None:
        # The layout is the same in every format: it is found once.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    written = []
    for name in formats:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=name, metadata=_METADATA[name])
        path = stem.with_name(f"{stem.name}.{name}")
        write_atomic_bytes(path, buffer.getvalue())
        written.append(path)
    return written
