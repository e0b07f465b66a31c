"""Split index files as published code bases ship them: one file a step in a folder.

The file of step t is called `t`, `train-t`, `step_t`, `task t` or the like, ending in `.npy` (an integer array of
places in the training list, from 0) or `.txt` (image ids). Other files (`val-0.npy`, `README`) are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.errors import DataError
from benchmarks.files import id_in, read_lines

_STEP_FILE = re.compile(r"(?:(?:train|step|task)[-_ ]?)?(?P<step>[0-9]+)\.(?:npy|txt)")


def read_index_files(folder: Path, ids: Sequence[str], steps: int) -> list[np.ndarray]:
    """Return each step's places in the training list `ids`, in the files' order; raise `DataError`."""
    files = _step_files(folder)
    if sorted(files) != list(range(steps)):
        raise DataError(f"{folder} has index files of steps {sorted(files)}; the scenario has steps 0..{steps - 1}")
    place = {image_id: i for i, image_id in enumerate(ids)}
    return [_places(files[t], place) for t in range(steps)]


def _step_files(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        raise DataError(f"split={folder} is not a folder of index files")
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        match = _STEP_FILE.fullmatch(path.name)
        if match is None:
            continue
        t = int(match["step"])
        if t in found:
            raise DataError(f"{found[t]} and {path} are both index files of step {t}")
        found[t] = path
    return found


def _places(file: Path, place: dict[str, int]) -> np.ndarray:
    places = _from_array(file, len(place)) if file.suffix == ".npy" else _from_ids(file, place)
    if not len(places):
        raise DataError(f"{file} lists no image")
    if len(np.unique(places)) < len(places):
        raise DataError(f"{file} lists an image more than once")
    return places


def _from_array(file: Path, count: int) -> np.ndarray:
    try:
        places = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot read {file} ({' '.join(str(error).split())}); it is an integer array") from None
    if places.ndim != 1 or places.dtype.kind not in "iu":
        raise DataError(f"{file} holds {places.dtype} of shape {places.shape}; it is an integer array of one axis")
    foreign = places[(places < 0) | (places >= count)]
    if foreign.size:
        raise DataError(f"{file} holds place {foreign[0]}; the training list has places 0..{count - 1}")
    return np.asarray(places, dtype=np.int64)


def _from_ids(file: Path, place: dict[str, int]) -> np.ndarray:
    ids = [entry if (entry := id_in(line)) in place else Path(entry).stem for line in read_lines(file)]
    for image_id in ids:
        if image_id not in place:
            raise DataError(f"{file} lists {image_id}, which the training list does not have")
    return np.array([place[image_id] for image_id in ids], dtype=np.int64)
