"""The figures of an HTML page: drawn into a scratch folder, and put into the page."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from markupsafe import Markup

from reports.class_heatmap import write_class_heatmap
from reports.cost_accuracy import write_cost_accuracy
from reports.curves import FIGURE_3, write_curves, write_figure3
from reports.forgetting import write_forgetting
from reports.page.parts import figure, or_note, png_image, subsection, svg_image
from reports.pictures import write_pictures
from reports.records import Run
from reports.rows import row_order
from reports.style import display_name
from reports.templating import joined

Writer = Callable[[Sequence[Run], Path, str], list[Path]]
"""Draws runs of one scenario into a folder, in a format."""

_IMAGES = 2
"""In a scenario's picture: more would not fit a printed page."""


@dataclass(frozen=True)
class Drawing:
    """A figure that each scenario has: its heading, what it shows, how it is drawn and as what."""

    name: str
    heading: str
    caption: str
    write: Writer
    kind: str = "svg"


# A heat map and label maps are pixels anyway.
DRAWINGS = (
    Drawing(
        "curves",
        "Accuracy over the steps",
        "mIoU over all classes learned so far, after each step.",
        lambda runs, out, kind: write_curves(runs, out, [kind]),
    ),
    Drawing(
        "forgetting",
        "Forgetting",
        "Forgetting: how far the groups of classes learned before are below their best so far; lower is better. "
        "Backward transfer: what later steps did to a group since it was learned; higher is better.",
        lambda runs, out, kind: write_forgetting(runs, out, [kind]),
    ),
    Drawing(
        "classes",
        "Every class",
        "IoU of every class after every step, the classes from above in the order in which they were learned.",
        lambda runs, out, kind: write_class_heatmap(runs, out, [kind]),
        kind="png",
    ),
    Drawing(
        "cost",
        "Accuracy against cost",
        "mIoU after the last step against the time that an incoming batch takes; up and to the left is better.",
        lambda runs, out, kind: write_cost_accuracy(runs, out, [kind]),
    ),
    Drawing(
        "pictures",
        "Pictures",
        f"The {_IMAGES} images on which the methods disagree most after the last step: the image, the truth and each "
        "method's predictions after every step. bench pictures draws others.",
        lambda runs, out, kind: write_pictures(runs, out, count=_IMAGES, formats=[kind]),
        kind="png",
    ),
)
_FIGURE_3 = Drawing(
    "figure-3",
    "Figure 3",
    "The paper's Figure 3: mIoU after each step, the methods without parameters.",
    lambda runs, out, kind: write_figure3(runs, out, formats=[kind]),
)


def drawings_html(name: str, scenario: str, runs: Sequence[Run]) -> Markup:
    """Return the figures of one scenario's runs below their headings; `name` begins the ids in them."""
    return joined(
        subsection(drawing.heading, or_note(partial(_drawn, drawing, f"{name}-{drawing.name}", scenario, runs)))
        for drawing in DRAWINGS
        if drawing.name != "pictures" or any((run.path / "predictions").is_dir() for run in runs)
    )


def figure3_html(runs: Sequence[Run]) -> Markup:
    """Return Figure 3 on the real data sets and on the embedded ones, each if two of its panels have runs."""
    real, embedded = ({f"{names[place]}-{names[2]}" for names in FIGURE_3} for place in (0, 1))
    shown = []
    for name, panels in (("published", real), ("embedded", embedded)):
        own = [run for run in runs if run.spec["scenario"] in panels]
        if len({run.spec["scenario"] for run in own}) > 1:
            shown.append(or_note(partial(_drawn, _FIGURE_3, f"figure-3-{name}", f"{name} data", own)))
    return joined(shown)


def _drawn(drawing: Drawing, name: str, where: str, runs: Sequence[Run]) -> Markup:
    with tempfile.TemporaryDirectory() as folder:
        written = drawing.write(runs, Path(folder), drawing.kind)
        (content,) = (path.read_bytes() for path in written if path.suffix == f".{drawing.kind}")
    strategies = sorted({run.spec["strategy"] for run in runs}, key=lambda strategy: row_order(strategy, ""))
    alt = f"{drawing.heading}, {where}: {', '.join(map(display_name, strategies))}. {drawing.caption}"
    picture = png_image(content, alt) if drawing.kind == "png" else svg_image(content, name, alt)
    return figure(picture, f"Figure: {drawing.heading}, {where}", drawing.caption)
