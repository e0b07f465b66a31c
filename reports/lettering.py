"""The words of figures: how wide they are in print, where their lines break, and fonts that have their characters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontEntry, FontProperties, findfont, findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font

from reports.records import Run

DPI = 200
"""Of layout and of PNG: hinted type is not as wide at another resolution."""

HOUSE = "DejaVu Sans"
"""It comes with matplotlib."""
_KEEP = "\u00a0"
"""A blank at which no line breaks."""
_PIECE = re.compile(r"[^\s.,:=_/-]*[.,:=_/-]|[^\s.,:=_/-]+")
"""What a line that is too long is broken into."""
_PLACEHOLDERS = "Last Resort"
"""Fonts whose name begins so have a box for every character and a letter for none."""
_NAMED = 5
"""Characters; of more their number is told."""


# ---------------------------------------------------------------- widths and lines


def text_width(text: str, size: float) -> float:
    """Return the width of a line of type of `size` points, in inches, in the fonts of matplotlib's settings."""
    return _width(text, size, tuple(matplotlib.rcParams["font.family"]))


@lru_cache(maxsize=4096)
def _width(text: str, size: float, families: tuple[str, ...]) -> float:
    font = FontProperties(family=list(families), size=size)
    renderer: Any = RendererAgg(1, 1, DPI)
    pixels, _, _ = renderer.get_text_width_height_descent(text, font, ismath=False)
    return float(pixels) / DPI


def line_height(size: float) -> float:
    """Return what a line of type of `size` points takes of a column, in inches."""
    return 1.25 * size / 72


def unbroken(text: str) -> str:
    """Return the text so that `wrapped` keeps it in one line."""
    return text.replace(" ", _KEEP)


def wrapped(text: str, width: float, size: float) -> str:
    """Return the text in lines that are at most `width` inches in type of `size` points.

    Lines break at blanks; a word that is too long for a line behind its points, commas, equals signs and their like
    too, and if nothing else helps between any two characters. A character that no font has is a question mark.
    """
    lines = [line for paragraph in printed(text).split("\n") for line in _lines(paragraph, width, size)]
    return "\n".join(lines).replace(_KEEP, " ")


def _lines(text: str, width: float, size: float) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        for place, piece in enumerate(_pieces(word, width, size)):
            longer = f"{lines[-1]} {piece}" if lines[-1] and place == 0 else lines[-1] + piece
            if lines[-1] and text_width(longer, size) > width:
                lines.append(piece)
            else:
                lines[-1] = longer
    return lines


def _pieces(word: str, width: float, size: float) -> Iterator[str]:
    if text_width(word, size) <= width:
        yield word
        return
    for piece in _PIECE.findall(word):
        yield from [piece] if text_width(piece, size) <= width else piece


def longest_piece(text: str, size: float) -> float:
    """Return the width, in inches, below which `wrapped` breaks lines of the text between any two characters."""
    return max((text_width(piece, size) for piece in _PIECE.findall(printed(text))), default=0.0)


# ---------------------------------------------------------------- characters and fonts


def printed(text: str) -> str:
    """Return the text with a question mark for each character that no font of matplotlib's settings has."""
    missing = unprintable([text], matplotlib.rcParams["font.family"])
    return "".join("?" if character in missing else character for character in text)


def labels_of(names: Sequence[object], kind: str, first: int = 0) -> list[str]:
    """Return names as they can be printed: `class 3`, its kind and number, where no font has a name's characters."""
    texts = [" ".join(str(name).split()) for name in names]
    missing = unprintable(texts, matplotlib.rcParams["font.family"])
    return [f"{kind} {place}" if missing.intersection(text) else text for place, text in enumerate(texts, first)]


def numbered_note(names: Sequence[object]) -> str:
    """Return the note to a figure that `labels_of` made numbers for; '' without one."""
    missing = unprintable(map(str, names), matplotlib.rcParams["font.family"])
    return "numbers where no font has the name" if missing else ""


def words_of(runs: Iterable[Run]) -> set[str]:
    """Return what figures say of runs: their scenarios, strategies and classes."""
    specs = [run.spec for run in runs]
    return {str(word) for spec in specs for word in (spec["scenario"], spec["strategy"], *spec["class_names"])}


def unprintable(texts: Iterable[str], families: Sequence[str]) -> set[str]:
    """Return the characters of texts that none of the fonts has."""
    others = (text for text in texts if not (text.isascii() and text.isprintable()))
    wanted = {character for text in others for character in text if not character.isspace()}
    for family in families:
        if wanted:
            wanted -= _characters(str(findfont(FontProperties(family=[family]))))
    return wanted


def fonts_for(texts: Iterable[str]) -> list[str]:
    """Return the families to draw texts in: the house's, and others of this machine for the characters it has not.

    Where several have some of them it is the one that has the most, among equals the one nearest to the house's.
    """
    families = [HOUSE]
    missing = unprintable(texts, families)
    while missing:
        best = _best(missing) or (_notice_new_fonts() and _best(missing))
        if not best:
            break
        families.append(best.name)
        missing -= _characters(best.fname)
    return families


def fonts_notes(runs: Sequence[Run], pictures: bool = False) -> list[str]:
    """Return the sentence that names the characters that figures of runs need and no font of this machine has.

    None without such a character. Those of the images' names are needed for `pictures` alone.
    """
    folders = [run.path / "predictions" / "images" for run in runs] if pictures else []
    words = words_of(runs).union(path.stem for folder in folders for path in folder.glob("*.png"))
    unknown = sorted(unprintable(words, fonts_for(words)))
    missing = [character if character.isprintable() else f"U+{ord(character):04X}" for character in unknown]
    if not missing:
        return []
    rest = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    return [
        f"no font on this machine has {' '.join(missing[:_NAMED])}{rest}: figures have numbers in place of such names; "
        "Noto Sans CJK, once installed, has those of Chinese, Japanese and Korean"
    ]


def _best(missing: set[str]) -> FontEntry | None:
    """The font with most of the characters; None if no font has one of them."""
    known = (font for font in fontManager.ttflist if not font.name.startswith(_PLACEHOLDERS))
    upright = sorted((font for font in known if font.style == "normal"), key=_from_the_house)
    best = max(upright, key=lambda font: len(missing & _characters(font.fname)), default=None)
    return best if best and missing & _characters(best.fname) else None


def _from_the_house(font: FontEntry) -> tuple[int, bool, str, int]:
    """A font's distance from the house's: its weight, its serifs; among equals by file, its first face first."""
    weight = font.weight if isinstance(font.weight, int) else 400
    return abs(weight - 400), "serif" in font.name.lower(), font.fname, getattr(font, "index", 0)


@cache
def _notice_new_fonts() -> bool:
    """Add what was installed since matplotlib last looked; whether there was any."""
    known = {font.fname for font in fontManager.ttflist}
    new = [path for path in findSystemFonts() if path not in known]
    for path in new:
        with suppress(Exception):  # a font that FreeType cannot read is none
            fontManager.addfont(path)
    return bool(new)


@cache
def _characters(path: str) -> frozenset[str]:
    """The characters that a font has; none if it cannot be read."""
    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()
