"""What code of others does to the process while it is imported, and is kept from doing."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

_SHOWN = 1 << 16
"""Bytes of what is printed that are kept."""


class Importing:
    """A block in which what is printed, by Python or by C, is kept in `printed`, and that leaves the folder alone.

    The streams stay what they are, as loggers that are set up at import hold on to them.
    """

    printed: str = ""

    def __enter__(self) -> Importing:
        self._after = ExitStack()
        with suppress(FileNotFoundError):  # it was deleted
            self._after.callback(os.chdir, Path.cwd())
        self._file = _unnamed_file()
        self._after.callback(os.close, self._file)
        _flush()
        for number in (1, 2):
            with suppress(OSError):  # it is closed
                before = os.dup(number)
                self._after.callback(os.close, before)
                self._after.callback(os.dup2, before, number)
                os.dup2(self._file, number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _flush()
        self.printed = os.pread(self._file, _SHOWN, 0).decode(errors="replace")
        self._after.close()

    @property
    def last_line(self) -> str:
        """The last line of what was printed."""
        return self.printed.strip().rpartition("\n")[2]


def _unnamed_file() -> int:
    if sys.platform == "linux":
        return os.memfd_create("printed")  # where no folder can be written to as well
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # there may be none, or it is closed
            stream.flush()
