"""Decoded images: the same pixels kept in memory or decoded when read, whatever a process needs to read them."""

import pickle
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from benchmarks import packing
from benchmarks.augmentation import Augmentation
from benchmarks.errors import DataError
from benchmarks.imageset import SPLITS, Split
from benchmarks.packing import BYTES_PER_PIXEL, DecodingReader, PackedSplit, pack, readers
from benchmarks.resampling import resized_by_pillow
from benchmarks.sets.folder import Folder
from benchmarks.sets.shapes import Shapes
from benchmarks.sets.voc import Voc
from benchmarks.streams import load_benchmark

NAME = "voc-15-5-overlapped"


def decoded_bytes(voc: Voc) -> int:
    return sum(BYTES_PER_PIXEL * voc.read(split, i)[1].size for split in SPLITS for i in range(len(voc.ids(split))))


@pytest.mark.parametrize("size", [None, 32])
def test_pixels_are_the_same_kept_and_decoded(tiny_voc: Path, size: int | None) -> None:
    voc = Voc(tiny_voc)
    kept, decoded = (readers(voc, size, budget) for budget in (1e12, 0.0))
    for split in SPLITS:
        assert kept[split].kept and not decoded[split].kept
        for i in range(len(voc.ids(split))):
            for one, other in zip(kept[split].read(i), decoded[split].again(i), strict=True):
                assert one.dtype == np.uint8 and np.array_equal(one, other)


def test_native_pixels_are_the_files(tiny_voc: Path) -> None:
    voc = Voc(tiny_voc)
    image, label_map = readers(voc)["test"].read(7)
    whole, labels = voc.read("test", 7)
    assert np.array_equal(image, whole.transpose(2, 0, 1)) and np.array_equal(label_map, labels)


def test_budget_is_the_decoded_size_of_both_splits(tiny_voc: Path) -> None:
    voc = Voc(tiny_voc)
    total = decoded_bytes(voc)
    assert isinstance(readers(voc, ram_budget=total)["train"], PackedSplit)
    assert isinstance(readers(voc, ram_budget=total - 1)["train"], DecodingReader)


def test_what_is_read_again_is_remembered_within_the_budget(tiny_voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voc = Voc(tiny_voc)
    reader = readers(voc, ram_budget=decoded_bytes(voc) / 16)["train"]  # ten images of 160
    met: list[int] = []
    whole = Voc.read
    monkeypatch.setattr(Voc, "read", lambda self, split, i: met.append(i) or whole(self, split, i))
    for i in [*range(9), *range(9)]:
        reader.again(i)
    assert met == list(range(9))
    for i in range(30):
        reader.again(i)
    reader.again(0)
    assert met.count(0) == 2


@pytest.mark.parametrize("budget", [1e12, 0.0])
def test_reader_survives_the_way_to_another_process_without_its_pixels(tiny_voc: Path, budget: float) -> None:
    reader = readers(Voc(tiny_voc), 32, budget)["train"]
    before = reader.again(3)
    content = pickle.dumps(reader)
    assert len(content) < 20_000
    for one, other in zip(before, pickle.loads(content).read(3), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_kept_and_decoded_by_any_number_of_workers(tiny_voc: Path, workers: int) -> None:
    batches = []
    for budget in (1e12, 0.0):
        data = load_benchmark(NAME, tiny_voc, ram_budget=budget).train_stream[1].data
        loader = data.batches(4, None, Augmentation((0.5, 2.0), 24), (7,), workers)
        assert loader.num_workers == max(workers, 0 if budget else 1)
        batches.append([[part.tolist() for part in batch] for batch in loader])
    assert batches[0] == batches[1]


def test_damaged_pack_is_made_again(tiny_voc: Path, own_cache: Path) -> None:
    voc = Voc(tiny_voc)
    before = [part.copy() for part in readers(voc, 32)["train"].read(0)]
    [file] = own_cache.glob("packed/voc-*/train-images.u8")
    file.write_bytes(file.read_bytes()[:-1])
    for one, other in zip(before, readers(voc, 32)["train"].read(0), strict=True):
        assert np.array_equal(one, other)


def test_a_pack_that_another_process_makes_meanwhile_stays(tiny_voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voc, place = Voc(tiny_voc), packing.cache_folder

    def meanwhile(*parts: str, write: bool = False) -> Path:
        if write:
            monkeypatch.setattr(packing, "cache_folder", place)
            (pack(voc, 17).parts["train"].folder / "the other's").touch()
        return place(*parts, write=write)

    monkeypatch.setattr(packing, "cache_folder", meanwhile)
    assert (pack(voc, 17).parts["train"].folder / "the other's").exists()


def test_embedded_images_are_painted_once_for_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Few(Shapes):
        name = "few"
        sizes: ClassVar = {"train": 3, "test": 2}

    painted: list[tuple[Split, int]] = []
    paint = Shapes.generate
    monkeypatch.setattr(Few, "generate", lambda self, s, i: painted.append((s, i)) or paint(self, s, i))
    small = pack(Few(), 16).parts["test"].read(1)
    image, label_map = paint(Few(), "test", 1)
    for one, other in zip(small, resized_by_pillow(image.transpose(2, 0, 1), label_map, (16, 16)), strict=True):
        assert np.array_equal(one, other)
    pack(Few(), 24)
    assert sorted(painted) == [("test", 0), ("test", 1), ("train", 0), ("train", 1), ("train", 2)]


@pytest.mark.parametrize("budget", [1e12, 0.0])
@pytest.mark.parametrize("size", [None, 32])
def test_a_damaged_photograph_is_found_before_anything_is_trained(
    tiny_voc: Path, budget: float, size: int | None
) -> None:
    photograph = Voc(tiny_voc).image_paths("test")[-1]
    photograph.write_bytes(photograph.read_bytes()[:200])
    with pytest.raises(DataError, match=photograph.name):
        load_benchmark(NAME, tiny_voc, size=size, ram_budget=budget)


def test_jpegs_are_decoded_smaller_where_that_is_asked_for(tmp_path: Path) -> None:
    """A JPEG of 96 x 64 pixels is squeezed to 16 from a quarter of it; its label map and PNGs are read as ever."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "classes.txt").write_text("one\ntwo\n")
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    labels = np.arange(64 * 96, dtype=np.uint8).reshape(64, 96) % 2
    (tmp_path / "train.txt").write_text("a\nb\n")
    (tmp_path / "val.txt").write_text("c\n")
    for name in ("a.jpg", "b.png", "c.png"):
        Image.fromarray(noise).save(tmp_path / "images" / name)
        Image.fromarray(labels).save(tmp_path / "masks" / f"{name[0]}.png")
    images = Folder.open(tmp_path)
    whole, drafts = (readers(images, 16, jpeg_draft=draft)["train"] for draft in (False, True))
    decoded = readers(images, 16, 0, jpeg_draft=True)["train"]
    for i, image_id in enumerate(images.ids("train")):
        assert all((one == other).all() for one, other in zip(drafts.read(i), decoded.read(i), strict=True))
        assert (whole.read(i)[1] == drafts.read(i)[1]).all()
        assert (whole.read(i)[0] == drafts.read(i)[0]).all() == (image_id == "b")
    assert images.read_reduced("train", 0, 16)[0].shape == (16, 24, 3)
    assert images.read_reduced("train", 0, 17)[0].shape == (32, 48, 3)
    as_they_are = (readers(images, None, jpeg_draft=draft)["train"].read(0)[0] for draft in (False, True))
    assert np.array_equal(*as_they_are)
