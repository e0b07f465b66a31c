"""What was meant by a setting that is not known: one of that name elsewhere, under another name, or a near one."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_type_hints

from strategies.networks.settings import Called

_FIRST = "incremental."
"""Of settings with one name, those of the steps in which methods are compared are told first."""

Known = dict[str, frozenset[str]]
"""By the name of a setting all that it is called, as `_plain` writes it."""


def did_you_mean(unknown: str, value: object, kind: type[Any], where: str) -> str:
    """Return the way from an unknown setting to what there is in a dataclass of settings that stands at `where`.

    What stands in the same section is told by its last name, all else by its whole one. Without anything that is alike
    it is what is known in that section.
    """
    section = unknown.rpartition(".")[0]
    known = _known(kind, where)
    beside = _beside(known, section)
    return (
        _asked(_named(unknown, beside))
        or _asked(_named(_leaf(unknown, value), known))
        or _asked(_named(unknown, known))
        or _asked(_near(unknown, beside, cutoff=0.6))
        or _asked(_near(unknown, known, cutoff=0.75))
        or f"known here: {', '.join(beside) or 'none'}"
    )


def what_it_holds(kind: type[Any], where: str) -> str:
    """Return what there is to be set in a section, a dataclass of settings that stands at `where`."""
    known = list(_known(kind, where))
    return _asked(known) if len(known) == 1 else f"it holds {', '.join(known)}"


def _leaf(name: str, value: object) -> str:
    """Return the name of the first setting that a value holds: `train.lr` of `train` and `{lr: 0.1}`."""
    while isinstance(value, Mapping) and value:
        key, value = next(iter(value.items()))
        name = f"{name}.{key}"
    return name


def _known(kind: type[Any], where: str) -> Known:
    found: Known = {}
    plain, annotated = get_type_hints(kind), get_type_hints(kind, include_extras=True)
    for key in (field.name for field in dataclasses.fields(kind)):
        name = f"{where}.{key}" if where else key
        kinds = (plain[key], *get_args(plain[key]))
        sections = [part for part in kinds if isinstance(part, type) and dataclasses.is_dataclass(part)]
        for section in sections:
            found.update(_known(section, name))
        if not sections:
            found[name] = frozenset(map(_plain, (key, name, *_called(annotated[key]))))
    return found


def _called(hint: Any) -> list[str]:
    own = [name for each in getattr(hint, "__metadata__", ()) if isinstance(each, Called) for name in each.names]
    return own + [name for part in get_args(hint) for name in _called(part)]


def _beside(known: Known, section: str) -> Known:
    """What stands in a section, by its last name: settings, and sections that hold some."""
    found: Known = {}
    for name, called in known.items():
        if name.startswith(f"{section}." if section else ""):
            first, *below = name[len(section) + bool(section) :].split(".")
            found.setdefault(first, frozenset([_plain(first)]) if below else called)
    return found


def _named(unknown: str, known: Known) -> list[str]:
    asked = {_plain(unknown), _plain(unknown.rpartition(".")[2])}
    return [name for name, called in known.items() if asked & called]


def _near(unknown: str, known: Known, cutoff: float) -> list[str]:
    called = {each: name for name, names in known.items() for each in names}
    near = difflib.get_close_matches(_plain(unknown.rpartition(".")[2]), called, n=1, cutoff=cutoff)
    return [name for name, names in known.items() if near and near[0] in names]


def _asked(names: Sequence[str]) -> str:
    *others, last = sorted(names, key=lambda name: not name.startswith(_FIRST)) or [""]
    return f"did you mean {' or '.join(filter(None, [', '.join(others), last]))}?" if last else ""


def _plain(name: str) -> str:
    return name.lower().translate(str.maketrans("", "", "._- "))
