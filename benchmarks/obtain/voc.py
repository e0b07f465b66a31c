"""Getting `voc`: VOC 2012, and from it and SBD the augmented training set."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.errors import DataError
from benchmarks.files import read_ids, read_mask
from benchmarks.obtain.download import disk_errors
from benchmarks.obtain.job import DataSet, Job, require_got, stems
from benchmarks.obtain.sources import SBD, VOC
from benchmarks.obtain.unpack import place, scratch_folder
from benchmarks.sets.voc import SBD_FOLDERS, Voc

_FOLDER = "VOCdevkit/VOC2012"
_SBD_LABEL_MAPS = "benchmark_RELEASE/dataset/cls"
_AUGMENTED = "SegmentationClassAug"


def _get(job: Job) -> None:
    devkit = job.root / _FOLDER
    unpacked = _get_published(job, devkit)
    _make_augmented(job, devkit)
    if not unpacked:  # JPEGImages may have had the photographs of VOC's own lists alone
        _get_published(job, devkit)


def _get_published(job: Job, devkit: Path) -> bool:
    """Get VOC 2012 where a part of it is missing, and return whether it was."""
    lacking = _published_lacks(devkit)
    if lacking is None:
        return False
    job.note(f"voc: {lacking} is not there: getting {VOC.name}")
    with job.unpacked(VOC, _FOLDER, devkit) as folder:
        place(folder, devkit)
        require_got(_published_lacks(devkit), VOC)
    return True


def _lacks(root: Path) -> str | None:
    """Return a file that is missing of what `voc` is read from, None where it is complete."""
    devkit = root / _FOLDER
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
    photographs = wanted - stems(devkit / "JPEGImages", ".jpg")
    label_maps = own - stems(devkit / "SegmentationClass", ".png") - stems(devkit / _AUGMENTED, ".png")
    if photographs:
        return str(devkit / "JPEGImages" / f"{min(photographs)}.jpg")
    return str(devkit / "SegmentationClass" / f"{min(label_maps)}.png") if label_maps else None


def _augmented_lacks(devkit: Path) -> str | None:
    """Return a missing file of what is made from VOC and SBD: the list, or a label map."""
    if not _list(devkit, "trainaug").is_file():
        return str(_list(devkit, "trainaug"))
    missing = {*_listed(devkit, "trainaug"), *_listed(devkit, "val")} - stems(devkit / _AUGMENTED, ".png")
    return str(devkit / _AUGMENTED / f"{min(missing)}.png") if missing else None


def _make_augmented(job: Job, devkit: Path) -> None:
    """Make the label maps and the list of the augmented training set, with SBD where they need it."""
    if _augmented_lacks(devkit) is None:
        return
    train = _known_training_ids(devkit)
    there = stems(devkit / _AUGMENTED, ".png") | stems(devkit / "SegmentationClass", ".png")
    if train is not None and there.issuperset(train):
        _write_augmented(job, devkit, train, sbd=None)
        return
    with _sbd_label_maps(job) as sbd:
        if train is None:
            every = stems(sbd, ".mat") | set(_listed(devkit, "train"))
            train = sorted(every - set(_listed(devkit, "val")))
        _write_augmented(job, devkit, train, sbd)


def _known_training_ids(devkit: Path) -> Sequence[str] | None:
    """Return the listed ids, or those of a folder of label maps that has as many as published; else None."""
    if _list(devkit, "trainaug").is_file():
        return _listed(devkit, "trainaug")
    annotated = stems(devkit / _AUGMENTED, ".png") - set(_listed(devkit, "val"))
    return sorted(annotated) if len(annotated) == Voc.published_counts["train"] else None


@contextmanager
def _sbd_label_maps(job: Job) -> Iterator[Path]:
    """Give the folder of SBD's label maps: the user's own, or else the archive's."""
    for folder in (job.root / name for name in SBD_FOLDERS):
        if _is_whole_sbd(folder):
            job.note(f"voc: taking SBD's label maps from {folder / 'cls'}")
            yield folder / "cls"
            return
    job.note(f"voc: SBD's label maps are not there: getting {SBD.name}")
    with job.unpacked(SBD, _SBD_LABEL_MAPS, job.root / "downloads" / SBD.name) as label_maps:
        yield label_maps


def _is_whole_sbd(folder: Path) -> bool:
    """Whether label maps lie in a folder, every one that SBD's own lists, if they lie there too, name."""
    there = stems(folder / "cls", ".mat")
    lists = [folder / f"{name}.txt" for name in ("train", "val")]
    return bool(there) and all(there.issuperset(read_ids(path)) for path in lists if path.is_file())


def _write_augmented(job: Job, devkit: Path, train: Sequence[str], sbd: Path | None) -> None:
    """Add the missing label maps, VOC's own copied as they are, and the list; a folder made anew appears at once."""
    folder = devkit / _AUGMENTED
    missing = sorted({*train, *_listed(devkit, "val")} - stems(folder, ".png"))
    own, foreign = stems(devkit / "SegmentationClass", ".png"), stems(sbd, ".mat") if sbd else set()
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


DATA_SET = DataSet(
    _get, _lacks, archives=(VOC, SBD), made=(_FOLDER, f"{_FOLDER}/{_AUGMENTED}", f"downloads/{SBD.name}")
)
