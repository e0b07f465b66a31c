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
from mkdocs.structure.pages import Page

Code = griffe.ModulesCollection
SOURCES = ("strategies", "benchmarks")
"""Where classes, their parameters and the types of these are."""
TOP = Path(__file__).resolve().parent.parent
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
TYPES = {"float": "number", "int": "whole number", "bool": "`true`, `false`"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and to the navigation every page that it does not name."""
    made = {f"method-{name}.md": page for name, page in method_pages().items()}
    made["changelog.md"] = (TOP / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](")
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    named = dict(_titled(config.nav))
    section = next(part["Methods"] for part in config.nav if "Methods" in part)
    section += [{path[len("method-") : -len(".md")]: path} for path in made if path.startswith("method-")]
    rest = [file.src_uri for file in files.documentation_pages() if file.src_uri not in {*named, *made}]
    if rest:
        config.nav.append({"More": sorted(rest)})
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Have links to files read as their pages do here, and the rows of methods.md lead to the methods' pages."""
    titles = dict(_titled(config.nav))
    markdown = re.sub(
        r"\[([\w-]+\.md)\]\(\1", lambda link: f"[{titles.get(link[1], link[1])}]({link[1]}", markdown, flags=re.A
    )
    if page.file.src_uri != "methods.md":
        return markdown

    def linked(name: re.Match[str]) -> str:
        target = f"method-{name[1]}.md"
        return f"[{name[0]}]({target})" if files.get_file_from_path(target) else name[0]

    return re.sub(r"^\| `[^|]+", lambda cell: re.sub(r"`([\w-]+)`", linked, cell[0]), markdown, flags=re.M)


def _titled(nav: Any) -> Iterator[tuple[str, str]]:
    """Yield the pages that a navigation names, each with its title."""
    for part in nav:
        for title, inner in part.items() if isinstance(part, dict) else [(part, part)]:
            yield from [(inner, title)] if isinstance(inner, str) else _titled(inner)


def method_pages() -> dict[str, str]:
    """Return the Markdown of each built-in method's page, by its name."""
    loader = griffe.GriffeLoader(search_paths=[TOP])
    for name in SOURCES:
        loader.load(name)
    told = (TOP / "docs" / "methods.md").read_text(encoding="utf-8")
    points = distribution("continual-seg-bench").entry_points.select(group="bench.strategies")
    return {
        point.name: _page(point.name, point.value.replace(":", "."), loader.modules_collection, told)
        for point in sorted(points)
    }


def _page(name: str, path: str, code: Code, told: str) -> str:
    members = code[path].all_members
    citation = ast.literal_eval(_source(members["citation"].value, code))
    protocols = ", ".join(ast.literal_eval(_source(members["protocols"].value, code)))
    resumable = str(code[path].members["resumable"].value) == "True"
    parameters = code[members["Parameters"].value.canonical_path]
    return f"""# {name}

::: {path}
    options: {{show_root_heading: false, show_root_toc_entry: false, show_bases: false, members: false}}

- **From**: {citation}
- **Protocols**: {protocols}
- **A run that died** {"goes on after its last step" if resumable else "starts again from step 0"}
- **Source**: `{"/".join(path.split(".")[:-1])}.py`

## Parameters

{_parameters(parameters, code) or "None beside the size of the memory (`--memory`)."}
{_told_of(name, told)}
"""


def _source(value: Any, code: Code) -> str:
    """Return the code of a value, or of what it is another name for."""
    while (known := _meant(value, code)) is not None:
        value = known
    return str(value)


def _meant(value: Any, code: Code) -> Any:
    path = getattr(value, "canonical_path", "")
    if isinstance(value, griffe.ExprName | griffe.ExprAttribute) and path.split(".")[0] in SOURCES:
        return getattr(code[path], "value", None)
    return None


def _parameters(kind: griffe.Object, code: Code) -> str:
    fields = [m for m in kind.all_members.values() if m.is_attribute and "property" not in m.labels]
    return "\n".join(_parameter(field, code) for field in fields)


def _parameter(field: griffe.Object, code: Code) -> str:
    default, told = _source(field.value, code).strip("'"), field.docstring.value if field.docstring else ""
    default = {"None": "null", "True": "true", "False": "false"}.get(default, default)
    return f"- `{field.name}={default}` ({_allowed(field.annotation, code)}) {' '.join(told.split())}".rstrip()


def _allowed(annotation: Any, code: Code) -> str:
    """Return in words what a type and its ranges allow: `number, ≥ 0, ≤ 1`, or the choices that there are."""
    text = str(annotation)
    for name in annotation.iterate(flat=True) if isinstance(annotation, griffe.Expr) else ():
        if (known := _meant(name, code)) is not None:
            text = re.sub(rf"\b{name}\b", str(known), text)
    said = []
    for node in ast.walk(ast.parse(text, mode="eval")):
        if isinstance(node, ast.Name) and node.id in TYPES:
            said.append(TYPES[node.id])
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
            said += [f"`{choice}`" for choice in ast.literal_eval(ast.unparse(node.slice))]
        elif isinstance(node, ast.keyword) and node.arg in BOUNDS:
            said.append(f"{BOUNDS[node.arg]} {ast.unparse(node.value)}")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "Search":
            said.append(f"tuned from {ast.unparse(node.args[0])} to {ast.unparse(node.args[1])}")
        elif isinstance(node, ast.Constant) and node.value is None:
            said.append("`null`")
    return ", ".join(sorted(dict.fromkeys(said), key=lambda part: part.startswith("tuned")))


def _told_of(name: str, told: str) -> str:
    """Return what methods.md has of a method: its rows of the tables, cell by cell, and the paragraphs it heads."""
    parts: list[str] = []
    heading, header, mine = "", [], False
    for line in told.splitlines():
        cells = [cell.strip() for cell in line[1:-1].split("|")] if line.startswith("|") else []
        begins = re.match(r"\*\*([\w, -]+)\.\*\*", line)
        if line.startswith("#"):
            heading, mine = line.lstrip("# "), False
        elif begins:
            mine = name in begins[1].split(", ")
        if not (cells and header):
            header = cells
        elif re.search(rf"`{re.escape(name)}[`(]", cells[0]):
            parts += ["", f"{cells[0]}:" if f"## {heading}" in parts else f"## {heading}", ""]
            parts += [
                f"- {head and f'**{head}**: '}{cell}"
                for head, cell in zip(header[1:], cells[1:], strict=True)
                if cell not in ("", "see below")
            ]
        if mine:
            parts += ["", line] if begins else [line]
    return "\n".join(parts).replace("](#", "](methods.md#")
