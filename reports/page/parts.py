"""The parts that an HTML page is made of."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup
from PIL import Image

from reports.files import RecordError
from reports.templating import joined, part

_HREF = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"url\(#([^)]*)\)")
_PIXELS_PER_CSS_PIXEL = 2


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading: its id, its title and its HTML; nothing of it if that is ''."""

    name: str
    title: str
    body: Markup


def subsection(title: str, *parts: str) -> Markup:
    """Return parts below a heading of the third level; '' if all of them are."""
    body = joined(parts)
    return part("subsection", title, body) if body else body


def code(text: object) -> Markup:
    """Return a text as inline code."""
    return part("code", text)


def codes(texts: Iterable[str], between: str = "; ") -> Markup:
    """Return texts as inline code, each once."""
    return joined(map(code, dict.fromkeys(texts)), between)


def note(message: str) -> Markup:
    """Return a visible note."""
    return part("note", message)


def or_note(make: Callable[[], Markup]) -> Markup:
    """Return a part of the page, or a note that says why it cannot be made."""
    try:
        return make()
    except RecordError as error:
        return note(f"Not shown: {error}")


def definitions(entries: Iterable[tuple[str, str]]) -> Markup:
    """Return a list of terms and what is said of each, text or HTML; '' for none."""
    pairs = list(entries)
    return part("definitions", pairs) if pairs else Markup()


# ---------------------------------------------------------------- tables


def tables_of(fragment: str) -> list[Markup]:
    """Return the tables in a file that `reports.markup.html` made."""
    return [Markup(f"{table.strip()}</table>") for table in fragment.split("</table>")[:-1]]


def boxed(table: Markup, label: str, sortable: bool = True) -> Markup:
    """Return a table of `reports.markup.html` in a box that scrolls, without its id; `label` names it."""
    bare = Markup(f"<table>{table.split('>', 1)[1]}")
    return part("boxed", bare, label, sortable)


# ---------------------------------------------------------------- figures


def figure(picture: Markup, label: str, caption: str) -> Markup:
    """Return a figure on a white card that scrolls."""
    return part("figure", picture, label, caption)


def png_image(content: bytes, alt: str) -> Markup:
    """Return a PNG as an image of half as many CSS pixels, its content in the address."""
    with Image.open(io.BytesIO(content)) as image:
        width, height = (side // _PIXELS_PER_CSS_PIXEL for side in image.size)
    return part("png_image", base64.b64encode(content).decode("ascii"), width, height, alt)


def svg_image(content: bytes, name: str, alt: str) -> Markup:
    """Return a figure's SVG as an element of the page; its ids begin with `name`, so that several live in one page."""
    root = ElementTree.fromstring(content)
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):  # matplotlib's one style is in page.css
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(key): _renamed(key, value, name) for key, value in element.attrib.items()}
    root.attrib |= {"role": "img", "aria-label": alt}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _local(name: str) -> str:
    # HTML knows the elements of SVG without their namespace.
    return name.rpartition("}")[2]


def _renamed(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key in ("href", _HREF) and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    return _REFERENCE.sub(lambda found: f"url(#{name}-{found[1]})", value)
