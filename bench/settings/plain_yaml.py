"""YAML that people write: plain data as the text says, in which no key is given twice.

Words mean what they do in YAML 1.2's core schema (its section 10.3.2). YAML 1.1, which PyYAML reads, makes 10 of
`012`, 90 of `1:30`, a date of `2024-01-02`, and a truth value of `no`.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from bench.settings.errors import RequestError

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_STRUCTURE = (*(f"{_TAG}{name}" for name in ("str", "seq", "map")), None)
"""What is read as PyYAML does; None refuses all other tags."""
_NUMBER = list("-+.0123456789")


class AmbiguousYamlError(yaml.YAMLError):
    """A key is given twice, or something stands within itself: one line that names the key and its lines."""


class _CoreLoader(yaml.SafeLoader):
    """Knows null, true and false, whole numbers also as 0x10 and 0o17, and numbers with a point or an exponent."""

    def null(self, node: yaml.ScalarNode) -> None:
        """Return None, whatever the text."""

    def truth(self, node: yaml.ScalarNode) -> bool:
        """Return what `true` and `false` say."""
        return {"true": True, "false": False}[node.value.lower()]

    def whole(self, node: yaml.ScalarNode) -> int:
        """Return a whole number; a leading 0 says nothing."""
        base = {"0x": 16, "0o": 8}.get(node.value[:2], 10)
        return int(node.value, base)

    def number(self, node: yaml.ScalarNode) -> float:
        """Return a number, `.inf` and `.nan` among them."""
        return float(re.sub(r"(?i)\.(inf|nan)", r"\1", node.value))


_CoreLoader.yaml_implicit_resolvers = {}
_CoreLoader.yaml_constructors = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _STRUCTURE}
for _name, _read, _written, _first in (
    ("null", _CoreLoader.null, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", _CoreLoader.truth, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", _CoreLoader.whole, r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", _NUMBER),
    ("float", _CoreLoader.number, r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", _NUMBER),
    ("float", _CoreLoader.number, r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", _NUMBER),
    ("merge", None, "<<", ["<"]),
):
    _CoreLoader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"(?:{_written})$"), _first)
    if _read:
        _CoreLoader.add_constructor(f"{_TAG}{_name}", _read)


def parse_yaml(text: str) -> Any:
    """Return the plain data of a YAML text; raise `yaml.YAMLError`, of a key given twice `AmbiguousYamlError`.

    PyYAML would keep the last of the two without a word. What a merge (`<<`) brings along may be given anew.
    """
    loader = _CoreLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _Check(loader).node(node, (), ())
        return loader.construct_document(node)
    except (ValueError, KeyError) as error:  # `!!int x`, `!!bool x`
        raise yaml.YAMLError(str(error)) from None
    finally:
        loader.dispose()


class _Check:
    """Looks at every node once, however many aliases it has."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self.loader = loader
        self.seen: set[yaml.Node] = set()

    def node(self, node: yaml.Node, path: tuple[str, ...], above: tuple[yaml.Node, ...]) -> None:
        """Raise `AmbiguousYamlError` for what is wrong at or below a node; `above` are those that it stands in."""
        if node in above:
            raise AmbiguousYamlError(f"{'.'.join(path)} stands within itself, see line {_line(node)}")
        if node in self.seen:
            return
        self.seen.add(node)
        if isinstance(node, yaml.MappingNode):
            self.keys(node, path)
            for key, value in node.value:
                self.node(value, (*path, _text(key)), (*above, node))
        elif isinstance(node, yaml.SequenceNode):
            for place, value in enumerate(node.value):
                self.node(value, (*path, str(place)), (*above, node))

    def keys(self, node: yaml.MappingNode, path: tuple[str, ...]) -> None:
        """Raise `AmbiguousYamlError` for a key that a mapping has twice."""
        found: dict[Hashable, yaml.Node] = {}
        for node_of_key, _ in node.value:
            key = self.key(node_of_key)
            first = found.setdefault(key, node_of_key)
            if first is not node_of_key:
                name = ".".join((*path, _text(node_of_key)))
                raise AmbiguousYamlError(f"{name} is given twice, in {_lines(first, node_of_key)}")

    def key(self, node: yaml.Node) -> Hashable:
        """Return a key as it is read: `true` and `True` are one."""
        if node.tag == _MERGE:
            return _MERGE
        key: Hashable = self.loader.construct_object(node) if isinstance(node, yaml.ScalarNode) else node
        return key


def _text(key: yaml.Node) -> str:
    return key.value if isinstance(key, yaml.ScalarNode) else "..."


def _lines(one: yaml.Node, other: yaml.Node) -> str:
    first, second = _line(one), _line(other)
    return f"line {first}" if first == second else f"lines {first} and {second}"


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def read_yaml(path: Any) -> dict[str, Any]:
    """Return the mapping in a plain YAML file; raise `RequestError` where it is something else."""
    try:
        settings = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"cannot read the settings {path} ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not text ({error.reason})") from None
    except AmbiguousYamlError as error:
        raise RequestError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise RequestError(f"{path} is not plain YAML ({' '.join(str(error).split())})") from None
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise RequestError(f"{path}: settings are a mapping of sections")
    return settings
