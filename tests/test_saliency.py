"""Which pixels are salient: files of maps, the spectral residual, and what is told where maps are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_resume import TINY, planned

from bench.settings.errors import RequestError
from benchmarks.errors import DataError
from benchmarks.obtain.checking import check
from benchmarks.saliency import maps_digest, spectral_residual
from benchmarks.scenarios import load_scenario
from benchmarks.sets.registry import open_image_set
from benchmarks.streams import build_benchmark

UNKNOWN, VOID = 254, 255
VOC = "voc-15-5-overlapped"


def with_maps(root: Path, folder: str = "saliency_map") -> Path:
    """Maps of noise for every training image, beside what they stand for."""
    (root / folder).mkdir()
    imageset = open_image_set("voc", root)
    for index, image_id in enumerate(imageset.ids("train")):
        shape = imageset.read("train", index)[1].shape
        noise = np.random.default_rng(index).integers(0, 3, shape, dtype=np.uint8)
        Image.fromarray(noise).save(root / folder / f"{image_id}.png")
    return root


@pytest.mark.parametrize("folder", ["saliency_map", "VOCdevkit/VOC2012/saliency_map"])
def test_a_background_pixel_above_0_in_its_map_is_of_the_unknown_class(tiny_voc: Path, folder: str) -> None:
    scenario = load_scenario(VOC, with_maps(tiny_voc, folder))
    marked, plain = (build_benchmark(scenario, saliency=s).train_stream for s in ("maps", None))
    for t in (0, 1):
        for i, (_, labels, _) in enumerate(marked[t].data):
            image_id = marked[t].data.ids[i]
            salient = torch.from_numpy(np.array(Image.open(tiny_voc / folder / f"{image_id}.png")) > 0)
            truth = plain[t].data[i][1]
            assert torch.equal(labels, truth.masked_fill((truth == 0) & salient, UNKNOWN))


def test_what_is_missing_or_unusable_of_the_maps_is_told_before_anything_is_trained(
    tiny_voc: Path, tmp_path: Path
) -> None:
    def refused() -> str:
        with pytest.raises((RequestError, DataError)) as error:
            planned(tiny_voc, tmp_path / "out", "ssul", assignments=[*TINY, "protocol=offline"])
        assert "\n" not in str(error.value)
        return str(error.value)

    ways = "saliency=spectral computes a stand-in, saliency=none takes all of the background as unknown"
    assert refused() == f"voc has no saliency maps, no folder {tiny_voc / 'saliency_map'}; {ways}"
    assert not check("voc", tiny_voc).saliency.there
    maps = with_maps(tiny_voc) / "saliency_map"
    assert check("voc", tiny_voc).as_dict()["saliency_maps"] == {
        **{"folder": str(maps), "there": True, "lacking": (), "unusable": ()},
    }
    first, second, third = open_image_set("voc", tiny_voc).ids("train")[:3]
    Image.new("L", (5, 4)).save(maps / f"{second}.png")
    found = check("voc", tiny_voc).saliency
    assert len(found.unusable) == 1 and f"{second}.png is 5 x 4, its label map " in found.unusable[0]
    assert refused() == found.unusable[0]
    (maps / f"{third}.png").write_bytes(b"no image")
    assert len(check("voc", tiny_voc).saliency.unusable) == 2
    (maps / f"{first}.png").unlink()
    assert check("voc", tiny_voc).saliency.lacking == (first,)
    assert refused() == f"voc: 1 of 120 training images have no saliency map, {maps / first}.png for one; {ways}"


def test_other_maps_make_another_run(tiny_voc: Path, tmp_path: Path) -> None:
    """Of ssul, and of nobody else."""
    maps = with_maps(tiny_voc) / "saliency_map"
    asked = {"strategies": "ssul,ssul(saliency=spectral),ssul(saliency=none),finetune"}
    first = open_image_set("voc", tiny_voc).ids("train")[0]

    def hashes() -> list[Any]:
        jobs = planned(tiny_voc, tmp_path, asked["strategies"], assignments=[*TINY, "protocol=offline"]).runs
        return [(job.spec["hash"], job.spec["base"]["hash"]) for job in jobs]

    before = hashes()
    assert len({base for _, base in before}) == 4
    digest = maps_digest(open_image_set("voc", tiny_voc))
    image = np.array(Image.open(maps / f"{first}.png"))
    Image.fromarray(2 - image).save(maps / f"{first}.png")
    assert maps_digest(open_image_set("voc", tiny_voc)) != digest
    after = hashes()
    assert [one != other for one, other in zip(before, after, strict=True)] == [True, False, False, False]


def test_the_spectral_residual_finds_what_stands_out() -> None:
    rng = np.random.default_rng(0)
    stripes = np.tile(40 * (np.arange(96) // 4 % 2), (120, 1))
    image = np.stack([stripes + rng.integers(0, 6, stripes.shape) for _ in range(3)]).astype(np.uint8)
    image[:, 60:75, 30:42] = 230
    salient = spectral_residual(image)
    rows, columns = np.nonzero(salient)
    assert salient.shape == (64, 64) and 0 < salient.mean() < 0.2
    at = np.average(rows) * 120 / 64, np.average(columns) * 96 / 64
    assert 55 < at[0] < 80 and 25 < at[1] < 47
    assert not spectral_residual(np.zeros((3, 8, 9), dtype=np.uint8)).any()


def test_the_spectral_residual_is_computed_once_for_all_processes(
    tiny_voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = load_scenario(VOC, tiny_voc)
    first = build_benchmark(scenario, size=24, saliency="spectral").train_stream[0].data
    monkeypatch.setattr("benchmarks.saliency.spectral_residual", None)
    again = build_benchmark(scenario, size=24, saliency="spectral").train_stream[0].data
    found = [torch.equal(one[1], other[1]) for one, other in zip(first, again, strict=True)]
    assert all(found) and any((labels == UNKNOWN).any() and (labels == 0).any() for _, labels, _ in first)
