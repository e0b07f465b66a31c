"""One table, written as LaTeX, as Markdown or as HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

from markupsafe import Markup

from reports.templating import one_line, rendered

FORMATS = ("csv", "latex", "markdown", "html")
"""Of files with tables: the numbers, or one of `MARKUP`."""
MINUS = "\N{MINUS SIGN}"

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
    MINUS: r"$-$",
    "†": r"$\dagger$",
    "✓": r"$\surd$",
    "✗": r"$\times$",
    # At a row's start LaTeX would take a bare bracket for the optional argument of the \\ before it.
    "[": "{[}",
    "]": "{]}",
}
_MARKDOWN = "\\`*_|<>[]#~"


_BETWEEN_BLOCKS = r"\addlinespace"
# A mean's deviation stands below it, nearer than the next row.
_BELOW = r" \\[-0.9ex]"


def require_table_formats(formats: Iterable[str]) -> None:
    """Raise ValueError for a format that tables are not written in."""
    for unknown in sorted(set(formats) - set(FORMATS)):
        raise ValueError(f"table format {unknown!r}: allowed are {', '.join(FORMATS)}")


@dataclass(frozen=True)
class Cell:
    """A text, or a mean and its standard deviation ('' for none); `rank` 1 is the column's best, 0 none.

    `span` is the number of columns it takes.
    """

    text: str
    std: str = ""
    rank: int = 0
    span: int = 1


@dataclass(frozen=True)
class Table:
    """A table before it is written: plain text everywhere, code between backticks in the caption.

    `headings` are rows of cells above the header, whose spans add up to its length. A `wide` table is drawn no
    wider than the line in LaTeX, its deviations below the means. The first `stub` columns name the rows; a new block
    of rows that belong together begins at each of `breaks`.
    """

    label: str
    header: list[str]
    rows: list[list[Cell]]
    gap: str
    caption: str
    headings: list[list[Cell]] = field(default_factory=list)
    wide: bool = False
    stub: int = 1
    breaks: Sequence[int] = ()


def ranks(texts: Sequence[str], groups: Sequence[str | None]) -> list[int]:
    """Return each printed number's rank in its column among its group's rows, 1 for the largest; equal ones share it.

    0 are a gap, a row of the group None, and the only number of its group where there are several groups.
    """
    found = [0] * len(texts)
    by_group: dict[str, dict[int, float]] = {}
    for place, (text, group) in enumerate(zip(texts, groups, strict=True)):
        number = _number(text)
        if group is not None and number is not None:
            by_group.setdefault(group, {})[place] = number
    for numbers in by_group.values():
        best = sorted(set(numbers.values()), reverse=True)
        for place, number in numbers.items():
            found[place] = best.index(number) + 1 if len(by_group) == 1 or len(numbers) > 1 else 0
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


# ---------------------------------------------------------------- LaTeX


def latex(table: Table) -> str:
    """Return a complete `table` environment, which needs the packages booktabs and, if wide, graphicx."""
    gap = rf"\multicolumn{{{len(table.header)}}}{{c}}{{{_latex_text(table.gap)}}} \\"
    lines = [
        *([r"% needs \usepackage{booktabs} and \usepackage{graphicx}"] if table.wide else []),
        r"\begin{table}",
        r"\centering",
        *([r"\setlength{\belowcaptionskip}{1ex}"] if table.wide else []),
        rf"\caption{{{_with_code(table.caption, _latex_text, _latex_code)}}}",
        rf"\label{{{table.label}}}",
        *([r"\setlength{\tabcolsep}{3pt}", _FIT] if table.wide else []),
        rf"\begin{{tabular}}{{{_latex_columns(table)}}}",
        r"\toprule",
        *(line for row in table.headings for line in _latex_heading(row)),
        " & ".join(map(_latex_text, table.header)) + r" \\",
        r"\midrule",
        *(_latex_rows(table) or [gap]),
        r"\bottomrule",
        r"\end{tabular}" + ("}" if table.wide else ""),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


# Never wider than the line, and never drawn larger than it is.
_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def _latex_columns(table: Table) -> str:
    names, numbers = ("l", "c") if table.wide else ("l", "r")
    return names * table.stub + numbers * (len(table.header) - table.stub)


def _latex_heading(row: Sequence[Cell]) -> list[str]:
    """A row of headings, and a rule under each of them that has a text."""
    ends = list(accumulate(cell.span for cell in row))
    cells = [
        rf"\multicolumn{{{cell.span}}}{{c}}{{{_latex_text(cell.text)}}}" if cell.text else "&" * (cell.span - 1)
        for cell in row
    ]
    rules = [rf"\cmidrule(lr){{{end - cell.span + 1}-{end}}}" for cell, end in zip(row, ends, strict=True) if cell.text]
    return [" & ".join(cells) + r" \\", " ".join(rules)]


def _latex_rows(table: Table) -> list[str]:
    lines: list[str] = []
    for number, row in enumerate(table.rows):
        if number and number in table.breaks:
            lines.append(_BETWEEN_BLOCKS)
        lines += _latex_row(row, table.wide)
    return lines


def _latex_row(row: Sequence[Cell], below: bool) -> list[str]:
    if not below or not any(cell.std for cell in row):
        return [" & ".join(_latex_cell(cell) for cell in row) + r" \\"]
    means = " & ".join(_latex_cell(replace(cell, std="")) for cell in row)
    stds = " & ".join(rf"{{\tiny $\pm$ {cell.std}}}" if cell.std else "" for cell in row)
    return [means + _BELOW, stds + r" \\"]


# ---------------------------------------------------------------- Markdown


def markdown(table: Table) -> str:
    """Return the caption and a pipe table, its second best in HTML's `<u>` for want of a Markdown mark.

    A pipe table has one row of headers: each column's headings stand before its header.
    """
    gap = [Cell(table.gap), *[Cell("")] * (len(table.header) - 1)]
    lines = [
        _with_code(table.caption, _markdown_text, _markdown_code),
        "",
        _pipes([_markdown_text(text) for text in full_header(table)]),
        _pipes([":--"] * table.stub + ["--:"] * (len(table.header) - table.stub)),
        *(_pipes(_markdown_row(row)) for row in table.rows or [gap]),
    ]
    return "\n".join(lines) + "\n"


def full_header(table: Table) -> list[str]:
    """Return one name per column: its headings from the top, then its header."""
    above = [[cell.text for cell in row for _ in range(cell.span)] for row in table.headings]
    above = [["" if place < table.stub else text for place, text in enumerate(row)] for row in above]
    return [" ".join(filter(None, texts)) for texts in zip(*above, table.header, strict=True)]


def _markdown_row(row: Sequence[Cell]) -> list[str]:
    return [text for cell in row for text in (_markdown_cell(cell), *[""] * (cell.span - 1))]


# ---------------------------------------------------------------- HTML


def html(table: Table) -> Markup:
    """Return a `<table>` element, its caption in it: a fragment for a page that has its own style."""
    body = table.rows or [[Cell(table.gap, span=len(table.header))]]
    ends = [0, *table.breaks, len(body)]
    blocks = [body[first:last] for first, last in pairwise(ends)]
    return rendered("table.html", table=table, header=[Cell(text) for text in table.header], blocks=blocks)


# ---------------------------------------------------------------- texts


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in one_line(text))


def _latex_code(text: str) -> str:
    return rf"\texttt{{{_latex_text(text)}}}"


def _latex_cell(cell: Cell) -> str:
    text = _latex_text(cell.text)
    marked = {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(cell.rank, text)
    whole = rf"{marked} $\pm$ {cell.std}" if cell.std else marked
    return rf"\multicolumn{{{cell.span}}}{{l}}{{{whole}}}" if cell.span > 1 else whole


def _markdown_text(text: str) -> str:
    return "".join(f"\\{letter}" if letter in _MARKDOWN else letter for letter in one_line(text))


def _markdown_code(text: str) -> str:
    return f"`{one_line(text)}`"


def _markdown_cell(cell: Cell) -> str:
    text = _markdown_text(cell.text)
    marked = {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(cell.rank, text)
    return f"{marked} ± {cell.std}" if cell.std else marked


def _pipes(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _with_code(caption: str, plain: Callable[[str], str], code: Callable[[str], str]) -> str:
    """The caption with every second piece between its backticks written as code, the others as plain text."""
    return "".join(code(piece) if place % 2 else plain(piece) for place, piece in enumerate(caption.split("`")))


MARKUP: dict[str, tuple[str, Callable[[Table], str]]] = {
    "latex": (".tex", latex),
    "markdown": (".md", markdown),
    "html": (".html", html),
}
"""By the name of a format the end of its files' names, and what writes a table."""
