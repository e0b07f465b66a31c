"""Bundles: what they hold, what verifying names, and tables made from them."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from finished_runs.make import RUNS

import bench
from bench.cli.entry import main
from bench.launch.rerunning import cheapest, compared
from reports.bundle import MANIFEST, environment_here, write_bundle
from reports.counts import StepCounts
from reports.files import RecordError
from reports.forgetting import forgetting
from reports.offline_table import write_offline
from reports.records import find_runs, read_run
from reports.run_writer import RunWriter
from reports.statistics import paired
from reports.tables import frame
from reports.verifying import unpacked, verified

DOCS = Path(bench.__file__).parents[1] / "docs"

GAP = "voc-19-1-disjoint: mir (made-up-100) has no run of seed 2"
"""What is wrong with the runs of this folder, by intention."""
STEPS_CSV = "voc-15-5-disjoint/er/made-up-100-seed0/steps.csv"


def command(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "runs.zip"
    write_bundle(find_runs(RUNS), out, {"python": "3"})
    return out


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("little") / "runs.zip"
    write_bundle(find_runs(RUNS / "voc-15-5-disjoint" / "er"), out, {})
    return out


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A folder of the 24 runs of one scenario, which are sound."""
    return Path(shutil.copytree(RUNS / "voc-15-5-disjoint", tmp_path / "runs" / "voc-15-5-disjoint")).parent


def problems_of(runs: Path, tmp_path: Path) -> list[str]:
    write_bundle(find_runs(runs), tmp_path / "b.zip", {})
    with verified(tmp_path / "b.zip") as found:
        return found.problems


def altered(bundle: Path, out: Path, name: str, content: bytes | None) -> Path:
    """Return a copy of a bundle with a file changed, or without it, its manifest as before."""
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            if entry.filename != name or content is not None:
                new.writestr(entry.filename, old.read(entry) if entry.filename != name else content or b"")
    return out


def test_a_bundle_holds_all_records_of_its_runs_and_finds_what_is_missing(bundle: Path) -> None:
    runs = find_runs(RUNS)
    assert len(runs) > 90
    assert bundle.stat().st_size < 5e6
    with verified(bundle) as found:
        assert [run.spec for run in found.runs] == [run.spec for run in runs]
        assert [run.steps for run in found.runs] == [run.steps for run in runs]
        assert found.problems == [GAP]


def test_equal_runs_make_equal_bundles(few: Path, tmp_path: Path) -> None:
    for name in ("one.zip", "other.zip"):
        write_bundle(find_runs(few), tmp_path / name, {"python": "3"})
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "other.zip").read_bytes()


def test_bundles_and_folders_make_the_bundle_of_all_their_runs(few: Path, tmp_path: Path) -> None:
    runs = find_runs(few)
    for name, some in (("one.zip", runs[:3]), ("other.zip", runs[3:5])):
        write_bundle(some, tmp_path / name, {})
    shutil.copytree(runs[5].path, tmp_path / "third" / "run")
    given = [tmp_path / name for name in ("one.zip", "third", "other.zip")]
    assert command("bundle", *given, "--out", tmp_path / "all.zip") == 0
    write_bundle(runs[:6], tmp_path / "same.zip", environment_here())
    assert (tmp_path / "all.zip").read_bytes() == (tmp_path / "same.zip").read_bytes()


def test_sound_runs_verify_in_a_command(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("bundle", few, "--out", "b.zip") == 0
    assert command("verify", "b.zip") == 0
    assert "24 runs of 1 scenario," in capsys.readouterr().out
    with zipfile.ZipFile("b.zip") as archive:
        environment = json.loads(archive.read(MANIFEST))["environment"]
    assert {"python", "torch", "numpy", "continual-seg-bench"} <= environment.keys()


@pytest.mark.parametrize("file", sorted(DOCS.rglob("*.zip")), ids=lambda file: file.name)
def test_the_bundles_of_the_documentation_are_sound(file: Path) -> None:
    with verified(file) as found:
        assert found.runs and not found.problems


@pytest.mark.parametrize(
    ("name", "page", "methods"),
    [
        ("voc-5-1-overlapped", "photos.md", 9),
        ("voc-5-1-overlapped-parts", "photos.md", 6),
        ("voc-5-3-overlapped", "photos.md", 10),
        ("voc-5-1-disjoint", "photos.md", 9),
        ("voc-5-3-disjoint", "photos.md", 10),
        ("voc-5-3-overlapped-no-weights", "photos.md", 2),
        ("voc-5-3-overlapped-160", "photos.md", 4),
        ("voc-15-5-overlapped", "photos.md", 10),
        ("voc-15-1-overlapped", "photos.md", 9),
        ("folder-30-10-disjoint", "laptop-preset.md", 2),
        ("folder-1-1-overlapped", "laptop-preset.md", 1),
        ("voc-5-1-overlapped-offline", "offline-photos.md", 15),
        ("voc-5-3-overlapped-offline", "offline-photos.md", 15),
    ],
)
def test_the_tables_of_photographs_are_those_of_their_records(
    name: str, page: str, methods: int, tmp_path: Path
) -> None:
    assert command("tables", "--runs", DOCS / "photos" / f"{name}.zip", "--out", tmp_path) == 0
    (made,) = tmp_path.glob("*.csv")
    text = (DOCS / page).read_text()
    with made.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == methods
    with verified(DOCS / "photos" / f"{name}.zip") as found:
        last = forgetting(frame(found.runs)).groupby(["strategy", "seed"])["forgetting"].last().groupby("strategy")
        lost = last.agg(["mean", "std"])
    for row in rows:
        columns = [(row[f"{c}_mean"], row[f"{c}_std"]) for c in ("old", "new", "miou", "imiou", "avg")]
        columns.append(tuple(lost.loc[row["strategy"]]) if row["strategy"] in lost.index else ("", ""))
        assert f"| {row['strategy']} | {' | '.join(shown(*column) for column in columns)} |" in text


def test_the_table_of_tuning_is_that_of_its_records() -> None:
    with verified(DOCS / "tuning" / "shapes-15-1-disjoint-runs.zip") as found:
        last: dict[tuple[str, bool], dict[int, float]] = {}
        for run in found.runs:
            row = last.setdefault((run.spec["strategy"], "study" in run.spec["config"]), {})
            row[run.spec["seed"]] = float(run.steps[-1]["miou"])
    text = (DOCS / "tuning.md").read_text().replace("\N{MINUS SIGN}", "-")
    for strategy in ("ours", "mib", "er", "coriseg", "mir"):
        default, best = last[strategy, False], last[strategy, True]
        means = [shown(np.mean([*row.values()]), np.std([*row.values()], ddof=1)) for row in (default, best)]
        change = paired(best, default)
        difference = f"{change['difference']:.1f} [{change['low']:.1f}, {change['high']:.1f}]"
        assert f"| {strategy} | {' | '.join([*means, difference])} |" in text


def test_where_pixels_go_on_shapes_and_on_photographs_is_what_their_records_say() -> None:
    text = (DOCS / "photos.md").read_text()
    for data, bundle, base in (
        ("`shapes`", "tuning/shapes-15-1-disjoint-runs.zip", 16),
        ("photographs", "photos/voc-5-1-disjoint.zip", 6),
    ):
        shares: dict[str, list[list[float]]] = {}
        with verified(DOCS / bundle) as found:
            for run in found.runs:
                if "study" not in run.spec["config"]:
                    shares.setdefault(run.spec["strategy"], []).append(where_pixels_go(run.last_confusion, base))
        for strategy in ("er", "mir", "mib", "coriseg", "ours"):
            numbers = " | ".join(f"{number:.0f}" for number in np.mean(shares[strategy], axis=0))
            assert f"| {strategy}, {data} | {numbers} |" in text


def where_pixels_go(confusion: np.ndarray, base: int) -> list[float]:
    """Per cent of the pixels of new and of old classes: themselves, background, an old class, a new one, in this order;
    of old classes the last two are another old one and a new one.
    """
    whole = np.asarray(confusion, float)
    told = []
    for rows in (slice(base, None), slice(1, base)):
        of = whole[rows]
        right = np.trace(whole[rows, rows])
        old, new = of[:, 1:base].sum(), of[:, base:].sum()
        old, new = (old, new - right) if rows.start == base else (old - right, new)
        told += [100 * each / of.sum() for each in (right, of[:, 0].sum(), old, new)]
    return told


def shown(mean: str | float, std: str | float) -> str:
    """A mean over seeds with its deviation, where there is one."""
    numbers = [float(number) for number in (mean, std) if number != "" and number == number]
    return " ± ".join(f"{number:.1f}" for number in numbers) or "--"


def test_tables_of_a_bundle_are_those_of_its_folder(few: Path, tmp_path: Path) -> None:
    write_bundle(find_runs(few), tmp_path / "b.zip", {})
    for runs, out in ((few, "folder"), (tmp_path / "b.zip", "bundle")):
        assert command("tables", "--runs", runs, "--out", tmp_path / out) == 0
    written = sorted((tmp_path / "folder").iterdir())
    assert written
    for path in written:
        assert path.read_bytes() == (tmp_path / "bundle" / path.name).read_bytes()


# ---------------------------------------------------------------- what is named


def test_a_file_changed_in_the_bundle_is_named(little: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(little) as archive:
        text = archive.read(STEPS_CSV).decode()
    digit = text.rstrip()[-1]
    changed = text.rstrip()[:-1] + str((int(digit) + 1) % 10) + "\n"
    path = altered(little, tmp_path / "b.zip", STEPS_CSV, changed.encode())
    with verified(path) as found:
        told = [problem for problem in found.problems if STEPS_CSV in problem]
    assert told[0] == f"{STEPS_CSV}: changed, its SHA-256 is not that in {MANIFEST}"
    assert told[1].startswith(f"{STEPS_CSV}: old_without_background of step 1 is ")
    with pytest.raises(RecordError, match="changed, its SHA-256"), unpacked(path):
        pass


def test_a_file_left_out_or_put_in_is_named(little: Path, tmp_path: Path) -> None:
    with verified(altered(little, tmp_path / "less.zip", STEPS_CSV, None)) as found:
        assert f"{STEPS_CSV}: missing" in found.problems
    with zipfile.ZipFile(shutil.copy(little, tmp_path / "more.zip"), "a") as archive:
        archive.writestr("extra/file", b"")
    with verified(tmp_path / "more.zip") as found:
        assert f"extra/file: not in {MANIFEST}" in found.problems


def test_a_digit_changed_before_bundling_is_named(few: Path, tmp_path: Path) -> None:
    steps = few / STEPS_CSV
    header, first, last = steps.read_text().splitlines()
    cells = last.split(",")
    right, cells[1] = cells[1], f"{float(cells[1]) + 0.0001:.4f}"
    steps.write_text("\n".join([header, first, ",".join(cells)]) + "\n")
    assert problems_of(few, tmp_path) == [
        f"{STEPS_CSV}: miou of step 1 is {cells[1]}, the confusion matrices give {right}"
    ]


def test_confusion_files_of_two_runs_exchanged_are_named(few: Path, tmp_path: Path) -> None:
    one, other = (few / f"voc-15-5-disjoint/er/made-up-100-seed{seed}/confusion/step-1.csv" for seed in (0, 1))
    here, there = one.read_bytes(), other.read_bytes()
    one.write_bytes(there)
    other.write_bytes(here)
    told = problems_of(few, tmp_path)
    assert {problem.split("/")[2] for problem in told} == {"made-up-100-seed0", "made-up-100-seed1"}


def test_a_seed_that_one_row_lacks_is_named(few: Path, tmp_path: Path) -> None:
    shutil.rmtree(few / "voc-15-5-disjoint/mib/made-up-100-seed1")
    assert problems_of(few, tmp_path) == ["voc-15-5-disjoint: mib (made-up-100) has no run of seed 1"]


def test_another_split_is_named(few: Path, tmp_path: Path) -> None:
    spec = few / "voc-15-5-disjoint/mib/made-up-100-seed1/spec.yaml"
    spec.write_text(spec.read_text().replace("split_hash: split of", "split_hash: other split of"))
    [told] = problems_of(few, tmp_path)
    assert told.startswith("voc-15-5-disjoint: split_hash is split of voc-15-5-disjoint in 23 of 24 runs, but other")
    assert told.endswith("voc-15-5-disjoint/mib/made-up-100-seed1")


def test_a_run_in_the_place_of_another_is_named(few: Path, tmp_path: Path) -> None:
    write_bundle(find_runs(few), tmp_path / "b.zip", {})
    name = "voc-15-5-disjoint/{}/made-up-100-seed0/spec.yaml"
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        content = archive.read(name.format("er"))
    with verified(altered(tmp_path / "b.zip", tmp_path / "c.zip", name.format("mib"), content)) as found:
        assert any(problem.endswith(f"that of {Path(name.format('er')).parent}") for problem in found.problems)


def counted(out: Path, run: Path, pixels: int) -> None:
    """Write a run with complete counts, of images with `pixels` of its first class."""
    spec = read_run(run).spec
    path = out / spec["scenario"] / spec["strategy"] / f"{spec['hash']}-seed{spec['seed']}"
    writer = RunWriter(path)
    writer.start(spec)
    for step, outputs in enumerate((16, 21)):
        rows = np.zeros((23, outputs), dtype=np.int64)
        rows[1, 1], rows[0, 0] = pixels, 7
        writer.add_step(StepCounts(rows, np.zeros_like(rows)), {"step": step, "seconds": 1.0})
    writer.finish()


def test_runs_on_other_test_images_are_named(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        counted(tmp_path / "runs", RUNS / f"voc-15-5-disjoint/er/made-up-100-seed{seed}", 50 if seed else 49)
    assert problems_of(tmp_path / "runs", tmp_path) == [
        "voc-15-5-disjoint/er/made-up-100-seed0: its test images have other pixels than those of voc-15-5-disjoint's "
        "other runs"
    ]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"no zip", "no bundle (File is not a zip file)"),
        ({"a": b"b"}, f"no bundle, it has no {MANIFEST}"),
        ({MANIFEST: b"{"}, f"{MANIFEST} cannot be read"),
        ({MANIFEST: b'{"schema": 9}'}, "schema of the bundle is 9, this version reads 1"),
        ({MANIFEST: b'{"schema": 1, "environment": {}}'}, f"{MANIFEST} is damaged (KeyError"),
        (
            {MANIFEST: b'{"schema": 1, "environment": {}, "files": {"../a": {"sha256": "", "size": 1}}}'},
            "'../a' is no place inside of a bundle",
        ),
    ],
)
def test_what_is_no_bundle_is_refused_in_a_line(
    content: bytes | dict[str, bytes], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "b.zip"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name, each in content.items():
                archive.writestr(name, each)
    for asked in (("verify", path), ("tables", "--runs", path, "--out", tmp_path / "t")):
        assert command(*asked) == 2
        line = capsys.readouterr().err
        assert line.startswith(f"bench: {path}: ") and told in line and line.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("bundle", "{few}", "--out", "{tmp}"), "a folder, it is to be a file"),
        (("bundle", "{few}", "{few}", "--out", "{tmp}/b.zip"), "seed0 is there, and in {few}/voc-15-5-disjoint/"),
        (("bundle", "{few}", "{tmp}/b.txt", "--out", "{tmp}/b.zip"), "b.txt: no bundle (File is not a zip file)"),
        (("bundle", "{tmp}/none", "--out", "{tmp}/b.zip"), "there is no finished run"),
        (("bundle", "{few}", "{tmp}/none", "--out", "{tmp}/b.zip"), "none: there is no finished run"),
        (("verify", "{tmp}/none.zip"), "No such file"),
        (("verify", "{tmp}/none.zip", "--rerun", "-1"), "neither may be below 0"),
    ],
)
def test_a_wrong_request_is_one_line(
    arguments: tuple[str, ...], told: str, few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b.txt").write_text("no zip")
    assert command(*(argument.format(few=few, tmp=tmp_path) for argument in arguments)) == 2
    line = capsys.readouterr().err
    assert told.format(few=few) in line and line.count("\n") == 1


# ---------------------------------------------------------------- made again


def test_the_cheapest_runs_are_made_again_first() -> None:
    runs = find_runs(RUNS / "voc-15-5-disjoint" / "er")
    for run, seconds in zip(runs, (3.0, 1.0, 2.0), strict=True):
        run.__dict__["costs"] = [{"seconds": seconds}]
    assert [run.spec["seed"] for run in cheapest(runs, 2)] == [1, 2]


def test_a_run_made_again_is_equal_near_or_different() -> None:
    one, other, _ = find_runs(RUNS / "voc-15-5-disjoint" / "er")
    assert compared(one, one, 0) == ("bit-equal", False)
    off = max(abs(a["miou"] - b["miou"]) for a, b in zip(one.steps, other.steps, strict=True))
    assert compared(one, other, off) == (f"within tolerance: mIoU off by up to {off:.2f} points", False)
    assert compared(one, other, 0.9 * off) == (f"different: mIoU off by up to {off:.2f} points", True)


def test_the_table_of_offline_methods_is_that_of_its_records(tmp_path: Path) -> None:
    with verified(DOCS / "offline" / "shapes.zip") as found:
        (table,) = write_offline(found.runs, tmp_path, ["markdown"], "shapes", splits=["15-5", "15-1"])
    assert table.read_text().strip() in (DOCS / "offline-shapes.md").read_text()
