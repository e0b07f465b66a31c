"""Pieces of an HTML page: sections, notes, tables in boxes that scroll, and figures that are part of the file."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from xml.etree import ElementTree

from PIL import Image

from reports.records import RecordError

_HREF = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"url\(#([^)]*)\)")
_PIXELS_PER_CSS_PIXEL = 2


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading: its id, its title as plain text and its HTML; nothing of it if that is ''."""

    name: str
    title: str
    body: str


def sections_html(sections: Sequence[Section]) -> str:
    """Return the sections one after the other, each with its heading of the second level."""
    return "\n".join(
        f'<section aria-labelledby="{escape(each.name)}">\n'
        f'<h2 id="{escape(each.name)}">{escape(each.title)}</h2>\n{each.body}\n</section>'
        for each in sections
    )


def contents_html(sections: Sequence[Section]) -> str:
    """Return the list of links to the sections."""
    links = [f'<li><a href="#{escape(each.name)}">{escape(each.title)}</a></li>' for each in sections]
    return "\n".join(["<ul>", *links, "</ul>"])


def subsection(title: str, *parts: str) -> str:
    """Return parts below a heading of the third level; '' if all of them are."""
    body = "\n".join(filter(None, parts))
    return f"<h3>{escape(title)}</h3>\n{body}" if body else ""


def code(text: object) -> str:
    """Return a text as inline code."""
    return f"<code>{escape(str(text))}</code>"


def note(message: str) -> str:
    """Return a visible note; `message` is plain text."""
    return f'<p class="note" role="note">{escape(message)}</p>'


def or_note(part: Callable[[], str]) -> str:
    """Return a part of the page, or a note that says why it cannot be made."""
    try:
        return part()
    except RecordError as error:
        return note(f"Not shown: {error}")


def definitions(entries: Iterable[tuple[str, str]]) -> str:
    """Return a list of terms, plain text, and what is said of each, HTML."""
    pairs = [f"<div><dt>{escape(term)}</dt><dd>{said}</dd></div>" for term, said in entries]
    return "\n".join(["<dl>", *pairs, "</dl>"]) if pairs else ""


# ---------------------------------------------------------------- tables


def tables_of(fragment: str) -> list[str]:
    """Return the tables in a file that `reports.markup.html` made."""
    return [f"{table.strip()}</table>" for table in fragment.split("</table>")[:-1]]


def boxed(table: str, label: str, sortable: bool = True) -> str:
    """Return a table of `reports.markup.html` in a box that scrolls, without its id; `label` names it, plain text."""
    bare = f"<table>{table.split('>', 1)[1]}"
    kind = "scroll sortable" if sortable else "scroll"
    return f'<div class="{kind}" role="group" tabindex="0" aria-label="{escape(label)}">\n{bare}\n</div>'


# ---------------------------------------------------------------- figures


def figure(picture: str, label: str, caption: str) -> str:
    """Return a figure on a white card that scrolls; `label` and `caption` are plain text."""
    return (
        f'<figure>\n<div class="card" role="group" tabindex="0" aria-label="{escape(label)}">\n{picture}\n</div>\n'
        f"<figcaption>{escape(caption)}</figcaption>\n</figure>"
    )


def png_image(content: bytes, alt: str) -> str:
    """Return a PNG as an image of half as many CSS pixels, its content in the address."""
    with Image.open(io.BytesIO(content)) as image:
        width, height = (side // _PIXELS_PER_CSS_PIXEL for side in image.size)
    data = base64.b64encode(content).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" alt="{escape(alt)}">'


def svg_image(content: bytes, name: str, alt: str) -> str:
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
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    # HTML knows the elements of SVG without their namespace.
    return name.rpartition("}")[2]


def _renamed(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key in ("href", _HREF) and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    return _REFERENCE.sub(lambda found: f"url(#{name}-{found[1]})", value)
