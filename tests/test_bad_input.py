"""Wrong requests: exit status 2, one line that names what is wrong, and nothing written under --out."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from voc_root import save_mask

from bench.cli.entry import main

SHAPES = "shapes-15-1-disjoint"
VOC = "voc-15-1-disjoint"
SMALL = ["--preset", "small", "--set", "data.size=32", "--set", "base.epochs=1"]

Refuse = Callable[..., str]


@pytest.fixture
def refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Make a command that must be refused, and return the one line it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.launch.pool.run_jobs", lambda *_: pytest.fail("the request was accepted and work began"))

    def refused(*arguments: object) -> str:
        before = {p.name for p in tmp_path.iterdir()}
        with pytest.raises(SystemExit) as exit_:
            main([str(a) for a in arguments])
        said = capsys.readouterr()
        assert exit_.value.code == 2, said
        assert said.err.startswith("bench")
        assert said.err.count("\n") == 1, said.err
        assert said.err.endswith("\n")
        assert "Traceback" not in said.out + said.err
        assert {p.name for p in tmp_path.iterdir()} == before, "something was written"
        return said.err

    return refused


@pytest.fixture
def run(refuse: Refuse) -> Refuse:
    """`bench run` on the embedded data set, wrong in the given arguments; what comes later wins."""

    def command(*arguments: object) -> str:
        return refuse("run", "--strategies", "finetune", "--scenario", SHAPES, "--jobs", 1, "--out", "out", *arguments)

    return command


@pytest.fixture
def run_voc(run: Refuse, tiny_voc: Path) -> Refuse:
    """`bench run` on the tiny VOC root."""

    def command(*arguments: object) -> str:
        return run("--scenario", VOC, "--data-root", tiny_voc, *SMALL, *arguments)

    return command


def devkit(root: Path) -> Path:
    return root / "VOCdevkit" / "VOC2012"


def mask_of(root: Path, number: int) -> Path:
    return devkit(root) / "SegmentationClassAug" / f"2007_{number:06d}.png"


def photograph_of(root: Path, number: int) -> Path:
    return devkit(root) / "JPEGImages" / f"2007_{number:06d}.jpg"


# ------------------------------------------------------------------------------------------- names and settings


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        # strategies
        (["--strategies", "our"], ["'our'", "did you mean ours"]),
        (["--strategies", "finetune,nothing-like-it-xyz"], ["nothing-like-it-xyz", "known:"]),
        (["--strategies", ""], ["--strategies", "empty"]),
        (["--strategies", ","], ["--strategies", "empty"]),
        (["--strategies", "er,er"], ["er", "more than once"]),
        (["--strategies", "ours(eta=1,mu=0.9),ours(mu=0.9,eta=1)"], ["more than once"]),
        (["--strategies", "ours("], ["ours("]),
        (["--strategies", "ours)"], ["ours)"]),
        (["--strategies", "ours(eta=1"], ["ours(eta=1"]),
        (["--strategies", "er ours"], ["er ours"]),
        (["--strategies", "(eta=1)"], ["(eta=1)"]),
        (["--strategies", "ours(eta)"], ["eta", "key=value"]),
        (["--strategies", "ours(foo=1)"], ["foo", "strategies.ours"]),
        (["--strategies", "ours(dleta=0.5)"], ["dleta", "did you mean delta"]),
        (["--strategies", "ours(delta=2)"], ["delta", "2"]),
        (["--strategies", "ours(delta=high)"], ["delta", "high"]),
        (["--strategies", "ours(delta=.nan)"], ["delta", "nan"]),
        (["--strategies", "ours(delta=0.5,delta=0.6)"], ["delta"]),
        (["--strategies", "finetune(eta=1)"], ["eta", "finetune"]),
        # scenario
        (["--scenario", "shapes-15-1-disjont"], ["shapes-15-1-disjont", "did you mean shapes-15-1-disjoint"]),
        (["--scenario", "shapes-15-2-disjoint"], ["shapes-15-2-disjoint", "20 classes"]),
        (["--scenario", "../../etc"], ["../../etc"]),
        (["--scenario", ""], ["scenario"]),
        # settings
        (["--preset", "smal"], ["smal", "did you mean small"]),
        (["--preset", "../presets/small"], ["../presets/small"]),
        (["--set", "incremental.batchsize=2"], ["incremental.batchsize", "did you mean batch_size"]),
        (["--set", "incremental.batch_size=-1"], ["incremental.batch_size", "-1"]),
        (["--set", "incremental.batch_size=0"], ["incremental.batch_size", "0"]),
        (["--set", "incremental.lr=.nan"], ["incremental.lr", "nan"]),
        (["--set", "incremental.lr=.inf"], ["incremental.lr", "inf"]),
        (["--set", "incremental.lr=fast"], ["incremental.lr", "fast"]),
        (["--set", "base.epochs=2.5"], ["base.epochs", "2.5"]),
        (["--set", "base.epochs=true"], ["base.epochs"]),
        (["--set", "base.epochs="], ["base.epochs"]),
        (["--set", "base.optimizer=adam"], ["base.optimizer", "adam"]),
        (["--set", "base=3"], ["base=3"]),
        (["--set", "foo"], ["foo", "key=value"]),
        (["--set", "foo=1"], ["foo"]),
        (["--set", "=1"], ["=1"]),
        (["--set", "base.=1"], ["base"]),
        (["--set", "base.epochs=[1"], ["base.epochs"]),
        (["--set", "base.epochs=!!python/object/apply:os.system ['touch pwned']"], ["base.epochs"]),
        (["--set", "data.size=8"], ["data.size", "8"]),
        (["--set", "data.scale=[2,1]"], ["data.scale"]),
        (["--set", "data.scale=[0.5,2]"], ["data.scale", "data.crop"]),
        (["--set", "data.area=[1,0.5]"], ["data.area", "above"]),
        (["--set", "data.aspect=[0,1]"], ["data.aspect", "0"]),
        (["--set", "data.area=[0.2,1]"], ["data.area=[0.2, 1.0]", "scale_crop", "[0.5, 2.0]"]),
        (["--set", "data.augmentation=resized_crop,data.padding=around"], ["data.padding", "resized_crop"]),
        (["--set", "data.augmentation=resized_crop,data.fill=background"], ["data.fill=", "leave it at void"]),
        (["--set", "data.augmentation=resized_crop,data.scale=[1,2],data.crop=32"], ["data.scale=[1.0, 2.0]"]),
        (["--set", "data.augmentation=resized_crop,data.size=null,evaluation.batch_size=1"], ["data.crop"]),
        (["--set", "data.void=negative"], ["data.void=negative", "finetune", "those of dkd, dkd-m do"]),
        (["--set", "data.size=null"], ["null"]),
        (["--set", "data.size=null,data.crop=32,data.jpeg_draft=true"], ["data.jpeg_draft", "data.size"]),
        (["--set", "evaluation.stream=valid"], ["valid_fraction"]),
        (["--set", "evaluation.valid_fraction=1"], ["valid_fraction", "1"]),
        (["--set", "strategies.our.eta=1"], ["our"]),
        (["--set", "strategies.finetune.eta=1"], ["eta", "finetune"]),
        (["--set", "strategies.finetune=3"], ["strategies.finetune"]),
        (["--set", "strategies=null"], ["strategies"]),
        (["--memory", "0"], ["memory", "0"]),
        (["--memory", "-3"], ["memory", "-3"]),
        (["--memory", "many"], ["memory", "many"]),
        # seeds, jobs, device
        (["--seeds", "x"], ["--seeds", "x"]),
        (["--seeds", "-1"], ["seeds", "-1"]),
        (["--seeds", "0,0"], ["seeds", "0, 0"]),
        (["--seeds", ""], ["seeds"]),
        (["--seeds", "0.5"], ["--seeds", "0.5"]),
        (["--jobs", "0"], ["--jobs", "0"]),
        (["--jobs", "-1"], ["--jobs", "-1"]),
        (["--jobs", "two"], ["--jobs", "two"]),
        (["--device", "foo"], ["--device", "foo"]),
        (["--device", ""], ["--device"]),
        (["--device", "cpu:7x"], ["--device"]),
        (["--device", "mps"], ["--device", "mps"]),
        (["--unknown"], ["--unknown"]),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) and value[0].startswith("--") else "",
)
def test_wrong_argument_is_named(run: Refuse, arguments: list[str], named: list[str]) -> None:
    said = run(*arguments)
    for word in named:
        assert word in said


def test_a_python_tag_in_an_argument_is_never_executed(run: Refuse, tmp_path: Path) -> None:
    run("--strategies", "ours(eta=!!python/object/apply:os.system [touch pwned])")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there(run: Refuse, device: str) -> None:
    said = run("--device", device)
    assert f"--device {device}" in said
    assert "no GPU" in said


@pytest.mark.parametrize("missing", ["--strategies", "--scenario"])
def test_a_missing_argument_is_named(refuse: Refuse, missing: str) -> None:
    given = {"--strategies": "er", "--scenario": SHAPES}
    assert missing in refuse("run", *(part for flag in given if flag != missing for part in (flag, given[flag])))


def test_no_command_and_an_unknown_one(refuse: Refuse) -> None:
    refuse()
    assert "fly" in refuse("fly")


@pytest.mark.parametrize(
    "arguments",
    [
        ["scenario"],
        ["scenario", "voc-15-1"],
        ["scenario", VOC],
        ["tables", "nonsense"],
        ["tables", "--format", "docx"],
        ["tables", "--format", ""],
        ["curves", "nonsense"],
        ["curves", "--format", "docx"],
    ],
    ids=" ".join,
)
def test_other_commands_refuse_in_one_line(refuse: Refuse, arguments: list[str]) -> None:
    refuse(*arguments)


def test_a_kind_of_table_or_figure_is_guessed(refuse: Refuse) -> None:
    assert "unknown 'class'; did you mean classes?" in refuse("curves", "class")
    assert "unknown 'measure'; did you mean measures?" in refuse("tables", "shapes-15-1-disjoint", "measure")


# --------------------------------------------------------------------------------------------- the settings file


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"base: [1", "not plain YAML"),
        (b"base: {epochs: 1\n  lr: :", "not plain YAML"),
        (b"- base\n", "mapping"),
        (b"just words", "mapping"),
        (b"base: 3\n", "base=3"),
        (b"bose: {epochs: 3}\n", "or base.epochs?"),
        (b"1: 2\n", "1"),
        (b"null: 2\n", "unknown setting"),
        (b"base: {epochs: many}\n", "base.epochs"),
        (b"base: null\n", "base"),
        (b"base: {1: 2}\n", "base.1"),
        (b"base: !!python/object/apply:os.system ['touch pwned']\n", "not plain YAML"),
        (b"!!python/object/apply:os.system ['touch pwned']\n", "not plain YAML"),
        (b"\xff\xfe\x00\x01binary", "settings.yaml"),
        (b"\x89PNG\r\n\x1a\n\x00", "settings.yaml"),
        (b"base: {epochs: 1}\n---\nbase: {epochs: 2}\n", "settings.yaml"),
        (b"a: &a [*a]\n", "a.0 stands within itself"),
    ],
)
def test_a_wrong_settings_file_is_named(run: Refuse, tmp_path: Path, content: bytes, named: str) -> None:
    (tmp_path / "settings.yaml").write_bytes(content)
    assert named in run("--config", "settings.yaml")
    assert not (tmp_path / "pwned").exists()


def test_a_settings_file_that_is_not_there(run: Refuse, tmp_path: Path) -> None:
    assert "nowhere.yaml" in run("--config", "nowhere.yaml")
    (tmp_path / "folder").mkdir()
    assert "folder" in run("--config", "folder")


# ----------------------------------------------------------------------------------------------- the data root


def test_no_data_root(run: Refuse) -> None:
    assert "--data-root" in run("--scenario", VOC)


def test_a_data_root_that_is_not_there(run: Refuse, tmp_path: Path) -> None:
    assert "nowhere" in run("--scenario", VOC, "--data-root", tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert "file" in run("--scenario", VOC, "--data-root", tmp_path / "file")


def test_a_data_root_without_vocdevkit(run: Refuse, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = run("--scenario", VOC, "--data-root", tmp_path / "empty")
    assert str(tmp_path / "empty" / "VOCdevkit") in said


def test_the_devkit_itself_is_no_data_root(run_voc: Refuse, tiny_voc: Path) -> None:
    assert "parent of VOCdevkit" in run_voc("--data-root", tiny_voc / "VOCdevkit")


def test_without_segmentationclassaug(run_voc: Refuse, tiny_voc: Path) -> None:
    (devkit(tiny_voc) / "SegmentationClassAug").rename(devkit(tiny_voc) / "Elsewhere")
    assert "SegmentationClassAug" in run_voc()


def test_an_empty_segmentationclassaug(run_voc: Refuse, tiny_voc: Path) -> None:
    (devkit(tiny_voc) / "SegmentationClassAug").rename(devkit(tiny_voc) / "Elsewhere")
    (devkit(tiny_voc) / "SegmentationClassAug").mkdir()
    assert "SegmentationClassAug" in run_voc()
    (devkit(tiny_voc) / "ImageSets" / "Segmentation" / "trainaug.txt").unlink()
    assert "SegmentationClassAug" in run_voc()


@pytest.mark.parametrize("size", ["32", "null"])
def test_without_jpegimages_a_run_is_refused_but_a_scenario_is_shown(
    run_voc: Refuse, tiny_voc: Path, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    (devkit(tiny_voc) / "JPEGImages").rename(devkit(tiny_voc) / "Elsewhere")
    native = ["--set", "data.crop=32", "--set", "evaluation.batch_size=1"] if size == "null" else []
    assert str(devkit(tiny_voc) / "JPEGImages") in run_voc("--set", f"data.size={size}", *native)
    with pytest.raises(SystemExit) as exit_:
        main(["scenario", VOC, "--data-root", str(tiny_voc)])
    assert exit_.value.code == 0
    assert "step 5" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["val", "trainaug"])
@pytest.mark.parametrize("content", [b"", b"\n  \n"])
def test_an_empty_list(run_voc: Refuse, tiny_voc: Path, name: str, content: bytes) -> None:
    path = devkit(tiny_voc) / "ImageSets" / "Segmentation" / f"{name}.txt"
    path.write_bytes(content)
    assert str(path) in run_voc()


def test_a_list_that_is_not_there(run_voc: Refuse, tiny_voc: Path) -> None:
    path = devkit(tiny_voc) / "ImageSets" / "Segmentation" / "val.txt"
    path.unlink()
    assert str(path) in run_voc()


def test_a_list_that_is_no_text(run_voc: Refuse, tiny_voc: Path) -> None:
    path = devkit(tiny_voc) / "ImageSets" / "Segmentation" / "trainaug.txt"
    path.write_bytes(b"\xff\xfe\x00binary\x00")
    assert str(path) in run_voc()


def test_a_path_for_an_id(run_voc: Refuse, tiny_voc: Path) -> None:
    """A line with both files of an image names its id (`test_lists.py`); one path names none."""
    path = devkit(tiny_voc) / "ImageSets" / "Segmentation" / "trainaug.txt"
    path.write_text("/JPEGImages/2007_000000.jpg\n")
    assert "JPEGImages" in run_voc()


def test_a_step_without_images(run_voc: Refuse, tiny_voc: Path) -> None:
    path = devkit(tiny_voc) / "ImageSets" / "Segmentation" / "trainaug.txt"
    path.write_text("".join(f"{i}\n" for i in path.read_text().split() if (int(i[5:]) + 1) % 20))
    said = run_voc()
    assert "step 5" in said
    assert "no training image" in said


def test_a_step_left_without_images_by_the_validation_part(run_voc: Refuse) -> None:
    said = run_voc("--set", "evaluation.valid_fraction=0.99")
    assert "valid_fraction" in said
    assert "step" in said


@pytest.mark.parametrize("looks", ["evaluation.stream=valid", "base.weights=best"])
def test_a_validation_part_without_images(looks: str, run_voc: Refuse) -> None:
    said = run_voc("--set", f"{looks},evaluation.valid_fraction=0.001")
    assert f"valid_fraction=0.001 holds out no image with a class known after step 0; {looks} needs one" in said


# --------------------------------------------------------------------------------------------- files of the data


def test_a_missing_mask(run_voc: Refuse, tiny_voc: Path) -> None:
    mask_of(tiny_voc, 7).unlink()
    assert str(mask_of(tiny_voc, 7)) in run_voc()


@pytest.mark.parametrize("number", [7, 130])
def test_a_missing_photograph(run_voc: Refuse, tiny_voc: Path, number: int) -> None:
    photograph_of(tiny_voc, number).unlink()
    assert str(photograph_of(tiny_voc, number)) in run_voc()


@pytest.mark.parametrize("number", [7, 130])
def test_a_mask_of_another_size_than_its_image(run_voc: Refuse, tiny_voc: Path, number: int) -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[5:15, 5:15] = 1
    save_mask(mask, mask_of(tiny_voc, number))
    said = run_voc()
    assert "20 x 20" in said
    assert str(mask_of(tiny_voc, number)) in said


@pytest.mark.parametrize("number", [7, 130])
@pytest.mark.parametrize("label", [21, 254])
def test_a_label_that_is_no_class(run_voc: Refuse, tiny_voc: Path, number: int, label: int) -> None:
    mask = np.asarray(Image.open(mask_of(tiny_voc, number))).copy()
    mask[0, 0] = label
    save_mask(mask, mask_of(tiny_voc, number))
    said = run_voc()
    assert f"label {label}" in said
    assert f"2007_{number:06d}" in said


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_a_mask_that_holds_no_indices(run_voc: Refuse, tiny_voc: Path, mode: str) -> None:
    path = mask_of(tiny_voc, 7)
    Image.open(path).convert(mode).save(path)
    assert str(path) in run_voc()


def test_a_grey_mask_is_as_good_as_one_with_a_palette(tiny_voc: Path) -> None:
    from benchmarks.scenarios import load_scenario

    before = load_scenario(VOC, tiny_voc).split_hash
    for path in (devkit(tiny_voc) / "SegmentationClassAug").iterdir():
        Image.fromarray(np.asarray(Image.open(path))).save(path)
    assert load_scenario(VOC, tiny_voc).split_hash == before


@pytest.mark.parametrize("share", [0.95, 0.5, 0.0])
def test_a_truncated_mask(run_voc: Refuse, tiny_voc: Path, share: float) -> None:
    truncate(mask_of(tiny_voc, 7), share)
    assert str(mask_of(tiny_voc, 7)) in run_voc()


@pytest.mark.parametrize("number", [7, 130])
@pytest.mark.parametrize("share", [0.95, 0.5, 0.1, 0.0])
def test_a_truncated_photograph(run_voc: Refuse, tiny_voc: Path, number: int, share: float) -> None:
    truncate(photograph_of(tiny_voc, number), share)
    assert str(photograph_of(tiny_voc, number)) in run_voc()


def truncate(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize("kind", ["photograph", "mask"])
def test_a_file_that_is_no_image(run_voc: Refuse, tiny_voc: Path, kind: str) -> None:
    path = photograph_of(tiny_voc, 7) if kind == "photograph" else mask_of(tiny_voc, 7)
    path.write_text("<html>404 Not Found</html>")
    assert str(path) in run_voc()


@pytest.mark.parametrize("kind", ["photograph", "mask"])
def test_a_folder_where_a_file_should_be(run_voc: Refuse, tiny_voc: Path, kind: str) -> None:
    path = photograph_of(tiny_voc, 7) if kind == "photograph" else mask_of(tiny_voc, 7)
    path.unlink()
    path.mkdir()
    assert str(path) in run_voc()


def test_a_damaged_byte_in_a_mask(run_voc: Refuse, tiny_voc: Path) -> None:
    path = mask_of(tiny_voc, 7)
    content = bytearray(path.read_bytes())
    at = content.index(b"IDAT") + 12
    content[at] ^= 0xFF
    path.write_bytes(bytes(content))
    assert str(path) in run_voc()


def test_an_sbd_file_that_is_no_mat_file(run_voc: Refuse, tiny_voc: Path) -> None:
    cls = tiny_voc / "sbd" / "cls"
    cls.mkdir(parents=True)
    (devkit(tiny_voc) / "SegmentationClassAug").rename(devkit(tiny_voc) / "SegmentationClass")
    own = devkit(tiny_voc) / "SegmentationClass" / "2007_000001.png"
    own.unlink()
    for content in (b"", b"<html>404</html>", b"MATLAB 5.0 MAT-file" + bytes(200)):
        (cls / "2007_000001.mat").write_bytes(content)
        assert str(cls / "2007_000001.mat") in run_voc()


def test_an_sbd_file_without_segmentation(run_voc: Refuse, tiny_voc: Path) -> None:
    from scipy.io import savemat

    cls = tiny_voc / "sbd" / "cls"
    cls.mkdir(parents=True)
    (devkit(tiny_voc) / "SegmentationClassAug").rename(devkit(tiny_voc) / "SegmentationClass")
    (devkit(tiny_voc) / "SegmentationClass" / "2007_000001.png").unlink()
    path = cls / "2007_000001.mat"
    wrong = [{"other": 1}, {"GTcls": {"other": 1}}, {"GTcls": 3}, {"GTcls": {"Segmentation": "text"}}]
    for content in wrong:
        savemat(path, content)
        assert str(path) in run_voc()


# --------------------------------------------------------------------------------------------------------- --out


@pytest.mark.parametrize("out", ["file/below", "file"])
def test_an_out_below_a_file(run: Refuse, tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("precious")
    assert out in run("--out", out)
    assert (tmp_path / "file").read_text() == "precious"


def test_an_out_that_is_a_link_to_nowhere(run: Refuse, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert f"--out link: it is a link to {tmp_path / 'gone'}, which is not there" in run("--out", "link")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc here")
def test_an_out_that_cannot_be_written_to(run: Refuse) -> None:
    assert "/proc/x" in run("--out", "/proc/x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_out(run: Refuse, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "locked" in run("--out", "locked/runs")


@pytest.mark.parametrize("command", ["tables", "curves"])
def test_tables_and_curves_below_a_file(refuse: Refuse, tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("precious")
    assert "file" in refuse(command, "--out", "file/below")


@pytest.mark.parametrize("cache", ["file/below", "/proc/x"])
def test_a_cache_that_cannot_be_written_to(
    run: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / cache))
    assert cache in run()


# -------------------------------------------------------------------------------------------- as a real process


def test_the_process_ends_with_status_2_and_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "run", "--strategies", "our", "--scenario", SHAPES, "--out", "out"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("bench: unknown strategy 'our'; did you mean ours?")
    assert ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
