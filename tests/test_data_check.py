"""`bench data check`: every planted fault is named on one line and nothing else is; sound roots are called sound."""

import hashlib
import json
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from usual import usual
from voc_root import make_voc_root, save_mask

from bench.cli.entry import main
from benchmarks.errors import DataError
from benchmarks.files import read_mask
from benchmarks.imageset import SPLITS
from benchmarks.obtain.checking import check
from benchmarks.obtain.faults import WARNINGS, Fault, Kind
from benchmarks.obtain.report import Report
from benchmarks.presence import presence_file
from benchmarks.scenarios import load_scenario
from benchmarks.sets.ade20k import Ade20k
from benchmarks.sets.registry import open_image_set
from benchmarks.sets.voc import Voc

SAMPLE = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "ade-sample"
DOCS = Path(__file__).resolve().parent.parent / "docs" / "data.md"
TRAIN, TEST = 240, 80


def devkit(root: Path) -> Path:
    return root / "VOCdevkit" / "VOC2012"


def photograph(root: Path, number: int) -> Path:
    return devkit(root) / "JPEGImages" / f"2007_{number:06d}.jpg"


def label_map(root: Path, number: int) -> Path:
    return devkit(root) / "SegmentationClassAug" / f"2007_{number:06d}.png"


def list_of(root: Path, name: str) -> Path:
    return devkit(root) / "ImageSets" / "Segmentation" / f"{name}.txt"


def append(path: Path, entry: str) -> None:
    path.write_text(f"{path.read_text()}{entry}\n")


def truncate(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def with_label(path: Path, *labels: int) -> None:
    changed = np.asarray(Image.open(path)).copy()
    changed[0, : len(labels)] = labels
    save_mask(changed, path)


def wide(path: Path, *labels: int) -> None:
    """In 16 bit."""
    changed = np.asarray(Image.open(path)).astype(np.uint16)
    changed[0, : len(labels)] = labels
    Image.fromarray(changed).save(path)


def oriented(path: Path, orientation: int) -> None:
    """Save a photograph again, its pixels as they are, with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.open(path)
    image.load()
    image.save(path, exif=exif)


def enormous(path: Path) -> None:
    """An image of 400 megapixels by its header, as Pillow writes it."""
    Image.new("L", (1, 1)).save(path, "PNG")
    content = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", 20000, 20000) + content[24:29]
    path.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])


def to_nowhere(path: Path) -> None:
    """As git-annex leaves a file whose content was not fetched."""
    path.unlink()
    path.symlink_to("../.git/annex/objects/1")


def not_utf8(path: Path) -> None:
    path.rename(path.with_name(os.fsdecode(b"caf\xe9.png")))


def into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_voc_root(tmp_path_factory.mktemp("check") / "voc", TRAIN, TEST)


@pytest.fixture
def root(tmp_path: Path, template: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "voc"))


Command = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """`bench data check`: the exit status and the lines that it prints."""

    def checked(*arguments: object) -> tuple[int, list[str]]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(["data", "check", *map(str, arguments)])
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, (said.out or said.err).splitlines()

    return checked


def found(report: Report) -> list[tuple[Kind, Path]]:
    return [(fault.kind, fault.path) for fault in report.faults]


# ---------------------------------------------------------------------------------------------- twenty faults planted


def plant(root: Path) -> list[tuple[Kind, Path, str]]:
    """Damage a root in twenty places; return each fault's kind, the file that it is told of, and a word of its line."""
    train, val = list_of(root, "trainaug"), list_of(root, "val")
    photograph(root, 3).unlink()
    photograph(root, 250).unlink()
    label_map(root, 11).unlink()
    label_map(root, 251).unlink()
    photograph(root, 17).unlink()
    label_map(root, 17).unlink()
    truncate(photograph(root, 21))
    photograph(root, 252).write_bytes(b"")
    photograph(root, 23).write_text("<html>404 Not Found</html>")
    truncate(label_map(root, 31), 0.97)
    label_map(root, 253).write_bytes(b"")
    Image.open(label_map(root, 41)).convert("RGB").save(label_map(root, 41))
    with_label(label_map(root, 51), 21, 77)
    wide(label_map(root, 254), 300, 21, 65535)
    save_mask(np.full((20, 30), 5, np.uint8), label_map(root, 61))
    into_folder(photograph(root, 71))
    into_folder(label_map(root, 255))
    append(train, "2007_000081")
    append(train, "2007_000300")
    append(train, "2007_000082.jpg")
    append(val, "/JPEGImages/2007_000301")
    return [
        (Kind.MISSING_PHOTOGRAPH, photograph(root, 3), ""),
        (Kind.MISSING_PHOTOGRAPH, photograph(root, 250), ""),
        (Kind.MISSING_LABEL_MAP, label_map(root, 11), ""),
        (Kind.MISSING_LABEL_MAP, label_map(root, 251), ""),
        (Kind.MISSING_IMAGE, photograph(root, 17), str(label_map(root, 17))),
        (Kind.DAMAGED_PHOTOGRAPH, photograph(root, 21), "truncated"),
        (Kind.DAMAGED_PHOTOGRAPH, photograph(root, 252), "empty"),
        (Kind.DAMAGED_PHOTOGRAPH, photograph(root, 23), "not an image"),
        (Kind.DAMAGED_LABEL_MAP, label_map(root, 31), "truncated"),
        (Kind.DAMAGED_LABEL_MAP, label_map(root, 253), "empty"),
        (Kind.COLOURS, label_map(root, 41), "RGB"),
        (Kind.FOREIGN_LABELS, label_map(root, 51), "labels 21, 77; allowed are 0..20 and 255"),
        (Kind.FOREIGN_LABELS, label_map(root, 254), "labels 21, 300; allowed are 0..20 and 255"),
        (Kind.TWO_SIZES, photograph(root, 61), f"49 x 41 pixels, its label map {label_map(root, 61)} 30 x 20"),
        (Kind.UNREADABLE_PHOTOGRAPH, photograph(root, 71), "Is a directory"),
        (Kind.UNREADABLE_LABEL_MAP, label_map(root, 255), "Is a directory"),
        (Kind.ID_TWICE, train, "2007_000081 2 times"),
        (Kind.ID_IN_BOTH, train, "2007_000300"),
        (Kind.NO_ID, train, "2007_000082.jpg"),
        (Kind.NO_ID, val, "/JPEGImages/2007_000301"),
    ]


def test_twenty_planted_faults_are_all_named_and_nothing_else_is(root: Path) -> None:
    planted = plant(root)
    assert len(planted) == 20
    report = check("voc", root)
    assert sorted((f.kind.name, str(f.path)) for f in report.faults) == sorted((k.name, str(p)) for k, p, _ in planted)
    for kind, path, word in planted:
        assert any(f.kind is kind and f.path == path and word in str(f) for f in report.faults), (kind, path, word)


def test_each_fault_is_one_line_below_the_count_of_its_kind(root: Path, command: Command) -> None:
    planted = plant(root)
    status, lines = command("voc", "--data-root", root)
    assert status == 1
    assert lines[-1] == f"20 faults of {len({kind for kind, _, _ in planted})} kinds"
    assert len({kind for kind, _, _ in planted}) >= 8
    told = [line for line in lines if line.startswith(f"  {root}")]
    assert len(told) == 20
    for kind, path, word in planted:
        count = sum(k is kind for k, _, _ in planted)
        group = lines[lines.index(f"{count} x {kind.value}") + 1 :][:count]
        assert [line for line in group if str(path) in line and word in line], (kind, path)


def test_json_names_the_same_faults_and_stdout_is_nothing_but_json(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planted = plant(root)
    with pytest.raises(SystemExit) as exit_:
        main(["data", "check", "voc", "--data-root", str(root), "--json"])
    assert exit_.value.code == 1
    told = json.loads(capsys.readouterr().out)
    assert told["sound"] is False
    assert sorted((f["kind"], f["path"]) for f in told["faults"]) == sorted((k.value, str(p)) for k, p, _ in planted)
    assert told["splits"]["train"] == {"listed": 241, "found": 238, "sound_label_maps": 236, "published": 10582}
    assert told["splits"]["test"]["listed"] == 80


def test_an_image_in_both_lists_is_looked_at_once(root: Path) -> None:
    append(list_of(root, "trainaug"), "2007_000300")
    photograph(root, 300).unlink()
    faults = found(check("voc", root))
    assert faults == [
        (Kind.ID_IN_BOTH, list_of(root, "trainaug")),
        (Kind.MISSING_PHOTOGRAPH, photograph(root, 300)),
    ]


# ---------------------------------------------------------------------------------- each kind alone, and strict code


def use(scenario: str, root: Path) -> None:
    """Do what a run does with a root: open it, compute a scenario, decode every image; raises `DataError`."""
    imageset = load_scenario(scenario, root).imageset
    for split in SPLITS:
        for index in range(len(imageset.ids(split))):
            imageset.read(split, index)


Damage = Callable[[Path], object]

DAMAGES: list[tuple[Kind, Damage]] = [
    (Kind.MISSING_LIST, lambda root: list_of(root, "val").unlink()),
    (Kind.UNREADABLE_LIST, lambda root: list_of(root, "val").write_bytes(b"\xff\xfe\x00")),
    (Kind.UNREADABLE_LIST, lambda root: into_folder(list_of(root, "val"))),
    (Kind.EMPTY_LIST, lambda root: list_of(root, "trainaug").write_text("\n \n")),
    (Kind.NO_ID, lambda root: append(list_of(root, "val"), "2007_000003.png")),
    (Kind.NO_ID, lambda root: append(list_of(root, "val"), "JPEGImages\\2007_000003")),
    (Kind.NO_ID, lambda root: append(list_of(root, "val"), "\ufeff2007_000003")),
    (Kind.NO_ID, lambda root: append(list_of(root, "val"), "2007_999999.JPG")),
    (Kind.NO_ID, lambda root: append(list_of(root, "val"), "2007\0000003")),
    (Kind.MISSING_IMAGE, lambda root: append(list_of(root, "val"), "9" * 300)),
    (Kind.ID_TWICE, lambda root: append(list_of(root, "val"), "2007_000130")),
    (Kind.ID_IN_BOTH, lambda root: append(list_of(root, "val"), "2007_000003")),
    (Kind.MISSING_FOLDER, lambda root: shutil.rmtree(photograph(root, 0).parent)),
    (Kind.MISSING_IMAGE, lambda root: append(list_of(root, "val"), "2007_999999")),
    (Kind.MISSING_PHOTOGRAPH, lambda root: photograph(root, 7).unlink()),
    (Kind.MISSING_PHOTOGRAPH, lambda root: photograph(root, 7).rename(photograph(root, 7).with_suffix(".gif"))),
    (Kind.MISSING_LABEL_MAP, lambda root: label_map(root, 7).unlink()),
    (Kind.UNREADABLE_PHOTOGRAPH, lambda root: into_folder(photograph(root, 7))),
    (Kind.UNREADABLE_LABEL_MAP, lambda root: into_folder(label_map(root, 7))),
    (Kind.DAMAGED_PHOTOGRAPH, lambda root: truncate(photograph(root, 7), 0.95)),
    (Kind.DAMAGED_PHOTOGRAPH, lambda root: truncate(photograph(root, 7), 0.0)),
    (Kind.DAMAGED_PHOTOGRAPH, lambda root: photograph(root, 7).write_bytes(b"GIF89a")),
    (Kind.DAMAGED_LABEL_MAP, lambda root: truncate(label_map(root, 7), 0.95)),
    (Kind.DAMAGED_LABEL_MAP, lambda root: label_map(root, 7).write_text("not a label map")),
    *[
        (Kind.COLOURS, lambda root, mode=mode: Image.open(label_map(root, 7)).convert(mode).save(label_map(root, 7)))
        for mode in ("RGB", "RGBA", "LA")
    ],
    (Kind.DAMAGED_LABEL_MAP, lambda root: enormous(label_map(root, 7))),
    (Kind.DAMAGED_PHOTOGRAPH, lambda root: enormous(photograph(root, 7))),
    (Kind.MISSING_LIST, lambda root: to_nowhere(list_of(root, "val"))),
    (Kind.MISSING_PHOTOGRAPH, lambda root: to_nowhere(photograph(root, 7))),
    (Kind.MISSING_LABEL_MAP, lambda root: to_nowhere(label_map(root, 7))),
    (Kind.UNREADABLE_LIST, lambda root: list_of(root, "val").write_text("2007_000120 -1\n2007_000121  1\n")),
    (Kind.FILE_NAME, lambda root: (list_of(root, "trainaug").unlink(), not_utf8(label_map(root, 7)))),
    (Kind.RIVAL_LISTS, lambda root: (root / "train_aug.txt").write_text("2007_000001\n")),
    (Kind.SEVERAL_PHOTOGRAPHS, lambda root: shutil.copy(photograph(root, 7), photograph(root, 7).with_suffix(".JPEG"))),
    (Kind.SEVERAL_LABEL_MAPS, lambda root: shutil.copy(label_map(root, 7), label_map(root, 7).with_suffix(".PNG"))),
    (Kind.UNCLEAR_PHOTOGRAPH, lambda root: Image.new("F", (50, 41)).save(photograph(root, 7), "TIFF")),
    (Kind.UNCLEAR_ORIENTATION, lambda root: oriented(photograph(root, 7), 3)),
    (Kind.INEXACT, lambda root: Image.open(label_map(root, 7)).convert("L").save(label_map(root, 7), "JPEG")),
    (Kind.FOREIGN_LABELS, lambda root: with_label(label_map(root, 7), 21)),
    (Kind.FOREIGN_LABELS, lambda root: with_label(label_map(root, 7), 254)),
    (Kind.FOREIGN_LABELS, lambda root: wide(label_map(root, 7), 256)),
    (Kind.FOREIGN_LABELS, lambda root: wide(label_map(root, 7), 21)),
    (Kind.TWO_SIZES, lambda root: Image.open(photograph(root, 7)).rotate(90, expand=True).save(photograph(root, 7))),
    (Kind.TWO_SIZES, lambda root: save_mask(np.full((20, 20), 1, np.uint8), label_map(root, 7))),
]


REFUSED_BY_THE_RUN = {
    Kind.MISSING_FOLDER,
    Kind.MISSING_PHOTOGRAPH,
    Kind.SEVERAL_PHOTOGRAPHS,
    Kind.UNREADABLE_PHOTOGRAPH,
    Kind.DAMAGED_PHOTOGRAPH,
    Kind.UNCLEAR_PHOTOGRAPH,
    Kind.TWO_SIZES,
    Kind.UNCLEAR_ORIENTATION,
}
"""The kinds that need the photographs: `bench scenario` reads label maps alone, and refuses all the others."""


FIRST_OF_EACH_KIND = {kind: (kind, damage) for kind, damage in reversed(DAMAGES)}.values()


@pytest.mark.parametrize(
    ("kind", "damage"),
    usual(DAMAGES, *FIRST_OF_EACH_KIND),
    ids=[f"{kind.name}-{i}" for i, (kind, _) in enumerate(DAMAGES)],
)
def test_one_fault_is_told_once_and_training_refuses_it(tiny_voc: Path, kind: Kind, damage: Damage) -> None:
    damage(tiny_voc)
    assert [fault.kind for fault in check("voc", tiny_voc).faults] == [kind]
    if kind in REFUSED_BY_THE_RUN:
        load_scenario("voc-15-1-disjoint", tiny_voc)
        with pytest.raises(DataError):
            use("voc-15-1-disjoint", tiny_voc)
    else:
        with pytest.raises(DataError):
            load_scenario("voc-15-1-disjoint", tiny_voc)


def test_the_documentation_says_of_every_kind_what_a_run_does_with_it() -> None:
    table = re.findall(r"^\| (.*?) \| (.*?) \|$", DOCS.read_text(), re.MULTILINE)
    said = {kind: done for kind, done in table if kind in {k.value for k in Kind}}
    assert list(said) == [kind.value for kind in Kind]
    tried = {kind for kind, _ in DAMAGES}
    for kind in tried:
        by = "run" if kind in REFUSED_BY_THE_RUN else "scenario"
        assert said[kind.value].startswith(f"`bench {by}` refuses it"), kind
    assert all(said[kind.value].startswith("taken") for kind in (*WARNINGS, Kind.STALE_CACHE))
    elsewhere = {Kind.EMPTY_SPLIT, Kind.CLASS_NAMES, Kind.STALE_CACHE, *WARNINGS}
    assert tried | elsewhere == set(Kind)


# ----------------------------------------------------------------------------------------------------- sound roots


def test_a_sound_root_is_called_sound_and_training_reads_all_of_it(root: Path, command: Command) -> None:
    status, lines = command("voc", "--data-root", root)
    assert status == 0
    assert lines[-1] == f"sound: {TRAIN} training and {TEST} test images"
    use("voc-15-1-disjoint", root)


def test_a_shorter_list_than_published_is_said_but_no_fault(root: Path, command: Command) -> None:
    status, lines = command("voc", "--data-root", root)
    assert status == 0
    assert "note: the train split has 240 images, published are 10582" in lines


def test_files_that_no_list_names_are_counted_but_no_fault(root: Path, command: Command) -> None:
    for list_name in ("trainaug", "val"):
        path = list_of(root, list_name)
        path.write_text("\n".join(path.read_text().split()[1:]))
    truncate(photograph(root, 0))
    label_map(root, 240).unlink()
    status, lines = command("voc", "--data-root", root)
    assert status == 0
    assert f"note: no list names 2 files of {photograph(root, 0).parent}: 2007_000000.jpg, 2007_000240.jpg" in lines
    assert f"note: no list names 1 file of {label_map(root, 0).parent}: 2007_000000.png" in lines


def test_frequencies_are_those_of_the_label_maps(root: Path) -> None:
    report = check("voc", root)
    maps = {split: [read_mask(p) for p in Voc(root).mask_paths(split)] for split in SPLITS}
    assert [f.label for f in report.frequencies] == [*range(21), 255]
    for frequency in report.frequencies:
        for split in SPLITS:
            counts = [int((m == frequency.label).sum()) for m in maps[split]]
            assert frequency.pixels[split] == sum(counts)
            assert frequency.images[split] == sum(count > 0 for count in counts)
    assert sum(f.images["train"] for f in report.frequencies) > TRAIN


def test_shares_of_pixels_sum_to_all(root: Path, command: Command) -> None:
    _, lines = command("voc", "--data-root", root)
    start = next(i for i, line in enumerate(lines) if "% of pixels" in line) + 1
    shares = [float(line.split()[-1]) for line in lines[start : start + 22]]
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_step_sizes_are_those_of_the_scenarios(root: Path) -> None:
    with_label(label_map(root, 0), 20)  # a single pixel makes the image one of the last step's
    report = check("voc", root)
    assert len(report.sizes) == 6
    for sizes in report.sizes:
        assert sizes.computed == tuple(len(step.train) for step in load_scenario(sizes.scenario, root).steps)
        assert sizes.published == load_scenario(sizes.scenario, root).published_sizes


def test_step_sizes_of_a_faulty_root_are_those_of_its_sound_label_maps(root: Path, command: Command) -> None:
    with_label(label_map(root, 0), 77)
    truncate(label_map(root, 1))
    photograph(root, 2).unlink()
    _, lines = command("voc", "--data-root", root)
    sizes = check("voc", root).sizes
    note = "note: the sizes are computed from the 238 of 240 training label maps that are sound"
    assert note in lines
    path = list_of(root, "trainaug")
    path.write_text("\n".join(path.read_text().split()[2:]))
    assert sizes == check("voc", root).sizes


def test_agreement_is_told_step_by_step(root: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = {sizes.scenario: sizes.computed for sizes in check("voc", root).sizes}
    first, second = computed["voc-19-1-disjoint"]
    published = {"19-1-disjoint": (first, second + 1)}
    monkeypatch.setattr("benchmarks.sets.voc.Voc.published_sizes", published)
    _, lines = command("voc", "--data-root", root)
    rows = [line.split() for line in lines if line.startswith("voc-")]
    assert rows == [
        ["voc-19-1-disjoint", "0", str(first), str(first), "ok"],
        ["voc-19-1-disjoint", "1", str(second + 1), str(second), "differs"],
    ]


def test_nothing_is_taken_from_the_cache(root: Path) -> None:
    before = label_map(root, 7).stat()
    assert not check("voc", root).faults
    content = bytearray(label_map(root, 7).read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    label_map(root, 7).write_bytes(bytes(content))
    os.utime(label_map(root, 7), ns=(before.st_atime_ns, before.st_mtime_ns))
    assert found(check("voc", root)) == [(Kind.DAMAGED_LABEL_MAP, label_map(root, 7))]


def same_size_and_time(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file anew so that its size, inode and time of content stay: of what a stamp holds only ctime moves."""
    before = path.stat()
    write(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_ino == before.st_ino


def bmp(path: Path, label: int) -> None:
    """A label map whose size in bytes does not depend on its labels."""
    Image.fromarray(np.full((40, 50), label, np.uint8)).save(path, "BMP")


def test_label_maps_written_anew_with_equal_size_and_time_are_read_anew(tiny_voc: Path) -> None:
    bmp(label_map(tiny_voc, 7), 8)
    before = load_scenario("voc-15-1-disjoint", tiny_voc)
    digest, stamp = before.imageset.presence("train").digest, before.imageset.stamp()
    same_size_and_time(label_map(tiny_voc, 7), lambda path: bmp(path, 20))
    after = load_scenario("voc-15-1-disjoint", tiny_voc)
    assert after.imageset.class_presence("train")[7].tolist() == [c == 20 for c in range(21)]
    assert after.imageset.presence("train").digest != digest
    assert after.imageset.stamp() != stamp


def test_a_cache_that_was_made_from_other_content_is_named(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    imageset = load_scenario("voc-15-1-disjoint", tiny_voc).imageset
    imageset.images_digest()
    assert not check("voc", tiny_voc).faults
    [photographs] = (tmp_path / "cache" / "images").iterdir()
    other = hashlib.sha256(b"other content").hexdigest().encode()
    photographs.write_bytes(hashlib.sha256(other).hexdigest().encode() + b"\n" + other)
    assert imageset.images_digest() == other.decode()
    presence = presence_file("voc", Voc(tiny_voc).mask_paths("test"))
    shutil.copy(presence_file("voc", Voc(tiny_voc).mask_paths("train")), presence)
    assert found(check("voc", tiny_voc)) == [(Kind.STALE_CACHE, photographs), (Kind.STALE_CACHE, presence)]


# ------------------------------------------------------------------------------------------------------- warnings


def warned(root: Path) -> list[tuple[Kind, str]]:
    """Return what a check warns of, training having taken it."""
    use("voc-15-1-disjoint", root)
    report = check("voc", root)
    assert not report.faults
    return [(warning.kind, str(warning)) for warning in report.warnings]


def test_a_label_whose_colour_differs_from_palette_to_palette_is_named(tiny_voc: Path, command: Command) -> None:
    assert not warned(tiny_voc)
    adaptive = Image.open(label_map(tiny_voc, 7))
    palette = adaptive.getpalette()
    assert palette
    palette[24:27] = [1, 2, 3]
    palette[60:63] = [1, 2, 3]  # of label 20, which the image does not show
    adaptive.load()
    adaptive.putpalette(palette)
    adaptive.save(label_map(tiny_voc, 7))
    [(kind, told)] = warned(tiny_voc)
    assert kind is Kind.PALETTES
    assert told.startswith(f"{label_map(tiny_voc, 7)}: label 8 is #400000 in ") and told.endswith("#010203 in 1, here")
    status, lines = command("voc", "--data-root", tiny_voc)
    assert (status, lines[-1]) == (0, "sound, 1 warning: 120 training and 40 test images")
    assert lines[lines.index(f"warning: 1 x {Kind.PALETTES.value}") + 1] == f"  {told}"


def test_palettes_of_several_lengths_that_agree_are_no_concern(tiny_voc: Path) -> None:
    image = Image.open(label_map(tiny_voc, 0))
    short = Image.fromarray(np.asarray(image) % 255)
    short.putpalette((image.getpalette() or [])[: 3 * 21])
    short.save(label_map(tiny_voc, 0))
    assert not warned(tiny_voc)


def test_classes_that_no_image_of_a_split_shows_are_named_and_a_run_tells_them(tiny_voc: Path) -> None:
    voc = Voc(tiny_voc)
    for split, label in (("train", 3), ("test", 5), ("test", 6)):
        for path in voc.mask_paths(split):
            labels = read_mask(path)
            save_mask(np.where(labels == label, 0, labels).astype(np.uint8), path)
    assert warned(tiny_voc) == [
        (Kind.NO_TRAINING_IMAGE, f"{tiny_voc}: 1 of the 20 classes: 3 bird"),
        (Kind.NO_TEST_IMAGE, f"{tiny_voc}: 2 of the 20 classes: 5 bottle, 6 bus"),
    ]
    assert load_scenario("voc-15-1-disjoint", tiny_voc).remarks()[1:] == [
        "no train image shows 1 of the 20 classes: 3 bird",
        "no test image shows 2 of the 20 classes: 5 bottle, 6 bus",
    ]


def test_orientations_and_wide_photographs_are_told_by_name(tiny_voc: Path) -> None:
    (width, height), (width_8, height_8) = (Image.open(label_map(tiny_voc, i)).size for i in (7, 8))
    Image.fromarray(np.full((height, width), 40000, np.uint16)).save(photograph(tiny_voc, 7), "PNG")
    Image.new("L", (height_8, width_8)).save(photograph(tiny_voc, 8))
    oriented(photograph(tiny_voc, 8), 6)
    oriented(photograph(tiny_voc, 9), 8)
    assert warned(tiny_voc) == [
        (Kind.ORIENTED, f"{photograph(tiny_voc, 8)}: orientation 6, turned: so it has its label map's size"),
        (Kind.ORIENTED, f"{photograph(tiny_voc, 9)}: orientation 8, taken as stored: so it has its label map's size"),
        (Kind.WIDE, str(photograph(tiny_voc, 7))),
    ]


# --------------------------------------------------------------------------------- roots whose lists follow from files


def sbd_layout(root: Path) -> None:
    """Turn a root into VOC's own label maps of every second training image and of the test images, and SBD's of all."""
    (root / "sbd" / "cls").mkdir(parents=True)
    own = set(list_of(root, "train").read_text().split()) | set(list_of(root, "val").read_text().split())
    for path in label_map(root, 0).parent.iterdir():
        content = {"GTcls": {"Segmentation": np.asarray(Image.open(path)) % 255}}
        savemat(root / "sbd" / "cls" / f"{path.stem}.mat", content, do_compression=True)
    for path in list(label_map(root, 0).parent.iterdir()):
        if path.stem not in own:
            path.unlink()
    label_map(root, 0).parent.rename(devkit(root) / "SegmentationClass")
    list_of(root, "trainaug").unlink()


def test_the_sbd_layout_is_read_as_training_reads_it(tiny_voc: Path) -> None:
    sbd_layout(tiny_voc)
    report = check("voc", tiny_voc)
    assert not report.faults
    assert [counts.listed for counts in report.splits.values()] == [120, 40]
    use("voc-15-1-disjoint", tiny_voc)
    broken, absent = tiny_voc / "sbd" / "cls" / "2007_000001.mat", photograph(tiny_voc, 3)
    truncate(broken)
    absent.unlink()
    assert found(check("voc", tiny_voc)) == [(Kind.MISSING_PHOTOGRAPH, absent), (Kind.DAMAGED_LABEL_MAP, broken)]


@pytest.mark.parametrize("name", ["val", "train"])
def test_a_faulty_list_does_not_hide_what_follows_from_it(tiny_voc: Path, name: str) -> None:
    sbd_layout(tiny_voc)
    append(list_of(tiny_voc, name), list_of(tiny_voc, name).read_text().split()[0])
    photograph(tiny_voc, 5).unlink()
    assert found(check("voc", tiny_voc)) == [
        (Kind.ID_TWICE, list_of(tiny_voc, name)),
        (Kind.MISSING_PHOTOGRAPH, photograph(tiny_voc, 5)),
    ]


def test_a_split_without_any_file(tiny_voc: Path) -> None:
    sbd_layout(tiny_voc)
    list_of(tiny_voc, "train").write_text("2007_000130\n")
    for i in range(120):
        (tiny_voc / "sbd" / "cls" / f"2007_{i:06d}.mat").unlink()
    assert [fault.kind for fault in check("voc", tiny_voc).faults] == [Kind.EMPTY_SPLIT]
    with pytest.raises(DataError, match="no label map"):
        load_scenario("voc-15-1-disjoint", tiny_voc)


# ---------------------------------------------------------------------------------------------------------- ADE20K


@pytest.fixture
def ade_root(tmp_path: Path) -> Path:
    """A data root with ADE20K's three sample images: two for training, one for validation."""
    if not SAMPLE.is_dir():
        pytest.skip(f"ADE20K's sample images are not at {SAMPLE}")
    top = tmp_path / "ade" / "ADEChallengeData2016"
    for i, split in ((1, "training"), (2, "training"), (3, "validation")):
        for kind, extension in (("images", "jpg"), ("annotations", "png")):
            (top / kind / split).mkdir(parents=True, exist_ok=True)
            shutil.copy(SAMPLE / kind / f"ADE_val_{i:08d}.{extension}", top / kind / split)
    return tmp_path / "ade"


def ade_file(root: Path, kind: str, split: str, number: int) -> Path:
    extension = "jpg" if kind == "images" else "png"
    return root / "ADEChallengeData2016" / kind / split / f"ADE_val_{number:08d}.{extension}"


def test_real_ade_images_are_sound(ade_root: Path, command: Command) -> None:
    status, lines = command("ade", "--data-root", ade_root)
    assert status == 0
    assert lines[-1] == "sound, 2 warnings: 2 training and 1 test images"
    assert [w.kind for w in check("ade", ade_root).warnings] == [Kind.NO_TRAINING_IMAGE, Kind.NO_TEST_IMAGE]
    assert "note: the train split has 2 images, published are 20210" in lines
    ade = Ade20k(ade_root)
    assert [[ade.read(split, i)[0].ndim for i in range(len(ade.ids(split)))] for split in SPLITS] == [[3, 3], [3]]


def test_ade_sizes_follow_the_dense_rule(ade_root: Path) -> None:
    sizes = {sizes.scenario: sizes for sizes in check("ade", ade_root).sizes}
    assert {name: sum(s.computed) for name, s in sizes.items()} == dict.fromkeys(sizes, 2)


def test_ade_faults_are_named(ade_root: Path) -> None:
    missing, foreign = ade_file(ade_root, "images", "training", 1), ade_file(ade_root, "annotations", "training", 2)
    missing.unlink()
    labels = np.asarray(Image.open(foreign)).copy()
    labels[0, 0] = 151
    Image.fromarray(labels).save(foreign)
    cut = ade_file(ade_root, "images", "validation", 3)
    truncate(cut)
    assert [(f.kind, f.path) for f in check("ade", ade_root).faults] == [
        (Kind.MISSING_PHOTOGRAPH, missing),
        (Kind.DAMAGED_PHOTOGRAPH, cut),
        (Kind.FOREIGN_LABELS, foreign),
    ]


# ----------------------------------------------------------------------------------------------- a user's own folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Thirty images of three classes, the last six of them test images."""
    root = tmp_path / "own"
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for i in range(30):
        labels = np.full((12, 10), i % 3 + 1, np.uint8)
        Image.fromarray(labels).save(root / "masks" / f"im{i:02d}.png")
        Image.new("RGB", (10, 12)).save(root / "images" / f"im{i:02d}.{'bmp' if i % 2 else 'jpg'}")
    (root / "train.txt").write_text("".join(f"im{i:02d}\n" for i in range(24)))
    (root / "val.txt").write_text("".join(f"im{i:02d}\n" for i in range(24, 30)))
    (root / "classes.txt").write_text("cup\nsaucer\n[bold]spoon\n")
    return root


def test_a_sound_folder(own: Path, command: Command) -> None:
    status, lines = command("folder", "--data-root", own)
    assert status == 0
    assert lines[-1] == "sound: 24 training and 6 test images"
    assert any(line.split() == ["3", "[bold]spoon", "8", "2", "33.33"] for line in lines)
    use("folder-2-1-disjoint", own)


@pytest.mark.parametrize(
    ("damage", "kind", "told"),
    [
        (lambda own: (own / "images" / "im05.png").write_bytes(b""), Kind.SEVERAL_PHOTOGRAPHS, "im05.png"),
        (lambda own: (own / "images" / "im05.bmp").unlink(), Kind.MISSING_PHOTOGRAPH, "im05.*"),
        (lambda own: (own / "val.txt").unlink(), Kind.MISSING_LIST, "val.txt"),
        (lambda own: (own / "classes.txt").unlink(), Kind.CLASS_NAMES, "No such file"),
        (lambda own: (own / "classes.txt").write_bytes(b"\xff\xfe\x00"), Kind.CLASS_NAMES, "not text"),
        (lambda own: append(own / "classes.txt", "cup"), Kind.CLASS_NAMES, "'cup' more than once"),
        (lambda own: (own / "classes.txt").write_text(""), Kind.CLASS_NAMES, "names 0 classes"),
    ],
)
def test_a_fault_of_a_folder_is_told_once_and_training_refuses_it(
    own: Path, damage: Damage, kind: Kind, told: str
) -> None:
    damage(own)
    faults = check("folder", own).faults
    assert [fault.kind for fault in faults] == [kind]
    assert told in str(faults[0])
    assert str(faults[0]).count(str(faults[0].path)) == 1
    with pytest.raises(DataError):
        use("folder-2-1-disjoint", own)


def test_faults_of_the_class_names_hide_nothing(own: Path) -> None:
    (own / "classes.txt").write_text("background\ncup\nsaucer\ncup\nspoon\nsaucer\n")
    (own / "images" / "im05.bmp").unlink()
    kinds = [fault.kind for fault in check("folder", own).faults]
    assert kinds == [Kind.CLASS_NAMES, Kind.CLASS_NAMES, Kind.MISSING_PHOTOGRAPH]


def test_a_folder_without_lists_is_split_as_training_splits_it(own: Path) -> None:
    for name in ("train.txt", "val.txt"):
        (own / name).unlink()
    report = check("folder", own)
    assert not report.faults
    assert {s: n.listed for s, n in report.splits.items()} == {
        s: len(open_image_set("folder", own).ids(s)) for s in SPLITS
    }


# ------------------------------------------------------------------------------------------------- refused requests


@pytest.mark.parametrize(
    ("name", "rest", "named"),
    [
        ("voc", ["--data-root", "empty"], "VOCdevkit"),
        ("ade", ["--data-root", "empty"], "ADEChallengeData2016"),
        ("folder", ["--data-root", "empty"], "images"),
        ("voc", ["--data-root", "nowhere"], "nowhere"),
        ("voc", [], "--data-root"),
        ("vok", ["--data-root", "empty"], "did you mean voc"),
        ("shapes", ["--data-root", "empty"], "generated"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_in_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, rest: list[str], named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    status, lines = command(name, *rest)
    assert status == 2
    assert len(lines) == 1 and named in lines[0]


def test_a_fault_is_one_line_whatever_the_file_is_called() -> None:
    line = str(Fault(Kind.MISSING_PHOTOGRAPH, Path("a\nb\udcff\x1b[31mé.jpg")))
    assert line == "a\\nb\\udcff\\x1b[31mé.jpg"
