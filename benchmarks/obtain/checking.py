"""What is missing or damaged below a data root: every fault by name, and what the sound label maps hold.

Where the image sets themselves stop at the first fault, here everything is looked at: each file that a list names is
decoded once, by the functions that training uses. Files that no list names are counted, they are no fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.decoding import MAX_MEGAPIXELS
from benchmarks.errors import DataError, FileNameError
from benchmarks.files import list_entries
from benchmarks.imageset import SPLITS, Split
from benchmarks.obtain.faults import WARNINGS, Fault, ImageFiles, Kind, SeenImage, fault_of, reason_of, see_all
from benchmarks.obtain.label_counts import absent_classes, frequencies, palette_faults, pixel_counts, scenario_sizes
from benchmarks.obtain.report import Report, SaliencyMaps, SplitCounts
from benchmarks.packing import Progress
from benchmarks.saliency import lacking_maps, map_folder, unusable_maps
from benchmarks.sets.filed import FiledImageSet
from benchmarks.sets.folder import MOST_CLASSES, Folder, class_name_faults
from benchmarks.sets.registry import IMAGE_SETS, image_set_class

FILE_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".mat", ".png", ".tif", ".tiff", ".webp")
_NOT_IN_IDS = ("/", "\\", "\0", "\ufeff")
"""Folders, what no file name holds, and the mark with which some editors begin a text."""
_ORDER = list(Kind)
_LIST_KINDS = (Kind.MISSING_LIST, Kind.UNREADABLE_LIST, Kind.UNREADABLE_LIST)


def check(
    name: str,
    data_root: Path | None,
    progress: Progress | None = None,
    train_list: Path | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> Report:
    """Look at every list, photograph and label map of an image set; what the cache holds is compared, never taken.

    `train_list` is a file that names the training images in place of the data root's own; images of more than
    `max_megapixels` are faults. Raises `DataError` where nothing can be looked at: for an unknown or generated image
    set, or a data root without the image set's folders.
    """
    lists = _ListReader()
    imageset = _located(name, data_root, lists, train_list)
    names, told = _class_names(imageset)
    told += _rival_lists(imageset)
    ids = {split: _ids(imageset, split, told) for split in SPLITS}
    told += [*lists.faults, *_in_both_lists(imageset, ids)]
    images = {split: _images_of(imageset, split, ids[split]) for split in SPLITS}
    every = list(dict.fromkeys(image for split in SPLITS for image in images[split]))
    absent = _absent_folders(every)
    told += [Fault(Kind.MISSING_FOLDER, f, f"the lists name {count} files in it") for f, count in absent.items()]
    seen = dict(see_all(name, every, len(names) - 1 if names else MOST_CLASSES, progress, max_megapixels))
    told += [fault for image in seen.values() for fault in image.faults(absent)]
    told += [*_stale_cache(imageset, seen.values()), *palette_faults(seen.values())]
    pixels = {split: pixel_counts([seen[image] for image in images[split]]) for split in SPLITS}
    told += absent_classes(imageset, names, pixels)
    told.sort(key=lambda fault: (_ORDER.index(fault.kind), fault.path, fault.detail))
    return Report(
        dataset=name,
        root=imageset.root,
        faults=tuple(fault for fault in told if fault.kind not in WARNINGS),
        warnings=tuple(fault for fault in told if fault.kind in WARNINGS),
        list_remark=imageset.list_remark(len(ids["train"])),
        splits={
            split: SplitCounts(
                listed=len(ids[split]),
                found=sum(seen[image].found for image in images[split]),
                sound_label_maps=len(pixels[split]),
                published=imageset.published_counts.get(split),
            )
            for split in SPLITS
        },
        unlisted=_unlisted(every),
        frequencies=tuple(frequencies(names, pixels)) if names else (),
        sizes=tuple(scenario_sizes(imageset, pixels["train"])),
        saliency=_saliency(imageset, ids["train"]),
    )


def _saliency(imageset: FiledImageSet, ids: Sequence[str]) -> SaliencyMaps:
    folder = map_folder(imageset)
    if folder is None:
        return SaliencyMaps(imageset.saliency_folders[0], there=False)
    lacking = lacking_maps(ids, folder)
    there = sorted(set(ids) - set(lacking))
    return SaliencyMaps(folder, True, tuple(lacking), tuple(unusable_maps(imageset, there)))


def _located(name: str, data_root: Path | None, lists: _ListReader, train_list: Path | None) -> FiledImageSet:
    kind = image_set_class(name)
    if not issubclass(kind, FiledImageSet):
        filed = ", ".join(known for known, other in IMAGE_SETS.items() if issubclass(other, FiledImageSet))
        raise DataError(f"{name} is generated, it has no files to check (those that have: {filed})")
    return kind.located(data_root, lists, train_list)


# ------------------------------------------------------------------------------------------- lists and class names


@dataclass
class _ListReader:
    """Reads lists as far as they can be read, and notes their faults."""

    faults: list[Fault] = field(default_factory=list)
    _read: dict[Path, tuple[str, ...]] = field(default_factory=dict)

    def __call__(self, path: Path) -> tuple[str, ...]:
        """Return the ids in a list, each once; an entry that is no id stands for no image."""
        if path not in self._read:
            entries = Counter(self._entries(path))
            ids = {entry: count for entry, count in entries.items() if _is_id(entry)}
            detail = "holds {}; an id is a file name without folder and extension"
            self.faults += [Fault(Kind.NO_ID, path, detail.format(entry)) for entry in entries if entry not in ids]
            repeated = {image_id: count for image_id, count in ids.items() if count > 1}
            self.faults += [Fault(Kind.ID_TWICE, path, f"names {i} {count} times") for i, count in repeated.items()]
            self._read[path] = tuple(ids)
        return self._read[path]

    def _entries(self, path: Path) -> list[str]:
        try:
            entries = list_entries(path)
        except DataError as error:
            self.faults.append(fault_of(path, error, _LIST_KINDS))
            return []
        if not entries:
            self.faults.append(Fault(Kind.EMPTY_LIST, path))
        return entries


def _is_id(entry: str) -> bool:
    return not any(mark in entry for mark in _NOT_IN_IDS) and not entry.lower().endswith(FILE_EXTENSIONS)


def _rival_lists(imageset: FiledImageSet) -> list[Fault]:
    used, rival = imageset.list_file("train"), imageset.rival_list
    detail = f"{rival} names other images; --train-list says which to use, here it is the first"
    return [Fault(Kind.RIVAL_LISTS, used, detail)] if used and rival else []


def _ids(imageset: FiledImageSet, split: Split, faults: list[Fault]) -> tuple[str, ...]:
    """Return a split's ids, each once, and note where there is none at all."""
    if isinstance(imageset, Folder) and imageset.absent_list and not imageset.list_file(split):
        faults.append(Fault(Kind.MISSING_LIST, imageset.absent_list, "the other list is there; both or neither"))
        return ()
    file = imageset.list_file(split)
    if file:
        return imageset.read_list(file)
    try:
        return imageset.ids_without_list(split)
    except DataError as error:
        fault = Fault(
            Kind.FILE_NAME if isinstance(error, FileNameError) else Kind.EMPTY_SPLIT, imageset.root, str(error)
        )
        if fault not in faults:
            faults.append(fault)
        return ()


def _in_both_lists(imageset: FiledImageSet, ids: Mapping[Split, Sequence[str]]) -> list[Fault]:
    train, test = (imageset.list_file(split) for split in SPLITS)
    if not train or not test:
        return []
    tested = set(ids["test"])
    return [Fault(Kind.ID_IN_BOTH, train, f"names {i}, and so does {test}") for i in ids["train"] if i in tested]


def _class_names(imageset: FiledImageSet) -> tuple[tuple[str, ...], list[Fault]]:
    """Return the names by label, the background first, empty where there are none; and their faults."""
    if not isinstance(imageset, Folder):
        return imageset.class_names, []
    try:
        names = imageset.read_class_names()
    except DataError as error:
        return (), [Fault(Kind.CLASS_NAMES, imageset.class_file, reason_of(imageset.class_file, error))]
    faults = [Fault(Kind.CLASS_NAMES, imageset.class_file, text) for text in class_name_faults(names)]
    return ("background", *names[:MOST_CLASSES]) if names else (), faults


# ----------------------------------------------------------------------------------------------------------- files


def _images_of(imageset: FiledImageSet, split: Split, ids: Sequence[str]) -> list[ImageFiles]:
    return [ImageFiles(tuple(imageset.photographs(split, i)), tuple(imageset.label_maps(split, i))) for i in ids]


def _absent_folders(images: Iterable[ImageFiles]) -> dict[Path, int]:
    """Return the folders that are not there, and how many files should lie in each."""
    folders = Counter(path.parent for image in images for path in (image.photographs[0], image.label_maps[0]))
    return {folder: count for folder, count in folders.items() if not folder.is_dir()}


def _unlisted(images: Sequence[ImageFiles]) -> dict[Path, tuple[str, ...]]:
    listed = {path for image in images for path in (*image.photographs, *image.label_maps)}
    folders = dict.fromkeys(path.parent for path in listed if path.parent.is_dir())
    files = {
        folder: [path for path in sorted(folder.iterdir()) if path not in listed and not path.name.startswith(".")]
        for folder in sorted(folders)
    }
    return {folder: tuple(path.name for path in paths) for folder, paths in files.items() if paths}


def _stale_cache(imageset: FiledImageSet, images: Iterable[SeenImage]) -> list[Fault]:
    files = [file for image in images for file in (image.photograph, image.label_map)]
    stale = imageset.stale({file.path: file.digest for file in files if file.digest})
    detail = "delete it and the folders packed and sound beside its own: runs would go by what the files held before"
    return [Fault(Kind.STALE_CACHE, path, detail) for path in stale]
