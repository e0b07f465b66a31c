"""`bench tune`: what is tried, that a killed study ends as if undisturbed, and what becomes of the best settings."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from rich.console import Console

from bench.cli.entry import main
from bench.launch.execution import Result
from bench.launch.session import execute, run
from bench.plan.folders import finished_at
from bench.plan.plan import Plan
from bench.plan.planning import Wanted, asked, plan_of
from bench.plan.request import Request
from bench.settings.errors import RequestError
from bench.settings.strategies import method_parameters
from bench.train.work import ended_early
from bench.tune import rounds
from bench.tune.applying import apply_study
from bench.tune.asked import Tuning, require_same, study_of
from bench.tune.record import record
from bench.tune.sampling import Sampler, proposals
from bench.tune.space import Space, space_of
from benchmarks.errors import DataError
from reports.run_writer import RunWriter
from reports.study import Study, Trial, read_study, write_trials

SCENARIO = "voc-15-1-overlapped"
QUICK = ("data.size=16", "base.epochs=1", "base.batch_size=8", "memory.size=8", "evaluation.pictures=0")
QUIET = Console(quiet=True)


def request_of(root: Path, out: Path, **changes: Any) -> Request:
    told = {"strategies": "er,mib", "scenario": SCENARIO, "data_root": root, "preset": "small", "assignments": QUICK}
    return Request(**{**told, "out": out, "jobs": 1, **changes})


def tuned(root: Path, out: Path, trials: int = 2, options: dict[str, Any] | None = None, **changes: Any) -> Study:
    study = study_of(Tuning(request_of(root, out, **changes), trials=trials, **(options or {})))
    rounds.tune(study, QUIET)
    return read_study(out)


@pytest.fixture(scope="module")
def undisturbed(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return tuned(data_root, tmp_path_factory.mktemp("study"))


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Runs that are painted, not trained: step t's mIoU is 80 - 10 t less 10 for each factor e of the rate from 0.01.

    It gives the keys of each round's runs.
    """
    made: list[list[str]] = []

    def paint(plan: Plan, console: Console) -> Result:
        made.append([job.key for job in plan.runs])
        for job in plan.runs:
            off = abs(np.log(job.config.incremental.lr / 0.01))
            job.folder.mkdir(parents=True)
            for step in range(len(job.spec["steps"])):
                miou = 80.0 - 10 * step - 10 * off * (step > 0)
                told = {"steps.csv": ("step,miou", f"{step},{miou:.4f}"), "costs.csv": ("step,seconds", f"{step},9")}
                for name, (header, row) in told.items():
                    with (job.folder / name).open("a") as file:
                        file.write(f"{row}\n" if step else f"{header}\n{row}\n")
                if ended_early(job.folder, job.bars):
                    break
            else:
                (job.folder / "done").touch()
        return Result([])

    monkeypatch.setattr(rounds, "execute", paint)
    monkeypatch.setattr(rounds, "leave_kept_bases", lambda plan: None)
    return made


def rows(study: Study) -> list[list[str]]:
    """The trials as they are written down, less their seconds."""
    with (study.folder / "trials.csv").open() as file:
        return [[cell for name, cell in row.items() if name != "seconds"] for row in csv.DictReader(file)]


# ------------------------------------------------------------------------------------------------ trials


def test_every_strategy_has_its_trials_on_the_valid_stream_of_the_first_steps_the_default_first(
    undisturbed: Study,
) -> None:
    assert [(trial.strategy, trial.number, trial.state) for trial in undisturbed.trials] == [
        *(("er", n, "done") for n in (0, 1)),
        *(("mib", n, "done") for n in (0, 1)),
    ]
    assert undisturbed.of("mib")[0].settings == {"distillation_weight": 10.0, "incremental.lr": 0.01}
    for trial in undisturbed.trials:
        (name,) = trial.runs
        spec = yaml.safe_load((undisturbed.folder / name / "spec.yaml").read_text())
        assert spec["conventions"]["evaluate_on"] == "valid" and spec["config"]["evaluation"]["valid_fraction"] == 0.1
        assert spec["scenario"] == f"{SCENARIO}:first=2" and len(spec["steps"]) == 2
        assert spec["config"]["incremental"]["lr"] == trial.settings["incremental.lr"]
        with (undisturbed.folder / name / "steps.csv").open() as file:
            assert trial.miou == float([*csv.DictReader(file)][-1]["miou"])
    assert undisturbed.of("er")[1].settings != undisturbed.of("er")[0].settings
    assert not [*undisturbed.folder.rglob("*.safetensors")]


def test_all_trials_start_from_one_base_model_which_is_that_of_all_steps_too(
    undisturbed: Study, data_root: Path
) -> None:
    used = {
        yaml.safe_load((undisturbed.folder / name / "spec.yaml").read_text())["base"]["hash"]
        for trial in undisturbed.trials
        for name in trial.runs
    }
    whole = plan_of(asked(request_of(data_root, undisturbed.folder, evaluate_on="valid")), QUIET)
    assert used == {run.spec["base"]["hash"] for run in whole.runs}


def test_a_trials_run_is_the_run_of_these_settings(undisturbed: Study, data_root: Path) -> None:
    best = undisturbed.of("mib")[1]
    said = [*QUICK, *(f"{'' if '.' in key else 'strategies.mib.'}{key}={v}" for key, v in best.settings.items())]
    made = plan_of(
        asked(
            request_of(
                data_root,
                undisturbed.folder / "runs",
                strategies="mib",
                scenario=f"{SCENARIO}:first=2",
                assignments=said,
                evaluate_on="valid",
            )
        ),
        QUIET,
    )
    assert not made.runs
    assert made.folders == [undisturbed.folder / name for name in best.runs]


def test_a_study_that_is_killed_again_and_again_ends_as_undisturbed(
    undisturbed: Study, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_step, calls = RunWriter.add_step, 0

    def dying(*given: Any, **named: Any) -> None:
        nonlocal calls
        calls += 1
        if calls in (2, 5, 9):
            raise KeyboardInterrupt
        add_step(*given, **named)

    monkeypatch.setattr(RunWriter, "add_step", dying)
    lives = 0
    while True:
        lives += 1
        try:
            study = tuned(data_root, tmp_path / "study")
        except KeyboardInterrupt:
            continue
        break
    assert lives == 4
    assert rows(study) == rows(undisturbed)
    assert study.digest == undisturbed.digest
    assert len([*(study.folder / "runs").rglob("done")]) == 4


def journal_of(folder: Path, strategy: str) -> list[optuna.trial.FrozenTrial]:
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.log"))
    return optuna.load_study(study_name=strategy, storage=optuna.storages.JournalStorage(backend)).trials


def test_optunas_journal_has_the_trials(undisturbed: Study) -> None:
    kept = journal_of(undisturbed.folder, "mib")
    assert [trial.params for trial in kept] == [trial.settings for trial in undisturbed.of("mib")]
    assert [trial.value for trial in kept] == [trial.miou for trial in undisturbed.of("mib")]


@pytest.mark.parametrize("left", [0, 1], ids=lambda left: f"{left} lines and a half")
def test_a_journal_that_was_cut_off_is_made_from_the_runs(
    data_root: Path, tmp_path: Path, painted: list[list[str]], left: int
) -> None:
    study = tuned(data_root, tmp_path, 1, strategies="er")
    file, lock = tmp_path / "study.log", tmp_path / "study.log.lock"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:left]) + lines[left][:40])
    lock.symlink_to(file)
    record(
        study_of(Tuning(request_of(data_root, tmp_path, strategies="er"), trials=1)), {"er": study.trials}, last=True
    )
    assert [trial.value for trial in journal_of(tmp_path, "er")] == [study.trials[0].miou]
    assert not lock.is_symlink()


# ------------------------------------------------------------------------------------------------ what is tried


@pytest.fixture
def ours() -> Space:
    (wanted,) = asked(Request("ours(loss=cross-entropy)", "shapes-15-1-disjoint")).wanted
    return space_of(wanted)


def told(space: Space, settings: list[dict[str, float]], miou: Callable[[dict[str, float]], float]) -> list[Trial]:
    return [Trial(space.label, n, "done", miou(own), (), 1.0, own, ()) for n, own in enumerate(settings)]


def test_parameters_without_effect_and_those_asked_for_are_not_tried(ours: Space) -> None:
    assert ours.ranges.keys() == {"eta", "mu", "incremental.lr"}
    (given,) = asked(Request("mib(distillation_weight=100)", "shapes-15-1-disjoint")).wanted
    assert space_of(given).ranges.keys() == {"incremental.lr"}


@pytest.mark.parametrize("sampler", ["sobol", "tpe"])
def test_what_is_tried_lies_within_its_ranges_and_is_the_same_in_every_process(ours: Space, sampler: Sampler) -> None:
    first = proposals(ours, [], 6, sampler, seed=3)
    before = told(ours, first, lambda own: own["eta"])
    both = [proposals(ours, before, 3, sampler, seed=3) for _ in range(2)]
    assert both[0] == both[1] != proposals(ours, before, 3, sampler, seed=4)
    assert first[0] == ours.default
    for settings in (*first, *both[0]):
        assert settings.keys() == ours.ranges.keys()
        assert all(search.low <= settings[name] <= search.high for name, search in ours.ranges.items())
    assert len({tuple(settings.values()) for settings in (*first, *both[0])}) == 9


def test_whole_numbers_are_tried_of_a_parameter_that_takes_no_others() -> None:
    (wanted,) = asked(Request("mir", "shapes-15-1-disjoint")).wanted
    space = space_of(wanted)
    for settings in proposals(space, [], 4, "sobol", seed=0):
        chosen = space.with_chosen(settings)
        assert type(method_parameters(chosen.strategy, chosen.config).candidates) is int
        assert chosen.config.incremental.lr == settings["incremental.lr"]


def test_of_sobol_a_trials_settings_follow_from_its_number_alone_and_of_tpe_from_what_was_found(ours: Space) -> None:
    def after(sampler: Sampler, sign: int) -> list[dict[str, float]]:
        first = proposals(ours, [], 12, sampler, seed=0)
        return proposals(ours, told(ours, first, lambda own: sign * own["incremental.lr"]), 4, sampler, seed=0)

    assert after("sobol", 1) == after("sobol", -1) == proposals(ours, [], 16, "sobol", seed=0)[12:]
    high, low = ([settings["incremental.lr"] for settings in after("tpe", sign)] for sign in (1, -1))
    assert np.median(high) > np.median(low)


# ------------------------------------------------------------------------------------------------ rounds


def test_from_three_steps_on_trials_below_the_median_of_earlier_rounds_end_early(
    data_root: Path, tmp_path: Path, painted: list[list[str]]
) -> None:
    study = tuned(data_root, tmp_path, 10, {"first_steps": 4}, strategies="er")
    assert [len(keys) for keys in painted] == [4, 4, 2]
    trials = study.of("er")
    for first in (4, 8):
        for trial in trials[first : first + 4]:
            medians = [np.median([other.mious[t] for other in trials[:first] if len(other.mious) > t]) for t in (1, 2)]
            below = [t for t in (1, 2) if len(trial.mious) > t and trial.mious[t] < medians[t - 1]]
            assert trial.state == ("pruned" if below else "done")
            assert (trial.miou is None) == bool(below)
            assert len(trial.mious) == (below[0] + 1 if below else 4)
    assert {trial.state for trial in trials[:4]} == {"done"}
    assert "pruned" in {trial.state for trial in trials}
    assert study.best("er") == trials[0]


def test_a_strategy_that_has_had_its_time_begins_no_further_round(
    data_root: Path, tmp_path: Path, painted: list[list[str]]
) -> None:
    """A trial of two steps takes 18 seconds, a round of four 72."""
    study = tuned(data_root, tmp_path, 20, {"wall_time": 2.0}, strategies="er")
    assert len(study.of("er")) == 8 == sum(map(len, painted))
    apply_study(tmp_path)


def test_a_trial_is_the_mean_over_its_seeds(data_root: Path, tmp_path: Path, painted: list[list[str]]) -> None:
    study = tuned(data_root, tmp_path, 2, strategies="er", seeds=[0, 4])
    assert [key.rpartition(" ")[2] for key in painted[0]] == ["0", "4"] * 2
    assert [trial.seconds for trial in study.trials] == [36.0] * 2


@pytest.mark.parametrize("sampler", ["sobol", "tpe"])
def test_more_trials_go_on_where_fewer_ended(
    data_root: Path, tmp_path: Path, painted: list[list[str]], sampler: Sampler
) -> None:
    few = rows(tuned(data_root, tmp_path / "a", 3, {"sampler": sampler}, strategies="er"))
    more = tuned(data_root, tmp_path / "a", 6, {"sampler": sampler}, strategies="er")
    at_once = tuned(data_root, tmp_path / "b", 6, {"sampler": sampler}, strategies="er")
    assert rows(more)[:3] == few and rows(more) == rows(at_once)
    assert set(more.importance) == {"er"} and more.importance["er"] == {"incremental.lr": 1.0}


def test_the_command_says_what_came_out_and_where_the_best_settings_are(
    data_root: Path, tmp_path: Path, painted: list[list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    places = ["--data-root", str(data_root), "--out", str(tmp_path)]
    quick = ["--preset", "small", "--set", ",".join(QUICK), "--jobs", "1"]
    with pytest.raises(SystemExit) as ended:
        main(["tune", "--strategies", "er", "--scenario", SCENARIO, "--trials", "2", *places, *quick])
    study, said = read_study(tmp_path), capfd.readouterr().out
    assert ended.value.code == 0
    assert "2 of 2" in said and f"study {study.digest[:12]} in {tmp_path}" in said
    with pytest.raises(SystemExit) as ended:
        main(["tune", "--apply", str(tmp_path)])
    assert ended.value.code == 0 and capfd.readouterr().out.splitlines()[0] == str(tmp_path / "best.yaml")
    assert yaml.safe_load((tmp_path / "best.yaml").read_text())["study"] == study.digest


def test_a_run_ends_after_the_step_that_is_below_its_bar_and_does_not_go_on(data_root: Path, tmp_path: Path) -> None:
    found = asked(request_of(data_root, tmp_path, strategies="finetune", scenario=f"{SCENARIO}:first=3"))
    (wanted,) = found.wanted

    def steps_made(*bars: float | None) -> int:
        plan = plan_of(replace(found, wanted=[Wanted(wanted.strategy, wanted.config, bars={0: bars})]), QUIET)
        assert not execute(plan, QUIET).failures
        assert [finished_at(run) for run in plan.folders] == [None]
        with (plan.folders[0] / "steps.csv").open() as file:
            return len([*csv.DictReader(file)])

    assert steps_made(101.0, None, None) == 1
    assert not (tmp_path / "checkpoint").exists() and not [*tmp_path.rglob("*.ckpt")]
    assert steps_made(101.0, None, None) == 1
    assert steps_made(None, 101.0, None) == 2
    assert len(run(found.request, QUIET).runs) == 1


# ------------------------------------------------------------------------------------------------ the best settings


def written(folder: Path, undisturbed: Study, *miou: float) -> Study:
    """A study as the other, whose trials have this mIoU."""
    folder.mkdir(exist_ok=True)
    (folder / "study.yaml").write_bytes((undisturbed.folder / "study.yaml").read_bytes())
    trials = [replace(trial, miou=value) for trial, value in zip(undisturbed.trials, miou, strict=False)]
    write_trials(folder, trials)
    return read_study(folder)


def test_the_best_settings_are_those_of_a_file_for_bench_run(
    undisturbed: Study, data_root: Path, tmp_path: Path
) -> None:
    study = written(tmp_path, undisturbed, 50, 60, 50, 60)
    file = apply_study(tmp_path)
    plan = plan_of(asked(request_of(data_root, tmp_path / "runs", config=file)), QUIET)
    best = {label: study.of(label)[1].settings for label in ("er", "mib")}
    for job in plan.runs:
        name = job.spec["strategy"]
        assert job.spec["config"]["study"] == study.digest
        assert job.spec["config"]["incremental"]["lr"] == best[name]["incremental.lr"]
        assert job.spec["conventions"]["evaluate_on"] == "test" and len(job.spec["steps"]) == 6
    assert plan.runs[1].parameters.distillation_weight == best["mib"]["distillation_weight"]
    by_hand = [*QUICK, f"incremental.lr={best['er']['incremental.lr']}"]
    other = plan_of(asked(request_of(data_root, tmp_path / "runs", strategies="er", assignments=by_hand)), QUIET)
    assert other.runs[0].spec["hash"] == plan.runs[0].spec["hash"]
    assert "study" not in other.runs[0].spec["config"]


def test_a_strategy_whose_default_is_best_keeps_it(undisturbed: Study, tmp_path: Path) -> None:
    written(tmp_path, undisturbed, 60, 60, 50, 60)
    settings = yaml.safe_load(apply_study(tmp_path, tmp_path / "other.yaml").read_text())
    assert settings["methods"].keys() == settings["strategies"].keys() == {"mib"}


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (3, "below it stand names of strategies, and below each a section incremental alone"),
        ({"ours": {"base": {"lr": 1}}}, "a section incremental alone"),
        ({"ours": {"incremental": 3}}, "a section incremental alone"),
        ({"our": {"incremental": {"lr": 1}}}, "methods.our: unknown strategy 'our'; did you mean ours"),
        ({"er": {"incremental": {"lrr": 1}}}, "unknown setting incremental.lrr; did you mean lr"),
    ],
)
def test_settings_of_methods_that_are_none_are_refused(tmp_path: Path, section: object, said: str) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"methods": section}))
    with pytest.raises(RequestError, match=said):
        asked(Request("er,ours", "shapes-15-1-disjoint", config=tmp_path / "mine.yaml"))


def test_an_incomplete_study_is_not_applied(undisturbed: Study, tmp_path: Path) -> None:
    written(tmp_path, undisturbed, 50, 60, 50)
    with pytest.raises(RequestError, match="mib has 1 of 2 trials"):
        apply_study(tmp_path)


# ------------------------------------------------------------------------------------------------ what is refused

TUNE = ("tune", "--strategies", "er", "--scenario", "shapes-15-1-disjoint")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*TUNE, "--trials", "0"), "--trials 0: at least 1"),
        ((*TUNE, "--first-steps", "1"), "--first-steps 1: at least 2, or all"),
        ((*TUNE, "--first-steps", "few"), "'few' is not a number of steps, nor all"),
        ((*TUNE, "--wall-time", "-1"), "--wall-time -1.0: minutes above 0"),
        ((*TUNE, "--sampler", "grid"), "--sampler grid: allowed are sobol, tpe"),
        ((*TUNE, "--evaluate-on", "test"), "never chosen on test images"),
        ((*TUNE, "--overwrite"), "--overwrite always"),
        ((*TUNE, "--to", "FILE"), "--to FILE is for --apply DIR"),
        ((*TUNE, "--set", "incremental.lr=0.5"), "incremental.lr=0.5 is outside of what is tuned, 0.0001 to 0.1"),
        ((*TUNE, "--launcher", "slurm", "--sampler", "tpe"), "wait for earlier rounds"),
        (("tune", "--scenario", "shapes-15-1-disjoint"), "bench tune needs --strategies, or --apply DIR"),
        (("tune", "--strategies", "eer", *TUNE[3:]), "unknown strategy 'eer'"),
        (("tune", "--strategies", "joint", *TUNE[3:]), "--strategies joint: it has no search space"),
        ((*TUNE[:4], "shapes-15-1-disjoint:first=2"), "--first-steps 2 says"),
        (("tune", "--apply", "nowhere"), "nowhere: there is no study in it"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, *(["--out", str(tmp_path / "study")] if "--apply" not in arguments else [])])
    line = capfd.readouterr().err
    assert ended.value.code == 2 and said in line and line.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_more_steps_than_there_are_are_refused_before_anything_is_written(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it has 6 steps, not 9"):
        tuned(data_root, tmp_path / "study", options={"first_steps": 9})
    assert not (tmp_path / "study").exists()


def test_a_folder_keeps_to_its_study(undisturbed: Study, data_root: Path) -> None:
    for changes, said in (
        ({"seeds": [0, 1]}, r"it belongs to another study, with seeds \[0\], here \[0, 1\]"),
        ({"strategies": "er"}, "with strategies.mib"),
        ({"assignments": [*QUICK, "memory.size=9"]}, "with config.memory.size 8, here 9"),
    ):
        with pytest.raises(RequestError, match=said):
            require_same(study_of(Tuning(request_of(data_root, undisturbed.folder, **changes), trials=2)))


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(RequestError, match=r"pip install 'continual-seg-bench\[tune\]'"):
        study_of(Tuning(Request("er", "shapes-15-1-disjoint", out=tmp_path)))
