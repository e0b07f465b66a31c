"""Where `bench tune` looks for a number: declared in its `Annotated` type, beside its default and its range."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_type_hints


@dataclasses.dataclass(frozen=True)
class Search:
    """The interval in which a setting or a method's parameter is tuned, both ends included.

    A parameter that changes the base model or the memory's size has none: all trials of a method start from the same
    base model, and all methods keep as many images.
    """

    low: float
    high: float
    source: str
    """Why this interval: the values of papers and published code that it holds."""
    log: bool = False
    """Whether factors count and not differences."""
    whole: bool = False
    """Whether it is a whole number."""
    when: tuple[str, Any] | None = None
    """Another parameter and its value, without which this one has no effect."""


def search_space(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Search]:
    """Return what is tuned of a dataclass, by field, where its fields have these values."""
    hints = get_type_hints(kind, include_extras=True)
    space = {
        field.name: search
        for field in dataclasses.fields(kind)
        for search in getattr(hints[field.name], "__metadata__", ())
        if isinstance(search, Search)
    }
    return {name: s for name, s in space.items() if s.when is None or values[s.when[0]] == s.when[1]}
