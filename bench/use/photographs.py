"""The images that a command names: files and whole folders, and where what is made of each one is written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.settings.errors import RequestError
from benchmarks.files import NO_EXTENSION
from benchmarks.sets.photographs import EXTENSIONS

_IN_FOLDERS = tuple(extension for extension in EXTENSIONS if extension != NO_EXTENSION)


@dataclass(frozen=True)
class Photograph:
    """An image to segment, and the file of its label map."""

    path: Path
    label_map: Path
    overlay: Path


def photographs(given: Sequence[Path], out: Path) -> list[Photograph]:
    """Return the images among files and folders, these with all below them, less what lies in `out`.

    Their label maps are `out`/NAME.png, overlays `out`/overlays/NAME.png; of a folder NAME has the folders between.
    Raises `RequestError` where there is no image, or a label map would be written over an image or another label map.
    """
    found = [photograph for path in given for photograph in _named(path, out)]
    images = {_place(each.path): each for each in found}
    taken: dict[Path, Path] = {}
    for place, each in images.items():
        for written in (each.label_map, each.overlay):
            if _place(written) in images:
                raise RequestError(
                    f"--out {out}: what is made of {each.path} would be written over the image {written}"
                )
        if (other := taken.setdefault(_place(each.label_map), place)) != place:
            raise RequestError(f"{other} and {each.path} would both be written to {each.label_map}: name one at a time")
    return list(images.values())


def _named(path: Path, out: Path) -> Iterator[Photograph]:
    if (path / "spec.yaml").is_file():
        raise RequestError(f"{path}: a run's directory, no photographs; they are labelled by one run at a time")
    if path.is_dir():
        yield from _below(path, out)
    elif path.exists():
        yield _photograph(path, Path(path.name), out)
    else:
        raise RequestError(f"{path}: there is no such image or folder")


def _below(folder: Path, out: Path) -> Iterator[Photograph]:
    if _place(folder) == _place(out):
        raise RequestError(f"--out {out}: the images lie there; name another folder, or one within it")
    empty = True
    for place, folders, files in os.walk(folder):
        paths = (Path(place, name) for name in sorted(folders) if not name.startswith("."))
        folders[:] = [path.name for path in paths if _place(path) != _place(out)]
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(_IN_FOLDERS):
                empty = False
                yield _photograph(Path(place, name), Path(place, name).relative_to(folder), out)
    if empty:
        raise RequestError(f"{folder}: there is no image in this folder")


def _photograph(path: Path, name: Path, out: Path) -> Photograph:
    name = name.with_name(f"{name.stem}.png")
    return Photograph(path, out / name, out / "overlays" / name)


def _place(path: Path) -> Path:
    return Path(os.path.realpath(path))
