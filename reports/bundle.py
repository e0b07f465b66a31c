"""A bundle: finished runs in one zip file that can be checked on another machine (`verifying.py`).

    bundle.json             schema, environment (packages with their versions), SHA-256 and size of every other file
    SCENARIO/STRATEGY/HASH-seedN/   the run directories as they are, less images, logs and, unless asked for, networks

Equal runs in an equal environment give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import platform
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath

from reports.atomic import scratch_path
from reports.files import RecordError, one_line
from reports.records import Run
from reports.spec import run_folder

SCHEMA = 1
MANIFEST = "bundle.json"
RECORDS = ("spec.yaml", "steps.csv", "costs.csv", "done")
_FOLDERS = ("confusion", "counts", "contours", "evaluations")
_NETWORKS = "networks"
_SUFFIXES = (".csv", ".yaml", "")
"""Of records: images and logs have others."""
_THEN = (1980, 1, 1, 0, 0, 0)
_DEFLATED = (zipfile.ZIP_DEFLATED, 9)
MAX_BYTES = 4 << 30
"""Of all files of a bundle together, unpacked: one that says more is not unpacked."""


@dataclass(frozen=True)
class Entry:
    """A file of a bundle as the manifest has it: the SHA-256 (hex) of its content and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """What `bundle.json` says: the packages where the bundle was made, with versions, and every file."""

    environment: Mapping[str, str]
    files: Mapping[str, Entry]


def write_bundle(runs: Sequence[Run], out: Path, environment: Mapping[str, str], networks: bool = False) -> int:
    """Write finished runs into the zip file `out` and return its size in bytes.

    `environment` is the lock to write beside them: packages by name, with their versions. No run may be there twice.
    """
    content: dict[str, Path] = {}
    for run in runs:
        place = run_folder(Path(), run.spec)
        content.update(((place / name).as_posix(), run.path / name) for name in _files(run, networks))
    manifest = {
        "schema": SCHEMA,
        "environment": dict(environment),
        "files": {name: vars(_entry(path.read_bytes())) for name, path in sorted(content.items())},
    }
    scratch = scratch_path(out)
    try:
        with zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(MANIFEST, _THEN), json.dumps(manifest, indent=1) + "\n", *_DEFLATED)
            for name, path in sorted(content.items()):
                archive.writestr(zipfile.ZipInfo(name, _THEN), path.read_bytes(), *_DEFLATED)
        scratch.replace(out)
    finally:
        scratch.unlink(missing_ok=True)
    return out.stat().st_size


def read_manifest(archive: zipfile.ZipFile, path: Path) -> Manifest:
    """Return the manifest of an open bundle; RecordError, naming `path`, for one of no schema that is read."""
    try:
        told = json.loads(archive.read(MANIFEST))
    except KeyError:
        raise RecordError(f"{path}: no bundle, it has no {MANIFEST}") from None
    except (ValueError, zipfile.BadZipFile) as error:
        raise RecordError(f"{path}: {MANIFEST} cannot be read ({one_line(error)})") from None
    if not isinstance(told, dict) or told.get("schema") != SCHEMA:
        schema = told.get("schema") if isinstance(told, dict) else None
        raise RecordError(f"{path}: schema of the bundle is {schema!r}, this version reads {SCHEMA}")
    try:
        files = {_inside(name, path): Entry(**entry) for name, entry in told["files"].items()}
        return Manifest({str(key): str(value) for key, value in told["environment"].items()}, files)
    except (AttributeError, KeyError, TypeError) as error:
        raise RecordError(f"{path}: {MANIFEST} is damaged ({type(error).__name__}: {one_line(error)})") from None


def unpack(path: Path, folder: Path) -> tuple[Manifest, list[str]]:
    """Write a bundle's files into `folder`; return its manifest and a line for each that is not as it says.

    A file that is damaged is not written, one that the manifest does not have neither. Raises RecordError for a file
    that is no bundle.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = read_manifest(archive, path)
            return manifest, _unpack(archive, manifest, path, folder)
    except zipfile.BadZipFile as error:
        raise RecordError(f"{path}: no bundle ({one_line(error)})") from None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({one_line(error)})") from None


def _unpack(archive: zipfile.ZipFile, manifest: Manifest, path: Path, folder: Path) -> list[str]:
    there = {entry.filename: entry for entry in archive.infolist()}
    if (size := sum(entry.file_size for entry in there.values())) > MAX_BYTES:
        raise RecordError(f"{path}: its files are of {size} bytes, allowed are {MAX_BYTES}")
    problems = [f"{name}: not in {MANIFEST}" for name in there if name != MANIFEST and name not in manifest.files]
    for name, wanted in manifest.files.items():
        if name not in there:
            problems.append(f"{name}: missing")
            continue
        try:
            content = archive.read(name)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            problems.append(f"{name}: damaged ({one_line(error)})")
            continue
        if _entry(content) != wanted:
            problems.append(f"{name}: changed, its SHA-256 is not that in {MANIFEST}")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return problems


def _inside(name: str, path: Path) -> str:
    place = PurePosixPath(name)
    if not place.parts or place.is_absolute() or ".." in place.parts or "\\" in name or str(place) != name:
        raise RecordError(f"{path}: {name!r} is no place inside of a bundle")
    return name


def _files(run: Run, networks: bool) -> Iterable[Path]:
    """The files of a run that go into a bundle, by their places in its directory."""
    yield from map(Path, RECORDS)
    for folder in (*_FOLDERS, *([_NETWORKS] if networks else [])):
        for path in sorted((run.path / folder).rglob("*")):
            if path.is_file() and (folder == _NETWORKS or path.suffix in _SUFFIXES):
                yield path.relative_to(run.path)


def _entry(content: bytes) -> Entry:
    return Entry(hashlib.sha256(content).hexdigest(), len(content))


def environment_here() -> dict[str, str]:
    """Return Python's version and those of all packages that are installed, sorted by name."""
    named = {str(each.metadata["Name"]): str(each.version) for each in distributions() if each.metadata["Name"]}
    return {"python": platform.python_version(), **dict(sorted(named.items(), key=lambda pair: pair[0].lower()))}
