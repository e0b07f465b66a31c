"""Settings in words: `KEY=VALUE`, from a command line or from Python."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import yaml

from bench.settings.errors import RequestError
from bench.settings.plain_yaml import AmbiguousYamlError, parse_yaml

_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"' r"|'[^']*'")
_BETWEEN_ASSIGNMENTS = re.compile(r",(?![^\[{(]*[\]})])(?=\s*[A-Za-z_][\w.:-]*=)")
"""Between `a=1` and `b=2` in `a=1,b=2`, not within brackets."""


def pair_of(text: str, where: str) -> tuple[str, Any]:
    """Return key and value of `key=value`, read as YAML; raise `RequestError` that begins with `where`."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RequestError(f"{where}: '{text}' is not key=value")
    try:
        return key.strip(), parse_yaml(value)
    except AmbiguousYamlError as error:
        raise RequestError(f"{where}: '{text}': {error}") from None
    except yaml.YAMLError:
        raise RequestError(f"{where}: cannot read the value of '{text}'") from None


def split_assignments(text: str) -> list[str]:
    """Return the parts of `a=1,b=2`, of which brackets and quotes are kept whole."""
    unquoted = _QUOTED.sub(lambda quoted: "_" * len(quoted[0]), text)
    cuts = [-1, *(comma.start() for comma in _BETWEEN_ASSIGNMENTS.finditer(unquoted)), len(text)]
    return [text[before + 1 : after] for before, after in pairwise(cuts)]


def python_assignments(settings: Mapping[str, Any]) -> list[str]:
    """Return `key=value` for settings with Python's values, tuples and None among them, as `--set` takes them.

    A text is taken as it is; raises `RequestError` for what is no plain data.
    """
    return [f"{key}={_as_text(key, value)}" for key, value in settings.items()]


def _as_text(key: str, value: Any) -> str:
    try:
        return json.dumps(value, default=_plain_data)
    except (AttributeError, TypeError, ValueError):
        raise RequestError(f"{key}={value!r}: a setting is a number, a text, a truth value, None or a list") from None


def _plain_data(value: Any) -> Any:
    """Return what a path, or a number of NumPy or torch, stands for."""
    return str(value) if isinstance(value, os.PathLike) else value.item()


def require_once(keys: Sequence[str], where: str) -> None:
    """Raise `RequestError` where a key stands among the others once more."""
    for key in keys:
        if keys.count(key) > 1:
            raise RequestError(f"{where}: {key} is given more than once")


def with_own_option(assignments: Sequence[str], key: str, value: object, option: str) -> list[str]:
    """Return the assignments and one that an option of its own makes; `RequestError` where they have another value."""
    for given in assignments:
        for text in split_assignments(given):
            name, _, other = text.partition("=")
            if name.strip() == key and other.strip() != str(value):
                raise RequestError(f"{option} {value} and --set {text.strip()}: give one of them")
    return [*assignments, f"{key}={value}"]
