"""What is given twice is refused in one line that says where: in YAML both lines, elsewhere the name."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from bench.cli.entry import main
from bench.launch.reproduce import requests_for
from bench.plan.request import Request
from bench.settings.errors import RequestError
from bench.settings.merging import resolve_config
from bench.settings.plain_yaml import parse_yaml, read_yaml
from bench.settings.strategies import parse_strategies
from bench.settings.usual import PRESETS

SCENARIO = "shapes-15-5-disjoint"
ROOT = Path(__file__).resolve().parent.parent


def settings(folder: Path, text: str) -> Path:
    file = folder / "settings.yaml"
    file.write_text(text)
    return file


TWICE = {
    "base:\n  epochs: 1\nmemory:\n  size: 8\nbase:\n  lr: 1\n": "base is given twice, in lines 1 and 5",
    "memory: {size: 8}\nbase:\n  epochs: 1\n\n  epochs: 2\n": "base.epochs is given twice, in lines 3 and 5",
    "scenarios:\n  shapes-*:\n    data: {}\n    data: {}\n": "scenarios.shapes-*.data is given twice, in lines 3 and 4",
    "strategies: {ours: {gamma: 1, gamma: 2}}\n": "strategies.ours.gamma is given twice, in line 1",
    "slurm:\n  setup:\n  - a: 1\n    a: 2\n": "slurm.setup.0.a is given twice, in lines 3 and 4",
    "base:\n  'lr': 1\n  lr: 2\n": "base.lr is given twice, in lines 2 and 3",
    "true: 1\nTrue: 2\n": "True is given twice, in lines 1 and 2",
    "base:\n  <<: {lr: 1}\n  <<: {epochs: 2}\n": "base.<< is given twice, in lines 2 and 3",
}


@pytest.mark.parametrize(("text", "told"), TWICE.items())
def test_a_key_given_twice_is_refused_with_its_path_and_both_lines(text: str, told: str, tmp_path: Path) -> None:
    file = settings(tmp_path, text)
    with pytest.raises(RequestError) as refused:
        resolve_config(SCENARIO, file=file)
    assert str(refused.value) == f"{file}: {told}"


@pytest.mark.parametrize("command", [("data", "check", "voc"), ("data", "get", "voc", "--sources")])
def test_so_it_is_in_every_file_that_people_write(
    command: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = settings(tmp_path, "data_root: /here\ndata_root: /there\n")
    given = [*command, str(file)] if command[-1] == "--sources" else list(command)
    (tmp_path / "continual-seg-bench").mkdir()
    (tmp_path / "continual-seg-bench" / "config.yaml").write_bytes(file.read_bytes())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    if "--sources" in given:
        monkeypatch.setenv("BENCH_DATA_ROOT", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith(".yaml: data_root is given twice, in lines 1 and 2")


def test_what_a_merge_brings_along_may_be_given_anew() -> None:
    text = "a: &a {lr: 1, epochs: 2}\nb: {<<: *a, lr: 3}\nc: *a\n"
    assert parse_yaml(text) == {"a": {"lr": 1, "epochs": 2}, "b": {"lr": 3, "epochs": 2}, "c": {"lr": 1, "epochs": 2}}


def test_one_name_in_two_places_is_no_repetition() -> None:
    assert parse_yaml("a: {x: 1}\nb: {x: 1}\nc: [{x: 1}, {x: 2}]\n1: one\n'1': word\n")["c"] == [{"x": 1}, {"x": 2}]


def test_what_stands_within_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"strategies.er.own stands within itself, see line 2$"):
        read_yaml(settings(tmp_path, "strategies:\n  er: &x\n    own: *x\n"))


def test_aliases_of_aliases_are_looked_at_once() -> None:
    lines = ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40))]
    assert len(parse_yaml("\n".join(lines))) == 40


def test_what_the_harness_brings_along_has_no_key_twice() -> None:
    files = [
        *(ROOT / "bench" / "settings" / "presets" / f"{name}.yaml" for name in PRESETS),
        ROOT / "reports" / "paper.yaml",
    ]
    for file in files:
        assert parse_yaml(file.read_text()) == yaml.safe_load(file.read_text())


@pytest.mark.parametrize(
    ("assignments", "told"),
    [
        (["memory.size=50,base.lr=1,memory.size=100"], "memory.size is given more than once"),
        (["base={lr: 1, lr: 2}"], "lr is given twice, in line 1"),
    ],
)
def test_one_list_of_settings_has_a_key_once(assignments: list[str], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        resolve_config(SCENARIO, assignments=assignments)


def test_of_several_lists_the_last_holds() -> None:
    assert resolve_config(SCENARIO, assignments=["memory.size=50", "memory.size=60"]).memory.size == 60


@pytest.mark.parametrize(
    ("option", "setting"), [(["--memory", "100"], "memory.size=50"), (["--devices", "2"], "base.lr=1,base.devices=1")]
)
def test_an_option_and_the_setting_that_it_stands_for_say_one_thing(
    option: list[str], setting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--strategies", "er", "--scenario", SCENARIO, "--set", setting, *option])
    assert ended.value.code == 2
    assert (
        capsys.readouterr().err == f"bench: {' '.join(option)} and --set {setting.split(',')[-1]}: give one of them\n"
    )


def test_a_table_s_memory_is_not_overruled() -> None:
    with pytest.raises(RequestError, match=r"memory\.size=7"):
        requests_for([1], "voc", Request("", "", assignments=["memory.size=7"]))


def test_strategies_and_their_parameters_are_given_once() -> None:
    with pytest.raises(RequestError, match="gamma is given more than once"):
        parse_strategies("ours(gamma=1,gamma=2)")
    with pytest.raises(RequestError, match="names 'ours' more than once"):
        parse_strategies(["ours", "ablation"])


@pytest.mark.parametrize("strategies", ["ours,ours(delta=0.8)", "lwf,ewf,ewf(on=mib)"])
def test_two_names_of_one_method_with_the_same_settings_are_refused(
    strategies: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    protocol = "offline" if "ewf" in strategies else "online"
    asked = ["--strategies", strategies, "--scenario", SCENARIO, "--set", f"protocol={protocol}"]
    with pytest.raises(SystemExit) as ended:
        main(["run", *asked, "--out", str(tmp_path)])
    assert ended.value.code == 2
    *_, one, other = strategies.split(",")
    assert f"--strategies names one method twice: {one} and {other} have the same settings" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
