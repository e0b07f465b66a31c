"""The page is one sound HTML file: it shows what the runs hold, fetches nothing, and equal runs give equal bytes."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
import shlex
import shutil
import statistics
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_runs.make import RUNS, cost, matrix

from bench.cli.entry import _parser, main
from bench.settings.merging import resolve_config
from bench.settings.strategies import parse_strategies
from reports.page.page import write_page
from reports.page.parts import svg_image
from reports.page.runs import repeat_command
from reports.records import Run, find_runs, read_run
from reports.run_writer import RunWriter
from reports.spec import SCHEMA

SHAPES, VOC = "shapes-2-1-disjoint", "voc-2-1-disjoint"
CONFIG = dataclasses.asdict(resolve_config(SHAPES))
STRATEGIES = CONFIG.pop("strategies")
CONFIG["runtime"]["device"] = "cpu"
CONVENTIONS = {
    "future_classes": "background",
    "test_images": "known",
    "background_in_mean": True,
    "evaluate_on": "test",
}
VOID = {"meta", "link", "br", "img"}


def write_run(out: Path, strategy: str = "ours", seed: int = 0, pictures: bool = False, **changes: Any) -> Run:
    """A finished run of two base classes and two steps of one more each; `changes` are of its spec."""
    spec = {
        **{"schema": SCHEMA, "scenario": SHAPES, "strategy": strategy, "seed": seed, "hash": "abc123"},
        "method": {"name": strategy.split("(")[0], "parameters": {}},
        "config": CONFIG,
        "conventions": CONVENTIONS,
        "class_names": ["background", "one", "two", "three", "four"],
        "steps": [{"step": 0, "classes": [1, 2]}, {"step": 1, "classes": [3]}, {"step": 2, "classes": [4]}],
        "split_hash": "the-split",
        "data": {"name": "shapes", "root": None, "fingerprint": "the-data"},
        "versions": {"python": "3.11.7", "torch": "2.14.1"},
        "git": "0123456789abcdef",
        **changes,
    }
    path = out / "scenario" / "strategy" / str(len(list(out.rglob("done"))))
    writer = RunWriter(path)
    writer.start(spec)
    random = np.random.default_rng([seed, len(strategy)])
    for step, known in enumerate((3, 4, 5)):
        writer.add_step(matrix(random, known, 3), cost(step))
        if pictures:
            writer.add_pictures(f"step-{step}", {"image": random.integers(0, known, (9, 12), dtype=np.uint8)})
    if pictures:
        writer.add_pictures("images", {"image": random.integers(0, 255, (9, 12, 3), dtype=np.uint8)})
        writer.add_pictures("truth", {"image": random.integers(0, 5, (9, 12), dtype=np.uint8)})
    writer.finish()
    return read_run(path)


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text; an element that is not closed is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts.append(data)
        elif "style" not in self._open:
            self.texts.append(data)
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for each, attributes in self.elements if each == tag]

    def having(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]


def page_of(runs: list[Run], out: Path, **options: Any) -> Page:
    return Page(write_page(runs, out / "report.html", **options).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    out = tmp_path_factory.mktemp("runs")
    return [write_run(out, name, seed, pictures=True) for name in ("er", "ours") for seed in (0, 1)]


@pytest.fixture(scope="module")
def text(runs: list[Run], tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_page(runs, tmp_path_factory.mktemp("page") / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


# ---------------------------------------------------------------- structure


def test_the_page_has_its_landmarks_and_every_part(page):
    counts = Counter(tag for tag, _ in page.elements)
    assert [counts[tag] for tag in ("html", "title", "header", "nav", "main", "h1", "script")] == [1] * 7
    assert page.all("html") == [{"lang": "en"}]
    links = [each["href"] for each in page.all("a")]
    assert links == [
        *("#main", "#summary", "#scenario-1", "#statistics", "#conventions", "#runs"),
    ]
    for heading in (
        "Accuracy over the steps",
        "Forgetting",
        "Every class",
        "Accuracy against cost",
        "Pictures",
        "Costs",
    ):
        assert heading in page.text


def test_ids_are_unique_and_every_reference_has_its_target(page):
    ids = page.having("id")
    assert len(ids) > 20 and len(ids) == len(set(ids))
    targets = [href[1:] for href in page.having("href") if href.startswith("#")]
    inside = re.findall(r"url\(#([^)]*)\)", " ".join(v for _, each in page.elements for v in each.values()))
    assert inside
    assert {*targets, *inside, *page.having("aria-labelledby"), *page.having("data-copy")} <= set(ids)


def test_headings_never_skip_a_level(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))


def test_every_picture_says_what_it_shows(page):
    told = [each["alt"] for each in page.all("img")] + [each["aria-label"] for each in page.all("svg")]
    assert len(page.all("figure")) == len(told) == 5
    assert all(SHAPES in text and "ER, Ours" in text for text in told)
    assert all(each["role"] == "img" for each in page.all("svg"))


def test_tables_are_plain_and_name_their_columns_and_rows(page):
    assert len(page.all("table")) == 4  # the headline, costs, differences and ranks
    assert {each["scope"] for each in page.all("th")} == {"col", "row"}
    assert {each.get("class") for each in page.all("button")} == {"copy", "all"}
    assert all("hidden" in each for each in page.all("button"))


def test_the_two_figures_of_one_drawing_share_no_id(tmp_path):
    drawing = (
        b'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        b'<metadata>x</metadata><defs><style>*{}</style><path id="p"/></defs>'
        b'<use xlink:href="#p" style="fill: none" clip-path="url(#p)"/></svg>'
    )
    assert svg_image(drawing, "a", 'one "two"') == (
        '<svg role="img" aria-label="one &quot;two&quot;"><defs><path id="a-p" /></defs>'
        '<use href="#a-p" style="fill: none" clip-path="url(#a-p)" /></svg>'
    )


# ---------------------------------------------------------------- what it says


def test_the_headline_is_the_mean_and_deviation_over_seeds(page, runs):
    last = [run.steps[-1] for run in runs if run.spec["strategy"] == "ours"]
    row = next(row for row in page.rows if row[0] == "ours")
    for cell, column in zip(row[1:], ("old", "new", "miou", "imiou", "avg"), strict=True):
        values = [step[column] for step in last]
        assert cell == f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def test_embedded_data_are_called_so_and_published_data_are_not(page, tmp_path):
    assert "shapes is generated data: results here are not VOC or ADE20K results." in page.text
    published = page_of([write_run(tmp_path, scenario=VOC)], tmp_path)
    assert "generated" not in published.text and "embedded data" not in published.text


def test_the_papers_tables_stand_beside_the_published_numbers(tmp_path):
    own = [run for run in find_runs(RUNS / "voc-19-1-disjoint") if run.spec["strategy"] in ("er", "ours")]
    page = page_of(own, tmp_path)
    assert "Table 1 on voc" in page.text and "Table 2 on" not in page.text
    assert any(row[0] == "Ours published" and "73.43" in row for row in page.rows)


def test_every_run_is_traced_to_its_origin(page, runs):
    for run in runs:
        assert "/".join(run.path.parts[-3:]) in page.text
    for recorded in ("0123456789abcdef", "torch 2.14.1", "the-split", "the-data", "--seeds 0,1"):
        assert recorded in page.text
    assert len(page.all("details")) == 2  # the seeds of one strategy stand together


def test_conventions_are_explained(page):
    for meaning in ("count as background in the truth", "show a class learned by then", "measured on the test images"):
        assert meaning in page.text


def test_conventions_that_differ_between_scenarios_stand_below_each_other(tmp_path):
    other = CONVENTIONS | {"future_classes": "ignore"}
    page = page_of([write_run(tmp_path), write_run(tmp_path, scenario=VOC, conventions=other)], tmp_path)
    both = f"background on {SHAPES}: pixels of classes not yet learned count as background in the truth"
    assert f"{both}ignore on {VOC}: pixels of classes" in page.text  # a line break is no text
    assert "<" not in page.text and "&lt;" not in page.text


# ---------------------------------------------------------------- repeating


@pytest.mark.parametrize("strategy", ["ours", "ours(delta=0.25,sampling=uniform)", "ours(delta=1e-05)"])
def test_the_command_asks_for_the_same_runs(tmp_path, strategy):
    config = {**CONFIG, "incremental": {**CONFIG["incremental"], "lr": 1e-05}, "memory": {"size": 7}}
    config["data"] = {**CONFIG["data"], "scale": [1.0, 1.0], "crop": None}
    given = dict(parse_strategies(strategy.replace("1e-05", "1.0e-05"))[0].parameters)
    parameters = {**STRATEGIES["ours"], "sampling": "dynamic", **given}
    data = {"name": "shapes", "root": "/data/it's here", "fingerprint": "x"}
    changes = {"config": config, "method": {"name": "ours", "parameters": parameters}, "data": data}
    own = [write_run(tmp_path, strategy, seed, **changes) for seed in (0, 3)]
    program, *arguments = shlex.split(repeat_command(own).replace("\\\n", ""))
    asked = _parser().parse_args(arguments)
    resolved = dataclasses.asdict(resolve_config(asked.scenario, None, None, asked.set))
    (request,) = parse_strategies(asked.strategies)
    assert (program, request.label, asked.seeds, asked.device) == ("bench", strategy, [0, 3], "cpu")
    assert str(asked.data_root) == data["root"]
    assert {**resolved["strategies"]["ours"], **dict(request.parameters)} == parameters
    del resolved["strategies"]
    resolved["data"]["scale"] = list(resolved["data"]["scale"])
    assert {**resolved, "runtime": {**resolved["runtime"], "device": "cpu"}} == config


# ---------------------------------------------------------------- nothing but the file


def test_nothing_is_fetched(page, text):
    addresses = [*page.having("src"), *page.having("href")]
    assert addresses and all(each.startswith(("#", "data:")) for each in addresses)
    outside = "".join(part for part in re.split(r"<script>.*?</script>", text, flags=re.DOTALL))
    assert not re.search(r"https?://|@import|url\((?!#)", outside)
    assert not re.search(r"fetch|XMLHttpRequest|import\(|https?:", page.scripts[0])


def test_the_policy_lets_only_the_pages_own_script_run(page):
    policy = next(each["content"] for each in page.all("meta") if "http-equiv" in each)
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_names_are_shown_and_never_run(tmp_path):
    tag, quote = '<script>alert("x")</script>', "\"'><img src=x onerror=alert(1)>"
    names = ["background", tag, quote, "a & b", "&lt;"]
    changes = {"class_names": names, "scenario": "shapes-<b>&'\"-1", "git": tag, "conventions": {"resolution": quote}}
    own = [write_run(tmp_path / "r", f"evil(a={tag})", pictures=True, **changes)]
    page = page_of(own, tmp_path, title=f"{tag}{quote}")
    assert len(page.scripts) == 1 == len(page.all("script")) and not page.all("b")
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert all(each["src"].startswith("data:") for each in page.all("img"))
    assert page.text.count(tag) > 3 and quote in page.text and "evil(a=" in page.text


def test_equal_runs_give_equal_bytes_in_any_order_and_folder(runs, text, tmp_path):
    moved = []
    for place, run in enumerate(runs):
        folder = tmp_path / str(place) / Path(*run.path.parts[-3:])
        shutil.copytree(run.path, folder)
        moved.append(read_run(folder))
    for own in (runs[::-1], moved):
        assert write_page(own, tmp_path / "again.html").read_text(encoding="utf-8") == text


# ---------------------------------------------------------------- little to show


def test_one_run_without_predictions_and_costs_has_a_page(tmp_path):
    page = page_of([write_run(tmp_path, "er", versions=None, git=None, data={})], tmp_path)
    assert "Pictures" not in page.text and "Paired differences" not in page.text and "Mean ranks" not in page.text
    assert len(page.all("figure")) == 4 and "not recorded" in page.text


def test_no_run_is_said(tmp_path):
    assert "no finished run" in page_of([], tmp_path).text


def test_what_cannot_be_shown_is_told_and_the_rest_is_there(tmp_path):
    other = {**CONVENTIONS, "future_classes": "ignore"}
    own = [write_run(tmp_path, "er"), write_run(tmp_path, conventions=other), write_run(tmp_path, scenario=VOC)]
    page = page_of(own, tmp_path)
    assert "convention future_classes is background in 1 of 2 runs" in page.text
    assert f"{SHAPES} is left out" in page.text
    assert {VOC in each["aria-label"] for each in page.all("svg")} == {True}
    assert f"ignore on {SHAPES}: pixels of classes not yet learned are void" in page.text


def test_a_run_given_twice_is_told_and_never_counted(tmp_path):
    page = page_of([write_run(tmp_path, "er"), write_run(tmp_path, "er")], tmp_path)
    assert "the same run twice, its seed would count double" in page.text
    assert not page.all("figure") and not page.all("table")


def test_a_damaged_matrix_costs_one_figure(tmp_path):
    run = write_run(tmp_path)
    (run.path / "confusion" / "step-1.csv").write_text("x\n")
    page = page_of([run], tmp_path)
    assert "Not shown:" in page.text and "step-1.csv" in page.text and len(page.all("figure")) == 3


# ---------------------------------------------------------------- the command line


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_status:
            main(["report", *map(str, arguments)])
        return (int(str(exit_status.value.code)), *capsys.readouterr())

    return call


def test_the_command_writes_the_page(tmp_path, report):
    write_run(tmp_path / "runs", "er")
    status, out, _ = report("--runs", tmp_path / "runs", "--out", tmp_path / "new" / "r.html", "--title", "A & B")
    assert (status, out.strip()) == (0, str(tmp_path / "new" / "r.html"))
    assert "<title>A &amp; B</title>" in (tmp_path / "new" / "r.html").read_text(encoding="utf-8")


def test_the_command_says_what_is_wrong(tmp_path, report):
    assert report("--runs", tmp_path / "none", "--out", tmp_path / "r.html")[::2] == (
        0,
        f"no finished run in {tmp_path / 'none'}\n",
    )
    (tmp_path / "taken").touch()
    status, _, error = report("--runs", tmp_path, "--out", tmp_path / "taken")
    assert status == 2 and "Not a directory" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("out", "page"),
    [
        ("there.html", "there.html/report.html"),
        ("a/b.html", "a/b.html"),
        pytest.param("new", "new/report.html", marks=pytest.mark.long),
        pytest.param("c.HTM", "c.HTM", marks=pytest.mark.long),
    ],
)
def test_out_is_a_folder_as_everywhere_unless_it_ends_as_a_page_does(out, page, tmp_path, report):
    write_run(tmp_path / "runs", "er")
    (tmp_path / "there.html").mkdir()
    assert report("--runs", tmp_path / "runs", "--out", tmp_path / out)[:2] == (0, f"{tmp_path / page}\n")
    assert (tmp_path / page).is_file()
