"""HTML from the templates of `templates/`: what they are handed is escaped, unless a template made it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@cache
def environment() -> Environment:
    """Return what loads the templates."""
    found = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    found.filters["one_line"] = one_line
    return found


def rendered(template: str, **values: object) -> Markup:
    """Return a template with its values."""
    return Markup(environment().get_template(template).render(values))


def part(name: str, *values: object) -> Markup:
    """Return a part of a page: a macro of `parts.html` with its values."""
    macro = getattr(environment().get_template("parts.html").module, name)
    return Markup(macro(*values))


def joined(parts: Iterable[str], between: str = "\n") -> Markup:
    """Return those parts that are not empty, one after the other; `between` is HTML."""
    return Markup(between).join(filter(None, parts))


def one_line(text: str) -> str:
    """Return a text with a blank for each run of white space."""
    return re.sub(r"\s+", " ", text)
