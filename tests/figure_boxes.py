"""Whether a figure is whole: nothing lies outside of it, and no text or picture is upon another one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

SLACK = 1.5
"""Pixels by which boxes may touch: the edge of a glyph's box is empty."""


def faults(figure: Figure) -> list[str]:
    """Return what lies outside of a figure, or upon something else in it, a line each."""
    figure.draw_without_rendering()
    boxes = [(artist, _box(artist)) for artist in _shown(figure)]
    whole = figure.bbox.padded(SLACK)
    outside = [
        f"{_name(artist)} is outside of the figure"
        for artist, box in boxes
        if not (whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1)
    ]
    upon = [
        f"{_name(one)} is upon {_name(other)}"
        for (one, first), (other, second) in combinations(boxes, 2)
        if first.overlaps(second) and not _inside(one, other)
    ]
    return outside + upon


def _shown(figure: Figure) -> Iterator[Artist]:
    """All texts and the areas that are drawn on: axes, and pictures in axes without an axis."""
    unseen = {text for axes in figure.axes for text in _unseen(axes)}
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text not in unseen and text.get_visible() and text.get_text().strip():
            yield text
    for axes in figure.axes:
        yield from [axes] if axes.axison else axes.images


def _unseen(axes: Axes) -> Iterator[Text]:
    """The labels of ticks beyond the limits, and all labels of an axis that is off."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not axes.axison or not low <= tick.get_loc() <= high:
                yield from (tick.label1, tick.label2)
        if not axes.axison:
            yield from (axis.label, axis.offsetText)


def _box(artist: Artist) -> Bbox:
    """An artist's pixels, without what may lie within its box unseen: a label's arrow."""
    if isinstance(artist, Text):
        return Text.get_window_extent(artist).padded(-SLACK)
    if isinstance(artist, Axes):
        return artist.patch.get_window_extent().padded(-SLACK)
    return artist.get_window_extent().padded(-SLACK)


def _inside(one: Artist, other: Artist) -> bool:
    """Whether one is a label within the other, its axes."""
    return any(isinstance(axes, Axes) and text in axes.texts for axes, text in ((one, other), (other, one)))


def _name(artist: Artist) -> str:
    return repr(artist.get_text()) if isinstance(artist, Text) else type(artist).__name__
