"""The text and CSV files of run directories, and the error for one that is damaged."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path


class RecordError(ValueError):
    """A run directory is damaged: one line that names the file and what is wrong with it."""


def read_text(path: Path) -> str:
    """Return what a file holds; RecordError where it is missing or no text."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise RecordError(f"{path}: missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read ({one_line(error)})") from None


def one_line(error: Exception) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split())


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows of cells as a CSV file holds them, header first."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def csv_lines(path: Path) -> list[list[str]]:
    """Return the cells of a CSV file, header first, every line as long as it; RecordError where it is no such file."""
    try:
        lines = list(csv.reader(io.StringIO(read_text(path), newline=""), strict=True))
    except csv.Error as error:
        raise RecordError(f"{path}: not a CSV file ({one_line(error)})") from None
    if not lines:
        raise RecordError(f"{path}: empty")
    for number, line in enumerate(lines, start=1):
        if len(line) != len(lines[0]):
            raise RecordError(f"{path}: line {number} has {len(line)} cells, the header has {len(lines[0])}")
    return lines


def read_rows(path: Path) -> list[dict[str, float]]:
    """Return the rows of a CSV file of numbers by their columns, `step` among them; an empty cell is NaN.

    Raises RecordError, which names the file, if it is damaged.
    """
    header, *lines = csv_lines(path)
    try:
        rows = [dict(zip(header, map(_number, line), strict=True)) for line in lines]
    except ValueError as error:
        raise RecordError(f"{path}: not a number ({one_line(error)})") from None
    if not all(isinstance(row.get("step"), int) for row in rows):
        raise RecordError(f"{path}: every row must have its step")
    return rows


def _number(cell: str) -> float:
    if not cell:
        return math.nan
    try:
        return int(cell)
    except ValueError:
        return float(cell)
