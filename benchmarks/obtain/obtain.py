"""`bench data get`: the steps from the published archives to the folders that `voc` and `ade` are read from."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.errors import DataError, FetchError
from benchmarks.files import files_by_id, read_ids, read_mask
from benchmarks.obtain.download import TRIES, Note, Progress, disk_errors, download
from benchmarks.obtain.sources import ADE, PUBLISHED, SBD, VOC, Archive
from benchmarks.obtain.unpack import clear_scratch, place, scratch_folder, unpack
from benchmarks.paths import user_path
from benchmarks.sets.voc import SBD_FOLDERS, Voc

VOC_FOLDER = "VOCdevkit/VOC2012"
SBD_LABEL_MAPS = "benchmark_RELEASE/dataset/cls"
ADE_FOLDER = "ADEChallengeData2016"
AUGMENTED = "SegmentationClassAug"
ADE_SPLITS = ("training", "validation")


@dataclass(frozen=True)
class _Job:
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
class _DataSet:
    """How a data set is got."""

    get: Callable[[_Job], None]
    lacks: Callable[[Path], str | None]
    """Return a file that is missing below a data root; None where all are there."""
    archives: tuple[Archive, ...]
    made: tuple[str, ...]
    """What is made in a scratch folder beside it."""


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
        data_set.get(_Job(root, archives, keep_archives, tries, note, progress))
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


def _clear(root: Path, data_set: _DataSet) -> None:
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


def _require_got(lacking: str | None, archive: Archive) -> None:
    if lacking is not None:
        raise FetchError(f"{archive.name} is unpacked, but {lacking} is not in it")


def _get_voc(job: _Job) -> None:
    devkit = job.root / VOC_FOLDER
    unpacked = _get_published(job, devkit)
    _make_augmented(job, devkit)
    if not unpacked:  # JPEGImages may have had the photographs of VOC's own lists alone
        _get_published(job, devkit)


def _get_published(job: _Job, devkit: Path) -> bool:
    """Get VOC 2012 where a part of it is missing, and return whether it was."""
    lacking = _published_lacks(devkit)
    if lacking is None:
        return False
    job.note(f"voc: {lacking} is not there: getting {VOC.name}")
    with job.unpacked(VOC, VOC_FOLDER, devkit) as folder:
        place(folder, devkit)
        _require_got(_published_lacks(devkit), VOC)
    return True


def _voc_lacks(root: Path) -> str | None:
    """Return a file that is missing of what `voc` is read from, None where it is complete."""
    devkit = root / VOC_FOLDER
    return _published_lacks(devkit) or _augmented_lacks(devkit)


def _published_lacks(devkit: Path) -> str | None:
    """Return a missing file of VOC's archive: a list, a photograph in a list, or a label map that nothing replaces."""
    listed = {
        name: set(_listed(devkit, name)) for name in ("train", "trainaug", "val") if _list(devkit, name).is_file()
    }
    if "val" not in listed or len(listed) == 1:
        return str(_list(devkit, "train" if "val" in listed else "val"))
    wanted = listed["val"] | listed.get("trainaug", listed.get("train", set()))
    own = wanted & (listed["val"] | listed.get("train", set()))
    photographs = wanted - _stems(devkit / "JPEGImages", ".jpg")
    label_maps = own - _stems(devkit / "SegmentationClass", ".png") - _stems(devkit / AUGMENTED, ".png")
    if photographs:
        return str(devkit / "JPEGImages" / f"{min(photographs)}.jpg")
    return str(devkit / "SegmentationClass" / f"{min(label_maps)}.png") if label_maps else None


def _augmented_lacks(devkit: Path) -> str | None:
    """Return a missing file of what is made from VOC and SBD: the list, or a label map."""
    if not _list(devkit, "trainaug").is_file():
        return str(_list(devkit, "trainaug"))
    missing = {*_listed(devkit, "trainaug"), *_listed(devkit, "val")} - _stems(devkit / AUGMENTED, ".png")
    return str(devkit / AUGMENTED / f"{min(missing)}.png") if missing else None


def _make_augmented(job: _Job, devkit: Path) -> None:
    """Make the label maps and the list of the augmented training set, with SBD where they need it."""
    if _augmented_lacks(devkit) is None:
        return
    train = _known_training_ids(devkit)
    there = _stems(devkit / AUGMENTED, ".png") | _stems(devkit / "SegmentationClass", ".png")
    if train is not None and there.issuperset(train):
        _write_augmented(job, devkit, train, sbd=None)
        return
    with _sbd_label_maps(job) as sbd:
        if train is None:
            every = _stems(sbd, ".mat") | set(_listed(devkit, "train"))
            train = sorted(every - set(_listed(devkit, "val")))
        _write_augmented(job, devkit, train, sbd)


def _known_training_ids(devkit: Path) -> Sequence[str] | None:
    """Return the listed ids, or those of a folder of label maps that has as many as published; else None."""
    if _list(devkit, "trainaug").is_file():
        return _listed(devkit, "trainaug")
    annotated = _stems(devkit / AUGMENTED, ".png") - set(_listed(devkit, "val"))
    return sorted(annotated) if len(annotated) == Voc.published_counts["train"] else None


@contextmanager
def _sbd_label_maps(job: _Job) -> Iterator[Path]:
    """Give the folder of SBD's label maps: the user's own, or else the archive's."""
    for folder in (job.root / name for name in SBD_FOLDERS):
        if _is_whole_sbd(folder):
            job.note(f"voc: taking SBD's label maps from {folder / 'cls'}")
            yield folder / "cls"
            return
    job.note(f"voc: SBD's label maps are not there: getting {SBD.name}")
    with job.unpacked(SBD, SBD_LABEL_MAPS, job.root / "downloads" / SBD.name) as label_maps:
        yield label_maps


def _is_whole_sbd(folder: Path) -> bool:
    """Whether label maps lie in a folder, every one that SBD's own lists, if they lie there too, name."""
    there = _stems(folder / "cls", ".mat")
    lists = [folder / f"{name}.txt" for name in ("train", "val")]
    return bool(there) and all(there.issuperset(read_ids(path)) for path in lists if path.is_file())


def _write_augmented(job: _Job, devkit: Path, train: Sequence[str], sbd: Path | None) -> None:
    """Add the missing label maps, VOC's own copied as they are, and the list; a folder made anew appears at once."""
    folder = devkit / AUGMENTED
    missing = sorted({*train, *_listed(devkit, "val")} - _stems(folder, ".png"))
    own, foreign = _stems(devkit / "SegmentationClass", ".png"), _stems(sbd, ".mat") if sbd else set()
    _require_annotated(set(missing) - own - foreign, devkit)
    with scratch_folder(folder) as scratch, disk_errors(devkit):
        for done, image_id in enumerate(missing, 1):
            target = scratch / f"{image_id}.png"
            if image_id in own:
                shutil.copyfile(devkit / "SegmentationClass" / target.name, target)
            elif sbd is not None:
                _save_label_map(read_mask(sbd / f"{image_id}.mat"), target)
            job.progress("converting label maps", done, len(missing))
        _write_list(_list(devkit, "trainaug"), train)
        place(scratch, folder)


def _require_annotated(ids: Collection[str], devkit: Path) -> None:
    if ids:
        raise DataError(
            f"voc: {min(ids)} is in the lists of {_list(devkit, 'trainaug').parent}, but neither VOC nor SBD has a "
            "label map of it"
        )


def _write_list(path: Path, ids: Sequence[str]) -> None:
    """Write a list of ids at once, unless there is one already."""
    if path.is_file():
        return
    scratch = path.with_name(f".{path.name}.unfinished")
    scratch.write_text("".join(f"{image_id}\n" for image_id in ids), encoding="utf-8")
    scratch.replace(path)


def _save_label_map(label_map: np.ndarray, path: Path) -> None:
    image = Image.fromarray(label_map)
    image.putpalette(voc_palette())
    image.save(path)


def voc_palette() -> bytes:
    """Return the 256 label colours of VOC's own label maps, R, G, B each (VOC devkit, `VOClabelcolormap.m`).

    Bit 3k + c of a label, c being 0 for red, 1 for green and 2 for blue, is bit 7 - k of that channel.
    """
    labels = np.arange(256, dtype=np.uint8)[:, None]
    channels = np.arange(3, dtype=np.uint8)
    colours = sum(((labels >> (3 * k + channels)) & 1) << (7 - k) for k in range(3))
    return np.asarray(colours, dtype=np.uint8).tobytes()


def _list(devkit: Path, name: str) -> Path:
    return devkit / "ImageSets" / "Segmentation" / f"{name}.txt"


def _listed(devkit: Path, name: str) -> tuple[str, ...]:
    return read_ids(_list(devkit, name))


def _stems(folder: Path, suffix: str) -> set[str]:
    """Return the names, less the suffix, of a folder's files of one kind; none where there is no folder."""
    return set(files_by_id(folder, (suffix,)))


def _get_ade(job: _Job) -> None:
    job.note(f"ade: {_ade_lacks(job.root)} is not there: getting {ADE.name}")
    folder = job.root / ADE_FOLDER
    with job.unpacked(ADE, ADE_FOLDER, folder) as unpacked:
        place(unpacked, folder)
        _require_got(_ade_lacks(job.root), ADE)


def _ade_lacks(root: Path) -> str | None:
    """Return a missing folder, or a photograph or label map whose counterpart is there; None where all is complete."""
    for split in ADE_SPLITS:
        images, annotations = (root / ADE_FOLDER / kind / split for kind in ("images", "annotations"))
        photographs, label_maps = _stems(images, ".jpg"), _stems(annotations, ".png")
        if not label_maps:
            return str(annotations)
        if label_maps - photographs:
            return str(images / f"{min(label_maps - photographs)}.jpg")
        if photographs - label_maps:
            return str(annotations / f"{min(photographs - label_maps)}.png")
    return None


DATA_SETS = {
    "voc": _DataSet(
        _get_voc, _voc_lacks, (VOC, SBD), (VOC_FOLDER, f"{VOC_FOLDER}/{AUGMENTED}", f"downloads/{SBD.name}")
    ),
    "ade": _DataSet(_get_ade, _ade_lacks, (ADE,), (ADE_FOLDER,)),
}
