"""What MkDocs adds to the pages of this folder: a page for each method, the changelog, pages that no one has listed.

A method's page has its class's docstring, its parameters as the code declares them, and what methods.md says of it.
Nothing of the harness is imported: griffe, which mkdocstrings brings along, reads the source.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

TOP = Path(__file__).resolve().parent.parent
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
TYPES = {"float": "number", "int": "whole number", "bool": "`true`, `false`"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and to the navigation every page that it does not name."""
    made = {f"method-{name}.md": page for name, page in method_pages().items()}
    made["changelog.md"] = (TOP / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](")
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    named = set(_named(config.nav))
    section = next(part["Methods"] for part in config.nav if "Methods" in part)
    section += [{path[len("method-") : -len(".md")]: path} for path in made if path.startswith("method-")]
    rest = [file.src_uri for file in files.documentation_pages() if file.src_uri not in named | set(made)]
    if rest:
        config.nav.append({"More": sorted(rest)})
    return files


def _named(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _named(part)


def method_pages() -> dict[str, str]:
    """Return the Markdown of each built-in method's page, by its name."""
    package = griffe.load("strategies", search_paths=[TOP])
    told = (TOP / "docs" / "methods.md").read_text(encoding="utf-8")
    points = distribution("continual-seg-bench").entry_points.select(group="bench.strategies")
    return {point.name: _page(point.name, point.value, package, told) for point in sorted(points)}


def _page(name: str, value: str, package: griffe.Object, told: str) -> str:
    path = value.replace(":", ".").removeprefix("strategies.")
    members = package[path].all_members
    citation = ast.literal_eval(_source(members["citation"].value, package))
    protocols = ", ".join(ast.literal_eval(_source(members["protocols"].value, package)))
    resumable = str(package[path].members["resumable"].value) == "True"
    parameters = package[members["Parameters"].value.canonical_path.removeprefix("strategies.")]
    return f"""# {name}

::: strategies.{path}
    options: {{show_root_heading: false, show_root_toc_entry: false, show_bases: false, members: false}}

| | |
|---|---|
| citation | {citation} |
| protocols | {protocols} |
| checkpoint after each step | {"yes" if resumable else "no: a run that died starts again"} |
| source | `strategies/{path.split(".")[0]}.py` |

## Parameters

{_parameters(parameters, package) or "None beside the size of the memory (`--memory`)."}

{_told_of(name, told)}
"""


def _source(value: Any, package: griffe.Object) -> str:
    """Return the code of a value, or of what it is another name for."""
    while (known := _meant(value, package)) is not None:
        value = known
    return str(value)


def _meant(value: Any, package: griffe.Object) -> Any:
    path = getattr(value, "canonical_path", "")
    if isinstance(value, griffe.ExprName | griffe.ExprAttribute) and path.startswith("strategies."):
        return getattr(package[path.removeprefix("strategies.")], "value", None)
    return None


def _parameters(kind: griffe.Object, package: griffe.Object) -> str:
    fields = [m for m in kind.all_members.values() if m.is_attribute and "property" not in m.labels]
    rows = [
        f"| `{field.name}` | `{_source(field.value, package)}` | {_allowed(field.annotation, package)} "
        f"| {' '.join(field.docstring.value.split()) if field.docstring else ''} |"
        for field in fields
    ]
    return "\n".join(["| parameter | default | allowed | |", "|---|---|---|---|", *rows]) if rows else ""


def _allowed(annotation: Any, package: griffe.Object) -> str:
    """Return in words what a type and its ranges allow: `number, ≥ 0, ≤ 1`, or the choices that there are."""
    code = str(annotation)
    for name in annotation.iterate(flat=True) if isinstance(annotation, griffe.Expr) else ():
        if (known := _meant(name, package)) is not None:
            code = re.sub(rf"\b{name}\b", str(known), code)
    said = []
    for node in ast.walk(ast.parse(code, mode="eval")):
        if isinstance(node, ast.Name) and node.id in TYPES:
            said.append(TYPES[node.id])
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
            said += [f"`{choice}`" for choice in ast.literal_eval(ast.unparse(node.slice))]
        elif isinstance(node, ast.keyword) and node.arg in BOUNDS:
            said.append(f"{BOUNDS[node.arg]} {ast.unparse(node.value)}")
        elif isinstance(node, ast.Constant) and node.value is None:
            said.append("`null`")
    return ", ".join(dict.fromkeys(said))


def _told_of(name: str, told: str) -> str:
    """Return what methods.md has of a method: its rows of the tables, cell by cell, and the paragraphs it heads."""
    parts: list[str] = []
    heading, header, mine = "", [], False
    for line in told.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("|") else []
        if line.startswith("#"):
            heading, mine = line.lstrip("# "), False
        elif start := re.match(r"\*\*([\w, -]+)\.\*\*", line):
            mine = name in re.split(r", ", start[1])
        if not cells:
            header = []
        elif not header:
            header = cells
        elif re.search(rf"`{re.escape(name)}[`(]", cells[0]):
            pairs = zip(header[1:], cells[1:], strict=False)
            parts += ["", f"## {heading}", "", *(f"- **{head}**: {cell}" for head, cell in pairs if cell.strip("| "))]
        if mine:
            parts.append(line)
    return "\n".join(parts).replace("](#", "](methods.md#")
