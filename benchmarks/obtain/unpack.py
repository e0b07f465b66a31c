"""Archives unpacked safely: vetted before anything is written, made beside the target, put in place by a rename."""

from __future__ import annotations

import gzip
import lzma
import posixpath
import shutil
import stat
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from benchmarks.errors import DataError, FetchError
from benchmarks.obtain.download import CHUNK, Progress, disk_errors, require_space

if TYPE_CHECKING or sys.version_info >= (3, 12):
    import tarfile
else:
    from backports import tarfile

DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError,
    EOFError, RuntimeError, ValueError,
)  # fmt: skip
"""What the standard library raises for an archive that is cut, damaged or encrypted."""


@dataclass(frozen=True)
class Member:
    """An entry of an archive; `size` in bytes unpacked, `leads_to` within the archive if it is a link."""

    name: str
    size: int
    plain: bool
    """Whether it is a file, a folder or a link, and no device or pipe."""
    leads_to: str | None = None


def unpack(archive: Path, folder: str, target: Path, progress: Progress) -> Path:
    """Unpack what lies below `folder` in a tar or zip archive into the empty folder `target`; return where it lies.

    Raises `DataError`, before anything is written, where any entry is a device, has an absolute path or one with
    `..`, or is a link out of the archive; `FetchError` where the archive is cut or damaged or the disk too small.
    """
    is_zip = archive.suffix == ".zip"
    with _reading(archive, target):
        members = _zip_members(archive) if is_zip else _tar_members(archive)
    for member in members:
        _vet(member, archive)
    chosen = [member for member in members if _below(member.name, folder)]
    if not chosen:
        raise FetchError(f"{archive} holds no folder {folder}")
    require_space(target, sum(member.size for member in chosen), f"unpacking {archive}")
    with _reading(archive, target):
        unpacked = _unpack_zip(archive, folder, target) if is_zip else _unpack_tar(archive, folder, target)
        for done, _ in enumerate(unpacked, 1):
            progress(f"unpacking {archive.name}", done, len(chosen))
    return target / folder


def place(source: Path, target: Path) -> None:
    """Move a file or folder to `target` by one rename; into a folder that is there goes only what it lacks."""
    if not target.exists():
        source.rename(target)
    elif source.is_dir() and target.is_dir():
        for child in sorted(source.iterdir()):
            place(child, target / child.name)


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder on the disk of `target`, gone after the block.

    It has the same name every time, so that what a killed process left is cleared away.
    """
    clear_scratch(target)
    scratch = _scratch_of(target)
    with disk_errors(scratch.parent):
        scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        clear_scratch(target)


def clear_scratch(target: Path) -> None:
    """Remove what an unfinished `scratch_folder` of `target` has left."""
    shutil.rmtree(_scratch_of(target), ignore_errors=True)


def _scratch_of(target: Path) -> Path:
    resolved = target.resolve()
    return resolved.with_name(f".{resolved.name}.unfinished")


@contextmanager
def _reading(archive: Path, target: Path) -> Iterator[None]:
    try:
        with disk_errors(target):
            yield
    except tarfile.FilterError as error:  # a link that leads outside by way of other links
        raise DataError(f"{archive} is refused: {error}") from error
    except FetchError:
        raise
    except DAMAGED as error:
        raise FetchError(f"{archive} is cut or damaged ({' '.join(str(error).split())})") from error


def _tar_members(path: Path) -> list[Member]:
    with tarfile.open(path) as tar:
        members = [Member(m.name, m.size, _is_plain(m), _leads_to(m)) for m in tar]
        _require_end(tar)
    return members


def _is_plain(member: tarfile.TarInfo) -> bool:
    return member.isfile() or member.isdir() or member.islnk() or member.issym()


def _leads_to(member: tarfile.TarInfo) -> str | None:
    if member.issym():
        return posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname))
    return posixpath.normpath(member.linkname) if member.islnk() else None


def _require_end(tar: tarfile.TarFile) -> None:
    """Refuse an archive that is cut right behind an entry, before the empty block that closes one, or behind it."""
    assert tar.fileobj is not None
    if tar.fileobj.tell() < tar.offset + tarfile.BLOCKSIZE:
        raise EOFError("its end is missing")
    while tar.fileobj.read(CHUNK):  # gzip's checksum comes last
        pass


def _zip_members(path: Path) -> list[Member]:
    with zipfile.ZipFile(path) as archive:
        return [Member(entry.filename, entry.file_size, _is_file_or_folder(entry)) for entry in archive.infolist()]


def _is_file_or_folder(entry: zipfile.ZipInfo) -> bool:
    """Whether zipfile can unpack the entry as what it is; of a link it would make a file."""
    return stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)


def _vet(member: Member, archive: Path) -> None:
    if _is_outside(member.name):
        raise DataError(f"{archive} is refused: its entry {member.name!r} would lie outside the folder")
    if not member.plain:
        raise DataError(f"{archive} is refused: its entry {member.name!r} is no file and no folder")
    if member.leads_to is not None and _is_outside(member.leads_to):
        raise DataError(f"{archive} is refused: its entry {member.name!r} leads outside, to {member.leads_to!r}")


def _is_outside(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def _below(name: str, folder: str) -> bool:
    return PurePosixPath(name).is_relative_to(folder)


def _unpack_tar(path: Path, folder: str, target: Path) -> Iterator[None]:
    """Unpack an entry per step."""
    with tarfile.open(path) as tar:
        for member in tar:
            if _below(member.name, folder):
                tar.extract(member, target, filter="data")
                yield


def _unpack_zip(path: Path, folder: str, target: Path) -> Iterator[None]:
    """Unpack an entry per step."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if _below(entry.filename, folder):
                archive.extract(entry, target)
                yield
