"""Plain data checked against a dataclass of settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from bench.settings.errors import MissingSettingError, RequestError
from bench.settings.hints import did_you_mean, what_it_holds

T = TypeVar("T")
Settings = dict[str, Any]


def checked(kind: type[T], settings: Mapping[str, Any], where: str = "", whole: type[Any] | None = None) -> T:
    """Build a dataclass of settings; raise `RequestError` that names the key, its value and what is allowed.

    For a key that is not known it names one of the `whole`, where the settings are a section of it.
    """
    known = (whole, "") if whole else (kind, where)
    _check_keys(kind, settings, where, lambda unknown, value: did_you_mean(unknown, value, *known))
    try:
        return TypeAdapter(kind).validate_python(dict(settings))
    except ValidationError as error:
        if error.errors()[0]["type"] == "missing":
            raise MissingSettingError(first_problem(error, where)) from None
        raise RequestError(first_problem(error, where)) from None


def first_problem(error: ValidationError, where: str = "") -> str:
    """Return in one line the first setting that is wrong, its value, and what is allowed."""
    first = error.errors()[0]
    key = ".".join([*filter(None, [where]), *(str(p) for p in first["loc"])])
    if first["type"] == "missing":
        return f"{key} is missing"
    return f"{key}={_shown(first['input'])}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _shown(value: object) -> str:
    return "null" if value is None else repr(value)


def _check_keys(kind: type[Any], settings: Mapping[str, Any], where: str, hint: Callable[[str, object], str]) -> None:
    types = get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]
    for key, value in settings.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in known:
            raise RequestError(f"unknown setting {path}; {hint(path, value)}")
        if isinstance(value, bool) and types[key] is not bool:
            raise RequestError(f"{path}={value!r}: no truth value is allowed here")
        if isinstance(value, str) and value.lower() == "none" and NoneType in get_args(types[key]):
            raise RequestError(f"{path}={value}: write null for none")
        if dataclasses.is_dataclass(types[key]) and not isinstance(value, types[key]):
            if not isinstance(value, Mapping):
                told = what_it_holds(types[key], path)
                raise RequestError(f"{path}={_shown(value)}: a section of settings is a mapping; {told}")
            _check_keys(types[key], value, path, hint)
