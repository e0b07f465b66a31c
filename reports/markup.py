"""One table, written as LaTeX or as Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": "{`}",
    "±": r"$\pm$",
    # At a row's start LaTeX would take a bare bracket for the optional argument of the \\ before it.
    "[": "{[}",
    "]": "{]}",
}
_MARKDOWN = "\\`*_|<>[]#~"


@dataclass(frozen=True)
class Cell:
    """A text, or a mean and its standard deviation ('' for none); `rank` 1 is the column's best, 0 none."""

    text: str
    std: str = ""
    rank: int = 0


@dataclass(frozen=True)
class Table:
    """A table before it is written: plain text everywhere, code between backticks in the caption."""

    label: str
    header: list[str]
    rows: list[list[Cell]]
    gap: str
    caption: str


def latex(table: Table) -> str:
    """Return a complete `table` environment, which needs the package booktabs."""
    body = [" & ".join(_latex_cell(cell) for cell in row) for row in table.rows]
    gap = rf"\multicolumn{{{len(table.header)}}}{{c}}{{{_latex_text(table.gap)}}}"
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_with_code(table.caption, _latex_text, _latex_code)}}}",
        rf"\label{{{table.label}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        " & ".join(map(_latex_text, table.header)) + r" \\",
        r"\midrule",
        *(rf"{row} \\" for row in body or [gap]),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def markdown(table: Table) -> str:
    """Return the caption and a pipe table, its second best in HTML's `<u>` for want of a Markdown mark."""
    gap = [Cell(table.gap), *[Cell("")] * (len(table.header) - 1)]
    lines = [
        _with_code(table.caption, _markdown_text, _markdown_code),
        "",
        _pipes([_markdown_text(text) for text in table.header]),
        _pipes([":--", *["--:"] * (len(table.header) - 1)]),
        *(_pipes([_markdown_cell(cell) for cell in row]) for row in table.rows or [gap]),
    ]
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in _one_line(text))


def _latex_code(text: str) -> str:
    return rf"\texttt{{{_latex_text(text)}}}"


def _latex_cell(cell: Cell) -> str:
    text = _latex_text(cell.text)
    marked = {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(cell.rank, text)
    return rf"{marked} $\pm$ {cell.std}" if cell.std else marked


def _markdown_text(text: str) -> str:
    return "".join(f"\\{letter}" if letter in _MARKDOWN else letter for letter in _one_line(text))


def _markdown_code(text: str) -> str:
    return f"`{_one_line(text)}`"


def _markdown_cell(cell: Cell) -> str:
    text = _markdown_text(cell.text)
    marked = {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(cell.rank, text)
    return f"{marked} ± {cell.std}" if cell.std else marked


def _pipes(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _with_code(caption: str, plain: Callable[[str], str], code: Callable[[str], str]) -> str:
    """The caption with every second piece between its backticks written as code, the others as plain text."""
    return "".join(code(piece) if place % 2 else plain(piece) for place, piece in enumerate(caption.split("`")))
