"""`bench data get`: the steps from the published archives to the folders that `voc` and `ade` are read from."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.errors import DataError, FetchError
from benchmarks.obtain import ade, voc
from benchmarks.obtain.download import TRIES, Note, Progress
from benchmarks.obtain.job import DataSet, Job
from benchmarks.obtain.sources import PUBLISHED, Archive
from benchmarks.obtain.unpack import clear_scratch
from benchmarks.paths import user_path

DATA_SETS = {"voc": voc.DATA_SET, "ade": ade.DATA_SET}


def obtain(
    name: str,
    data_root: Path | None,
    *,
    archives: Mapping[str, Archive] = PUBLISHED,
    keep_archives: bool = False,
    tries: int = TRIES,
    note: Note = lambda text: None,
    progress: Progress = lambda text, done, total: None,
) -> None:
    """Download, verify and unpack what a data root lacks of `voc` or `ade`; what is there stays as it is.

    Raises `DataError` where the request, or what lies in the data root, is wrong, and `FetchError` where the
    network, the disk or an archive failed. Either way, and after a kill, every folder of the data set is absent or
    usable, and the next call goes on with what is there.
    """
    if name not in DATA_SETS:
        raise DataError(f"there is nothing to get for '{name}' (allowed: {', '.join(DATA_SETS)})")
    if data_root is None:
        raise DataError(f"{name} needs --data-root DIR (or BENCH_DATA_ROOT), the folder to get it into")
    if tries < 1:
        raise DataError(f"--tries {tries}: at least 1")
    root = user_path(data_root)
    data_set = DATA_SETS[name]
    if data_set.lacks(root) is None:
        _clear(root, data_set)
        note(f"{name} is complete in {root}: nothing to get")
        return
    with _alone_in(root):
        data_set.get(Job(root, archives, keep_archives, tries, note, progress))
        _clear(root, data_set)
    note(f"{name} is complete in {root} now")


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Make the data root and lock it for this process; the lock goes with the process, however it ends."""
    downloads = root / "downloads"
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=downloads):
            pass
    except OSError as error:
        raise DataError(f"--data-root {root}: cannot write there ({error.strerror})") from None
    handle = os.open(root, os.O_RDONLY)
    try:
        _lock(handle, root)
        yield
    finally:
        os.close(handle)


def _clear(root: Path, data_set: DataSet) -> None:
    """Remove what a process that was killed while it tidied up has left of a complete data set."""
    for folder in data_set.made:
        clear_scratch(root / folder)
    with suppress(OSError):
        for archive in data_set.archives:
            for leftover in ("part", "part.json"):
                (root / "downloads" / f"{archive.name}.{leftover}").unlink(missing_ok=True)
        (root / "downloads").rmdir()  # unless archives are kept in it


def _lock(handle: int, root: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FetchError(f"another process is getting data into {root}") from None
    except OSError:
        return  # a network disk without locks
