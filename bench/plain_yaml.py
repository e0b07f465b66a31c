"""YAML that people write: plain data, in which no key is given twice."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"


class AmbiguousYamlError(yaml.YAMLError):
    """A key is given twice, or something stands within itself: one line that names the key and its lines."""


def parse_yaml(text: str) -> Any:
    """Return the plain data of a YAML text; raise `yaml.YAMLError`, of a key given twice `AmbiguousYamlError`.

    PyYAML would keep the last of the two without a word. What a merge (`<<`) brings along may be given anew.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _Check(loader).node(node, (), ())
        return loader.construct_document(node)
    except ValueError as error:  # the 30th of February
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
        """Return a key as it is read: `true` and `yes` are one."""
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
