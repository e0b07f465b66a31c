"""How an image set is got: what was asked for, and an archive unpacked for a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import FetchError
from benchmarks.files import files_by_id
from benchmarks.obtain.download import Note, Progress, disk_errors, download
from benchmarks.obtain.sources import Archive
from benchmarks.obtain.unpack import scratch_folder, unpack


@dataclass(frozen=True)
class Job:
    """What was asked for, and how the steps get their archives."""

    root: Path
    archives: Mapping[str, Archive]
    keep_archives: bool
    tries: int
    note: Note
    progress: Progress

    @contextmanager
    def unpacked(self, published: Archive, folder: str, target: Path) -> Iterator[Path]:
        """Give a folder of an archive, unpacked on the disk of `target`; after the block the archive goes."""
        path = self.root / "downloads" / published.name
        download(self.archives[published.name], path, self.tries, self.note, self.progress)
        with scratch_folder(target) as scratch, disk_errors(self.root):
            yield unpack(path, folder, scratch, self.progress)
            if not self.keep_archives:
                path.unlink()


@dataclass(frozen=True)
class DataSet:
    """How a data set is got."""

    get: Callable[[Job], None]
    lacks: Callable[[Path], str | None]
    """Return a file that is missing below a data root; None where all are there."""
    archives: tuple[Archive, ...]
    made: tuple[str, ...]
    """What is made in a scratch folder beside it."""


def require_got(lacking: str | None, archive: Archive) -> None:
    """Raise FetchError where a file of an unpacked archive is `lacking`."""
    if lacking is not None:
        raise FetchError(f"{archive.name} is unpacked, but {lacking} is not in it")


def stems(folder: Path, suffix: str) -> set[str]:
    """Return the names, less the suffix, of a folder's files of one kind; none where there is no folder."""
    return set(files_by_id(folder, (suffix,)))
