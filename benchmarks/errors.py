"""The errors that say in one line what is wrong with the data, and what kept it from being got."""

from __future__ import annotations

from pathlib import Path


class DataError(ValueError):
    """A scenario or a data set cannot be used; the message is one line: what, where, the way out."""


class FetchError(RuntimeError):
    """The network, the disk or an archive failed while a data set was being got; the message is one line."""


class UnclearError(DataError):
    """A file can be read in more than one way, so it is not read; the message begins with its path."""


class FileNameError(DataError):
    """A file's name is no text in UTF-8, so no list, no table and no record can name it."""


class FileError(DataError):
    """A file cannot be read or decoded; `reason` says why, without its name."""

    reason = ""

    @classmethod
    def of(cls, what: str, path: Path, reason: str) -> FileError:
        """Return the error of a file, `what` being the beginning of the sentence."""
        error = cls(f"{what} {path} ({reason})")
        error.reason = reason
        return error


def printable(text: str) -> str:
    """Return a text with what no terminal shows (ends of lines, marks without width, broken names) as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
