"""`bench reproduce`: which runs the paper's tables need, what they share, what they will cost, and that it goes on."""

from pathlib import Path

import pytest
from rich.console import Console
from test_reports import write_iou

from bench.cli.entry import main
from bench.launch import reproduce as module
from bench.launch.reproduce import estimate, offline_requests, overview, requests_for
from bench.launch.session import execute, prepare_all
from bench.plan.folders import base_file
from bench.plan.request import Request
from bench.settings.errors import RequestError
from reports.grids import NeededRun
from reports.offline_table import write_offline
from reports.records import find_runs

COMMON = Request(strategies=[], scenario="", jobs=1)
QUICK = ["base.epochs=1", "data.size=16", "evaluation.pictures=0", "base.batch_size=64", "incremental.batch_size=64"]


def runs_of(requests: list[Request]) -> list[tuple[str, str, str]]:
    return [(r.scenario, strategy, r.assignments[-1]) for r in requests for strategy in r.strategies]


def test_tables_1_to_4_need_each_run_once() -> None:
    """88 of Tables 1-3 less Table 2's memory 100, which is Table 1's 15-1 disjoint, and four rows more of Table 4."""
    runs = runs_of(requests_for([1, 2, 3, 4], "shapes", COMMON))
    assert len(runs) == len(set(runs)) == 48 + 16 + 24 + 4
    assert len({scenario for scenario, _, _ in runs}) == 9
    assert {memory for _, _, memory in runs} == {f"memory.size={size}" for size in (20, 50, 100)}


def test_common_settings_come_before_the_tables_memory() -> None:
    common = Request(strategies=[], scenario="", assignments=["incremental.lr=0.5"], seeds=[0, 1])
    for request in requests_for([2], "shapes", common):
        assert request.assignments[0] == "incremental.lr=0.5" and request.seeds == [0, 1]


def test_sharing_needs_a_base_model_per_recipe_and_base_step(tmp_path: Path) -> None:
    """Table 1 on shapes: 19-1 and 15-x, disjoint and overlapped, three recipes each; 15-5 and 15-1 share theirs."""
    common = Request(strategies=[], scenario="", jobs=1, out=tmp_path, assignments=QUICK)
    requests = requests_for([1, 2], "shapes", common)
    plan = prepare_all(requests, Console(quiet=True))
    assert len(plan.runs) == 64
    assert len({run.spec["base"]["hash"] for run in plan.runs}) == 12
    assert len(plan.bases) <= 12
    assert len({run.key for run in plan.runs}) == 64, "every job has a name of its own"
    trained = {job.key for job in plan.bases.values()}
    assert all(
        plan.needs[run.key] in trained if run.key in plan.needs else base_file(run.spec["base"]["hash"]).is_file()
        for run in plan.runs
    )


@pytest.fixture
def two_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of two scenarios with one run each, which share a base model."""
    needed = [NeededRun("shapes-15-5-disjoint", "er", 20), NeededRun("shapes-15-1-disjoint", "finetune", 20)]
    monkeypatch.setattr(module, "needed", lambda table, on: needed)


@pytest.mark.usefixtures("two_runs")
def test_it_says_what_is_missing_makes_it_and_makes_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = [part for setting in QUICK for part in ("--set", setting)]
    out, tables = tmp_path / "runs", tmp_path / "tables"
    command = ["reproduce", "1", "--on", "shapes", "--out", str(out), "--tables", str(tables), "--jobs", "1", *sets]

    def said(*more: str) -> str:
        with pytest.raises(SystemExit) as exit_:
            main([*command, *more])
        printed = capsys.readouterr()
        assert exit_.value.code == 0, printed
        return " ".join(printed.out.split())

    before = said("--dry-run")
    assert "all 2 0 2" in before and "1 base model for 2 runs; to be trained: 1" in before
    assert not out.exists()
    said()
    made = {run.path: (run.path / "done").stat().st_mtime_ns for run in find_runs(out)}
    assert len(made) == 2 and (tables / "table-1.csv").is_file()
    after = said()
    assert "all 2 2 0" in after and "expected time: about 0.0 hours on 1 worker" in after and "workers" not in after
    assert {run.path: (run.path / "done").stat().st_mtime_ns for run in find_runs(out)} == made


@pytest.mark.usefixtures("two_runs")
def test_cost_is_estimated_from_what_was_measured(tmp_path: Path) -> None:
    """The same again takes about as long as the first time took by its own records."""
    console = Console(quiet=True)
    settings = [*QUICK, "base.lr=0.0031"]  # a base model of this test's own
    common = Request(strategies=[], scenario="", jobs=1, out=tmp_path / "a", assignments=settings)
    plan = prepare_all(requests_for([1], "shapes", common), console)
    assert len(plan.bases) == 1
    result = execute(plan, console)
    again = Request(strategies=[], scenario="", jobs=1, out=tmp_path / "b", assignments=settings)
    cost = estimate(prepare_all(requests_for([1], "shapes", again), console), result.runs)
    spent = sum(c["seconds"] + c["evaluation_seconds"] for run in result.runs for c in run.costs)
    assert cost.bases == 0
    assert cost.runs == pytest.approx(spent, rel=0.01)
    assert cost.hours(2) == pytest.approx(spent / 7200, rel=0.01)
    unknown = estimate(prepare_all(requests_for([1], "shapes", again), console), [])
    assert unknown.hours(1) is None


@pytest.mark.usefixtures("two_runs")
def test_overview_counts_by_scenario_and_memory(tmp_path: Path) -> None:
    requests = requests_for([1], "shapes", Request(strategies=[], scenario="", jobs=1, out=tmp_path, seeds=[0, 1]))
    table = overview(requests, prepare_all(requests, Console(quiet=True)))
    columns = [list(column.cells) for column in table.columns]
    assert columns[0] == ["shapes-15-5-disjoint BM 20", "shapes-15-1-disjoint BM 20", "all"]
    assert columns[1:] == [["2", "2", "4"], ["0", "0", "0"], ["2", "2", "4"]]


@pytest.mark.parametrize(
    "arguments",
    [["reproduce"], ["reproduce", "5"], ["reproduce", "1", "--on", "coco"], ["reproduce", "1", "--format", "docx"]],
    ids=" ".join,
)
def test_wrong_requests_are_refused_in_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_offline_table_needs_every_method_that_it_is_defined_for_on_the_fields_scenarios() -> None:
    requests = offline_requests("scenes", Request(strategies=[], scenario="", assignments=["base.epochs=1"]))
    assert [request.scenario for request in requests] == [
        f"scenes-{split}-overlapped" for split in ("100-50", "100-10", "50-50")
    ]
    for request in requests:
        assert {"finetune", "joint"} <= set(request.strategies) and "er" not in request.strategies
        assert request.assignments == ["base.epochs=1", "protocol=offline"]
    with pytest.raises(RequestError, match="protocol"):
        offline_requests("voc", Request(strategies=[], scenario="", assignments=["protocol=online"]))


def test_the_offline_table_has_a_block_of_columns_for_each_scenario_and_gaps(tmp_path: Path) -> None:
    for strategy, scenario in (("finetune", "15-5"), ("mib", "15-5"), ("finetune", "10-1")):
        write_iou(tmp_path, 40 + 20 * (strategy == "mib"), strategy=strategy, scenario=f"shapes-{scenario}-overlapped")
    csv, markdown = write_offline(find_runs(tmp_path), tmp_path, ["csv", "markdown"], "shapes")
    assert len(csv.read_text(encoding="utf-8").splitlines()) == 4
    text = markdown.read_text(encoding="utf-8")
    lines = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    by_method = {line[0]: line[1:] for line in lines}
    assert by_method["finetune"] == [*["40.00"] * 4, *["--"] * 4, *["40.00"] * 4, *["--"] * 4]
    assert by_method["mib"] == [*["60.00"] * 4, *["--"] * 12]
    assert "not VOC/ADE results" in text and "10-1-overlapped" in text
    [part] = write_offline(find_runs(tmp_path), tmp_path, ["markdown"], "shapes", splits=["15-5"])
    assert "| mib | **60.00** | **60.00** | **60.00** | **60.00** |" in part.read_text(encoding="utf-8")


def test_some_of_the_offline_tables_scenarios_can_be_asked_for() -> None:
    common = Request(strategies=[], scenario="")
    wanted = [request.scenario for request in offline_requests("voc", common, ["15-1", "15-5"])]
    assert wanted == ["voc-15-5-overlapped", "voc-15-1-overlapped"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["1", "offline", "--on", "shapes"], "ask for offline by itself"),
        (["1", "--scenarios", "15-5"], "it is allowed with offline"),
        (["offline", "--on", "ade", "--scenarios", "15-5"], "15-5: allowed on ade are 100-50, 100-10, 50-50"),
        (["offline", "--scenarios", ","], "--scenarios : allowed on voc are 15-5, 15-1, 10-1, 19-1"),
    ],
)
def test_what_cannot_be_asked_for_together_is_one_line(
    asked: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["reproduce", *asked, "--dry-run"])
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1
