"""`folder`: a user's own images, in any format, with palette, 8 and 16 bit masks; and what is refused."""

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.cli.entry import main
from benchmarks.errors import DataError
from benchmarks.files import read_mask
from benchmarks.obtain.checking import check
from benchmarks.obtain.faults import Kind
from benchmarks.scenarios import load_scenario
from benchmarks.sets.folder import Folder
from benchmarks.streams import load_benchmark

CLASSES = 11
NAMES = [f"thing {c}" for c in range(1, CLASSES + 1)]
VOID = 255
FORMATS = ("jpg", "png", "bmp", "tif", "webp")


def make_folder(root: Path, images: int = 66, lists: bool = True, side: int = 24) -> Path:
    """Image i shows class 1 + i % 11 in a quarter of its pixels, in formats that take turns; a sixth of them test."""
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    rng = np.random.default_rng(0)
    for i in range(images):
        mask = np.zeros((side, side + i % 3), dtype=np.uint8)
        mask[: side // 2, : side // 2] = 1 + i % CLASSES
        mask[0] = VOID
        image = rng.integers(0, 255, (*mask.shape, 3)).astype(np.uint8)
        Image.fromarray(image).save(root / "images" / f"im{i:03d}.{FORMATS[i % len(FORMATS)]}")
        save_mask(mask, root / "masks" / f"im{i:03d}.png", i)
    if lists:
        for name, chosen in (("train", lambda i: i // CLASSES % 6), ("val", lambda i: not i // CLASSES % 6)):
            (root / f"{name}.txt").write_text("".join(f"im{i:03d}\n" for i in range(images) if chosen(i)))
    return root


def save_mask(mask: np.ndarray, path: Path, i: int) -> None:
    """As a palette image, in 8 bit or in 16 bit with void as 65535, taking turns."""
    if i % 3 == 0:
        palette = Image.fromarray(mask)
        palette.putpalette(list(range(256)) * 3)
        palette.save(path)
    elif i % 3 == 1:
        Image.fromarray(mask).save(path)
    else:
        Image.fromarray(np.where(mask == VOID, 65535, mask).astype(np.uint16)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "mine")


def test_masks_of_every_kind_hold_the_same_labels(root: Path) -> None:
    modes = set()
    for i in range(6):
        path = root / "masks" / f"im{i:03d}.png"
        modes.add(Image.open(path).mode)
        mask = read_mask(path)
        assert mask.dtype == np.uint8
        assert set(np.unique(mask).tolist()) == {0, 1 + i % CLASSES, VOID}
    assert {"P", "L"} < modes and len(modes) == 3


def test_scenario_has_the_users_classes_and_images(root: Path) -> None:
    benchmark = load_benchmark("folder-6-5-disjoint", root)
    assert benchmark.class_names == ["background", *NAMES]
    assert [e.classes_in_this_experience for e in benchmark.train_stream] == [[*range(1, 7)], [*range(7, 12)]]
    assert [len(e.data) for e in benchmark.train_stream] == [30, 25]
    assert [len(e.data) for e in benchmark.test_stream] == [6, 11]
    image, labels = benchmark.train_stream[1].data.annotated(0)
    assert image.shape[1:] == labels.shape
    assert set(labels.unique().tolist()) == {0, 7, VOID}


def test_first_line_background_names_label_0(root: Path) -> None:
    (root / "classes.txt").write_text("\n".join(["Background", *NAMES, ""]))
    assert Folder(root).class_names == ("background", *NAMES)


def test_without_lists_a_fifth_of_the_images_test_and_stay_test_images(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "mine", images=200, lists=False)
    train, test = Folder(root).ids("train"), Folder(root).ids("test")
    assert not set(train) & set(test)
    assert sorted([*train, *test]) == [f"im{i:03d}" for i in range(200)]
    assert 20 <= len(test) <= 60
    (root / "masks" / "im000.png").rename(root / "masks" / "other.png")
    assert set(Folder(root).ids("test")) - {"other"} == set(test) - {"im000"}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda root: (root / "classes.txt").unlink(), "classes.txt"),
        (lambda root: (root / "classes.txt").write_text(""), "names 0 classes; 2 to 254 are allowed"),
        (lambda root: (root / "classes.txt").write_text("a\nb\na\n"), "'a' more than once"),
        (lambda root: (root / "classes.txt").write_bytes(b"\xff\xfe\x00"), "is not text in UTF-8"),
        (lambda root: (root / "classes.txt").write_text("a\n\nb\n\n"), "has an empty line where class 2 stands"),
        (lambda root: (root / "classes.txt").write_text("background\n\na\nb\n"), "an empty line where class 1 stands"),
        (lambda root: (root / "images").rename(root / "photos"), "no folder"),
        (lambda root: (root / "val.txt").unlink(), "give both lists or neither"),
        (lambda root: (root / "val.txt").write_text("im000\nim000\n"), "names im000 more than once"),
        (lambda root: (root / "val.txt").write_text("nobody\n"), "no label map at"),
        (lambda root: (root / "images" / "im001.gif").write_bytes(b"GIF"), "have one id"),
        (lambda root: next((root / "images").glob("im001.*")).unlink(), r"im001\.\*"),
        (lambda root: colours(root / "masks" / "im001.png"), "holds colours .*class indices"),
        (lambda root: wide(root / "masks" / "im001.png"), "holds label 300; a label is at most 255"),
        (
            lambda root: Image.new("L", (24, 24), 12).save(root / "masks" / "im001.png"),
            r"label 12; allowed are 0\.\.11",
        ),
        (lambda root: Image.new("L", (9, 9), 2).save(root / "masks" / "im001.png"), "both must have one size"),
    ],
)
def test_damage_is_named(root: Path, damage, said: str) -> None:
    damage(root)
    with pytest.raises(DataError, match=said) as error:
        load_benchmark("folder-6-5-disjoint", root)
    assert "\n" not in str(error.value)
    assert str(root) in str(error.value) or "im001" in str(error.value)


# ---------------------------------------------------------------------------------------------- files of any name


SIDE_FILES = {
    "images": ("._im001.jpg", "im001.json", "im002.txt", "Thumbs.db", ".DS_Store"),
    "masks": ("._im001.png", "._im002.PNG", "im001.json", "Thumbs.db", ".DS_Store"),
}


@pytest.mark.parametrize("lists", [True, False])
def test_side_files_are_passed_over_and_change_nothing(tmp_path: Path, lists: bool) -> None:
    root = make_folder(tmp_path / "mine", lists=lists)
    before = load_benchmark("folder-6-5-disjoint", root)
    for part, names in SIDE_FILES.items():
        for name in names:
            (root / part / name).write_bytes(b"\0\5\26\7Mac OS X")
    after = load_benchmark("folder-6-5-disjoint", root)
    assert [e.data.ids for e in after.train_stream] == [e.data.ids for e in before.train_stream]
    assert not check("folder", root).faults


def renamed(root: Path, name: Callable[[str], str]) -> None:
    """Rename photographs and label maps, and what the lists call them."""
    for path in root.glob("*/im*.*"):
        path.rename(path.with_name(name(path.stem) + path.suffix))
    for path in (root / "train.txt", root / "val.txt"):
        path.write_text("".join(f"{name(line)}\n" for line in path.read_text().splitlines()))


def test_ids_may_hold_blanks_with_lists_and_without(root: Path) -> None:
    renamed(root, lambda name: f"my photo {name}")
    listed = Folder(root).ids("train"), Folder(root).ids("test")
    assert listed[0][0] == "my photo im011" and [len(ids) for ids in listed] == [55, 11]
    load_benchmark("folder-6-5-disjoint", root)
    assert not check("folder", root).faults
    pairs = "".join(f"images/{i}.jpg masks/{i}.png\n" for i in listed[0])
    (root / "train.txt").write_text(pairs)
    assert Folder(root).ids("train") == listed[0]
    for name in ("train.txt", "val.txt"):
        (root / name).unlink()
    assert {*Folder(root).ids("train"), *Folder(root).ids("test")} == {*listed[0], *listed[1]}


def test_a_mark_at_the_beginning_of_a_list_is_none_of_its_first_id(root: Path) -> None:
    before = Folder(root).ids("train")
    (root / "train.txt").write_bytes(b"\xef\xbb\xbf" + (root / "train.txt").read_bytes())
    assert Folder(root).ids("train") == before
    assert not check("folder", root).faults


@pytest.mark.parametrize(("listed", "named"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_are_found_whichever_form_of_unicode_they_are_in(root: Path, listed: str, named: str) -> None:
    renamed(root, lambda name: name.replace("im", "é"))
    for path in root.glob("*/*"):
        path.rename(path.with_name(unicodedata.normalize(named, path.name)))
    for path in (root / "train.txt", root / "val.txt"):
        path.write_text(unicodedata.normalize(listed, path.read_text()))
    assert Folder(root).ids("train")[0] == "\xe9011"
    load_benchmark("folder-6-5-disjoint", root)
    assert not check("folder", root).faults


def test_a_list_of_one_class_is_told_from_a_list_of_ids(root: Path) -> None:
    ids = Folder(root).ids("train")
    (root / "train.txt").write_text("".join(f"{i} {(-1, ' 0', ' 1')[n % 3]}\n" for n, i in enumerate(ids)))
    with pytest.raises(DataError, match=r"cannot use the list .*train\.txt \(ID and -1, 0 or 1 a line.*ImageSets/Main"):
        Folder(root).ids("train")
    (root / "train.txt").write_text("scene -1\nscene 0\nscene 1\n")
    assert Folder(root).ids("train") == ("scene -1", "scene 0", "scene 1")


@pytest.mark.parametrize("lists", [True, False])
def test_a_name_that_is_not_utf_8_is_an_image_of_no_list_and_else_refused(tmp_path: Path, lists: bool) -> None:
    root = make_folder(tmp_path / "mine", lists=lists)
    shutil.copy(root / "masks" / "im001.png", root / "masks" / os.fsdecode(b"caf\xe9.png"))
    if lists:
        assert load_scenario("folder-6-5-disjoint", root).remarks()[1].endswith("masks: caf\\udce9")
        return
    with pytest.raises(DataError, match=r"the name of .*/masks/caf\\udce9\.png is not UTF-8; rename it"):
        load_scenario("folder-6-5-disjoint", root)
    assert [fault.kind for fault in check("folder", root).faults] == [Kind.FILE_NAME]


def test_a_data_root_whose_name_is_not_utf_8_or_holds_braces(root: Path) -> None:
    root = root.rename(root.with_name("a {0} {b}"))
    (root / "masks" / "im001.png").rename(root / "im001.png")
    with pytest.raises(DataError, match=r"no label map at .*/a \{0\} \{b\}/masks/im001\.png"):
        load_scenario("folder-6-5-disjoint", root)
    root = root.rename(root.with_name(os.fsdecode(b"caf\xe9")))
    with pytest.raises(DataError, match=r"the name of .*caf\\udce9 is not UTF-8"):
        load_scenario("folder-6-5-disjoint", root)


@pytest.mark.parametrize("name", ["images/im001.*", "masks/im001.png", "train.txt", "classes.txt", "masks"])
def test_a_link_to_nothing_is_told_as_one(root: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    [path] = root.glob(name)
    path.rename(root / "elsewhere")
    path.symlink_to("../.git/annex/objects/1")
    scenario = ["--scenario", "folder-6-5-disjoint", "--data-root", str(root), "--out", str(root / "runs")]
    with pytest.raises(SystemExit) as exit_:
        main(["run", "--strategies", "er", *scenario, "--jobs", "1"])
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bench: ")]
    assert exit_.value.code == 2
    assert f"{path} (a link to ../.git/annex/objects/1, which is not there: git annex get, or dvc pull" in line


def test_a_list_that_is_a_link_to_nothing_is_not_passed_over_as_missing(root: Path) -> None:
    (root / "train.txt").unlink()
    (root / "val.txt").unlink()
    (root / "train.txt").symlink_to("nowhere")
    (root / "val.txt").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"cannot read .*\.txt \(a link to nowhere"):
        load_scenario("folder-6-5-disjoint", root)


def colours(path: Path) -> None:
    Image.open(path).convert("RGB").save(path)


def wide(path: Path) -> None:
    Image.fromarray(np.full((24, 24), 300, dtype=np.uint16)).save(path)


def test_uneven_steps_name_the_number_of_classes(root: Path) -> None:
    with pytest.raises(DataError, match="folder has 11 classes"):
        load_scenario("folder-6-2-disjoint", root)


def test_dense_images_are_divided_by_the_ade_rule_when_asked(root: Path) -> None:
    for path in (root / "masks").iterdir():
        mask = read_mask(path).copy()
        mask[-1, :CLASSES] = np.arange(1, CLASSES + 1)
        Image.fromarray(mask).save(path)
    with pytest.raises(DataError, match=r"step 0 .*rule=ade"):
        load_scenario("folder-6-5-disjoint", root)
    steps = load_scenario("folder-6-5-disjoint:rule=ade", root).steps
    assert sum(len(step.train) for step in steps) == 55


def test_a_run_on_it_from_the_command_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs"
    settings = ["base.epochs=1", "base.batch_size=8", "memory.size=10", "data.size=32"]
    sets = [part for setting in settings for part in ("--set", setting)]
    request = ["--strategies", "er", "--scenario", "folder-6-5-sequential", "--data-root", str(root)]
    with pytest.raises(SystemExit) as exit_:
        main(["run", *request, "--preset", "small", "--jobs", "1", "--out", str(out), "--evaluate-on", "valid", *sets])
    assert exit_.value.code == 0, capsys.readouterr()
    [steps] = (out / "folder-6-5-sequential").rglob("steps.csv")
    spec = (steps.parent / "spec.yaml").read_text()
    assert "evaluate_on: valid" in spec and "valid_fraction: 0.1" in spec
