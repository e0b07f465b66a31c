"""The documentation's code runs as it stands or says why not, its commands exist, the files it points to are there."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import toy
from PIL import Image
from plugin_packages import Install

from bench.cli.entry import _parser, main
from bench.plan.code import PACKAGES
from benchmarks.scenarios import load_scenario
from benchmarks.sets.registry import IMAGE_SETS
from strategies.networks.build import build_network

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXECUTED = {
    "troubleshooting.md": (),
    "numbers.md": (),
    "example.md": (),
    "published.md": (),
    "tutorial.md": ("base.min_updates=2", "base.epochs=1", "data.size=16"),
}
"""The pages whose blocks are executed in their order, each with the settings that keep its `bench run` short."""
IN_TESTS_OF_THEIR_OWN = ("plugins.md",)
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^ *```(?P<kind>\w*)\n(?P<text>.*?)^ *```$", re.S | re.M
)
COMMAND = re.compile(r"^(?:\$ )?(?:bench|pip|python|mkdocs|apt-get) \S", re.M)


@dataclass(frozen=True)
class Block:
    """A block of code: its language, its text, and why nobody runs it, `None` where somebody does."""

    kind: str
    text: str
    reason: str | None


def blocks(page: Path) -> list[Block]:
    return [Block(*found.group("kind", "text", "reason")) for found in FENCE.finditer(page.read_text())]


def commands(text: str) -> list[str]:
    """The lines of a shell's block, those that a backslash cuts joined."""
    lines = text.replace("\\\n", "").splitlines()
    return [line.removeprefix("$ ") for line in lines if COMMAND.match(line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_executed_or_says_why_not(page: Path) -> None:
    found = blocks(page)
    assert len(found) * 2 == len(re.findall(r"^ *```", page.read_text(), re.M))
    code = [block for block in found if block.kind in ("bash", "console", "python") or COMMAND.search(block.text)]
    if page.name not in (*EXECUTED, *IN_TESTS_OF_THEIR_OWN):
        assert not [block.text for block in code if block.reason is None]
    assert not [block.text for block in code if block.kind == ""]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_bench_command_is_one(page: Path) -> None:
    """Those of blocks that are not run, too: their options are those that the command has."""
    for block in blocks(page):
        for line in commands(block.text):
            for part in line.split("&&"):
                program, *arguments = shlex.split(part, comments=True)
                if program == "bench":
                    _parser().parse_args(arguments)


@pytest.mark.parametrize("name", EXECUTED)
def test_a_page_runs_block_after_block(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks(ROOT / "docs" / name):
        if block.reason is None and block.kind == "python":
            exec(compile(block.text, f"docs/{name}", "exec"), names)
        elif block.reason is None and block.kind == "bash":
            for line in commands(block.text):
                assert execute(line, EXECUTED[name]) == 0, line
        elif block.reason is None and block.kind == "console":
            for line, expected in re.findall(r"^\$ (.+)\n(.+)", block.text, re.M):
                capsys.readouterr()
                assert execute(line, EXECUTED[name]) == 2
                said = capsys.readouterr().err.splitlines()[-1]
                assert re.fullmatch(".*".join(map(re.escape, expected.split("..."))), said), (line, said)
    capsys.readouterr()
    if name == "example.md":
        assert (tmp_path / "mine.png").stat().st_size > 1000
        assert len(names["frame"]) == 2 * 2 * 2
    if name == "tutorial.md":
        assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == ["089.png", "156.png", "overlays"]


def execute(line: str, settings: tuple[str, ...]) -> Any:
    """Do what a `bench` command does, a run with these settings beside its own, and return its exit status."""
    program, *arguments = shlex.split(line, comments=True)
    assert program == "bench", line
    found = [sorted(map(str, Path().glob(argument))) if "*" in argument else [argument] for argument in arguments]
    expanded = [argument for several in found for argument in several]
    if expanded[0] == "run":
        expanded += ["--jobs", "1", *(part for setting in settings for part in ("--set", setting))]
    with pytest.raises(SystemExit) as ended:
        main(expanded)
    return ended.value.code


def test_the_guide_s_method_trains_and_its_network_is_built(install: Install) -> None:
    page = blocks(ROOT / "docs" / "plugins.md")
    method, network = (block.text for block in page[1:3] if block.kind == "python")
    [declared] = [block.text for block in page if block.kind == "toml"]
    points = re.findall(r'^(\w+) = "(\w+):(\w+)"$', declared, re.M)
    assert [point[0] for point in points] == ["gentle", "tiny"]
    for (name, module, kind), code, group in zip(points, (method, network), ("strategies", "networks"), strict=True):
        install(f"{name}-1", {name: f"{module}:{kind}"}, code, f"{module}.py", group=f"bench.{group}")
    for update in toy.run("gentle", pull=2.0).iterations:
        logits, labels = torch.from_numpy(update.logits), torch.from_numpy(update.told).long()
        assert update.loss > 0.1 + torch.nn.functional.cross_entropy(logits, labels, ignore_index=toy.VOID)
    assert build_network("tiny", 3)(torch.zeros(2, 3, 16, 16)).shape == (2, 4, 16, 16)


def test_the_guide_s_image_set_gives_a_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = next(block.text for block in blocks(ROOT / "docs" / "plugins.md") if "class Street" in block.text)
    names: dict[str, Any] = {"__name__": "street"}
    exec(compile(code, "docs/plugins.md", "exec"), names)
    monkeypatch.setitem(IMAGE_SETS, "street", names["Street"])
    for i in range(6):
        for folder, image in (("left", Image.new("RGB", (4, 4))), ("truth", Image.new("L", (4, 4), 1 + i % 3))):
            (tmp_path / folder).mkdir(exist_ok=True)
            image.save(tmp_path / folder / f"{i}.png")
    (tmp_path / "train.txt").write_text("0\n1\n2\n")
    (tmp_path / "test.txt").write_text("3\n4\n5\n")
    steps = load_scenario("street-2-1-disjoint", tmp_path).as_dict()["steps"]
    assert [(step["train_images"], step["test_images"]) for step in steps] == [(2, 2), (1, 3)]


def test_the_readme_begins_with_the_commands_that_install_and_test() -> None:
    first = [block.text.strip() for block in blocks(ROOT / "README.md") if block.kind == "bash"]
    made = "bench run --strategies ours,er,mib --scenario"
    assert first == [
        f"pip install -e . && {made} shapes-15-1-disjoint",
        f'pip install -e ".[laptop]" && {made} voc-15-5-overlapped --data-root DIR',
        'pip install -e ".[dev]" && python -m pytest',
    ]


def test_every_method_has_a_row_at_a_glance() -> None:
    """Its page on the site is made of the rows that it has in methods.md."""
    declared = (ROOT / "pyproject.toml").read_text().split('"bench.strategies"]')[1].split("[")[0]
    table = (ROOT / "docs" / "methods.md").read_text().split("## At a glance")[1].split("## ")[0]
    first_cells = " ".join(re.findall(r"^\| (`[^|]+)", table, re.M))
    assert set(re.findall(r"^([\w-]+) = ", declared, re.M)) == set(re.findall(r"`([\w-]+)`", first_cells))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_a_page_points_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_file_that_the_layout_names_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`((?:bench|strategies|benchmarks|reports|tests)/[\w/.]+)`", text)
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_messages_of_troubleshooting_are_those_of_the_code() -> None:
    """Of its tables, whose errors no block makes."""
    rows = re.findall(r"^\| `(.+?)` \| ", (ROOT / "docs" / "troubleshooting.md").read_text(), re.M)
    assert len(rows) > 15
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    said = "\n".join(text for file in files for text in texts_of(file))
    for message in rows:
        assert re.search(".*".join(map(re.escape, message.split("..."))), said), message


def texts_of(file: Path) -> Iterator[str]:
    """The texts in a file's code without its docstrings, `...` for what is put into one."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value
