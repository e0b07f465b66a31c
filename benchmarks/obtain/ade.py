"""Getting `ade`: the archive of the scene parsing benchmark."""

from __future__ import annotations

from pathlib import Path

from benchmarks.obtain.job import DataSet, Job, require_got, stems
from benchmarks.obtain.sources import ADE
from benchmarks.obtain.unpack import place

_FOLDER = "ADEChallengeData2016"
_SPLITS = ("training", "validation")


def _get(job: Job) -> None:
    job.note(f"ade: {_lacks(job.root)} is not there: getting {ADE.name}")
    folder = job.root / _FOLDER
    with job.unpacked(ADE, _FOLDER, folder) as unpacked:
        place(unpacked, folder)
        require_got(_lacks(job.root), ADE)


def _lacks(root: Path) -> str | None:
    """Return a missing folder, or a photograph or label map whose counterpart is there; None where all is complete."""
    for split in _SPLITS:
        images, annotations = (root / _FOLDER / kind / split for kind in ("images", "annotations"))
        photographs, label_maps = stems(images, ".jpg"), stems(annotations, ".png")
        if not label_maps:
            return str(annotations)
        if label_maps - photographs:
            return str(images / f"{min(label_maps - photographs)}.jpg")
        if photographs - label_maps:
            return str(annotations / f"{min(photographs - label_maps)}.png")
    return None


DATA_SET = DataSet(_get, _lacks, archives=(ADE,), made=(_FOLDER,))
