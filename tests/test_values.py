"""A setting is what its text says, in `--set`, in files and from Python; one that is wrong gets a way out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench
from bench.settings.assignments import python_assignments
from bench.settings.checking import checked
from bench.settings.errors import RequestError
from bench.settings.merging import resolve_config
from bench.settings.plain_yaml import parse_yaml, read_yaml
from bench.settings.schema import Config as Settings
from bench.settings.slurm import SlurmSettings
from bench.settings.strategies import memory_notes, parse_strategies, require_void_known
from strategies.learning.registry import method_class
from strategies.ours import Ours

SCENARIO = "shapes-15-5-disjoint"


def settings(*assignments: str, file: Path | None = None) -> Settings:
    return resolve_config(SCENARIO, file=file, assignments=assignments)


# What YAML 1.2's core schema says; in the comments what YAML 1.1 makes of it.
WORDS: dict[str, Any] = {
    "012": 12,  # 10
    "0o12": 10,
    "0x10": 16,
    "-7": -7,
    "1_000": "1_000",  # 1000
    "1:30": "1:30",  # 90
    "2024-01-02": "2024-01-02",  # a date
    "2026-02-30": "2026-02-30",  # an error
    "1e-3": 0.001,  # text
    "1.": 1.0,
    "yes": "yes",  # True
    "off": "off",  # False
    "True": True,
    "null": None,
    "~": None,
    "": None,
    "None": "None",
    "'012'": "012",
}


@pytest.mark.parametrize(("text", "value"), WORDS.items())
def test_a_word_is_what_it_says(text: str, value: object) -> None:
    for found in (parse_yaml(text), parse_yaml(f"a: [{text}]\n")["a"][-1:]):
        if isinstance(found, list):
            found = found[0] if found else None
        assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", ["!!bool maybe", "!!int many", "!!float big", "!!timestamp 2024-01-01"])
def test_a_tag_that_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="cannot read the value of"):
        settings(f"data.flip={text}")


def test_a_number_is_the_same_wherever_it_is_given(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("memory: {size: 012}\nincremental: {lr: 1e-3}\ndata: {flip: no}\n")
    ways = [
        settings(file=file),
        settings("memory.size=012,incremental.lr=1e-3", "data.flip=no"),
        settings(*python_assignments({"memory.size": "012", "incremental.lr": 1e-3, "data.flip": False})),
    ]
    assert [(way.memory.size, way.incremental.lr, way.data.flip) for way in ways] == [(12, 0.001, False)] * 3
    assert parse_strategies("ours(tau=012)")[0].parameters == (("tau", 12),)


def test_digits_with_underscores_are_a_number_where_one_is_wanted_and_clock_times_none() -> None:
    assert settings("memory.size=1_000").memory.size == 1000
    with pytest.raises(RequestError, match=r"memory\.size='1:30': input should be a valid integer"):
        settings("memory.size=1:30")


def test_a_file_may_be_named_like_a_date() -> None:
    assert Path(str(settings("data.train_list=2024-01-02").data.train_list)).name == "2024-01-02"


# ---------------------------------------------------------------- null


@pytest.mark.parametrize("key", ["data.crop", "data.train_list", "evaluation.short_side"])
@pytest.mark.parametrize("word", ["None", "none"])
def test_none_where_null_is_allowed_is_told_of_null(key: str, word: str) -> None:
    with pytest.raises(RequestError, match=f"^{key}={word}: write null for none$"):
        settings(f"{key}={word}")


def test_null_where_it_is_not_allowed_is_called_so() -> None:
    with pytest.raises(RequestError, match=r"^memory\.size=null: input should be a valid integer"):
        settings("memory.size=null")


def test_a_strategy_with_null_is_labelled_as_it_can_be_asked_for() -> None:
    [asked] = parse_strategies("er(unlabelled=null)")
    assert asked.label == "er(unlabelled=null)"
    assert parse_strategies(asked.label) == [asked]


# ---------------------------------------------------------------- from Python

GIVEN: dict[str, Any] = {
    "data.crop": None,
    "data.size": 32,
    "data.scale": (1, 1),
    "memory.size": np.int64(7),
    "incremental.lr": np.float32(0.5),
    "data.train_list": Path("lists/a, b=1.txt"),
}


def test_python_s_values_are_what_they_are() -> None:
    config = settings(*python_assignments(GIVEN))
    assert (config.data.crop, config.data.size, config.data.scale) == (None, 32, (1.0, 1.0))
    assert (config.memory.size, config.incremental.lr) == (7, 0.5)
    assert str(config.data.train_list).endswith("/lists/a, b=1.txt")


def test_run_takes_none_and_tuples_for_settings(tmp_path: Path) -> None:
    """It gets as far as the first value that is wrong."""
    with pytest.raises(RequestError, match=r"^data.scale \[2.0, 1.0\]: the first value is above the second$"):
        bench.run("er", SCENARIO, settings={"data.crop": None, "data.scale": (2.0, 1.0)}, out=tmp_path)
    with pytest.raises(RequestError, match=r"^memory.size=<object .*>: a setting is a number, a text"):
        bench.run("er", SCENARIO, settings={"memory.size": object()}, out=tmp_path)


# ---------------------------------------------------------------- hints

HINTS = {
    "memory=50": "memory=50: a section of settings is a mapping; did you mean memory.size?",
    "network=small": "network='small': a section of settings is a mapping; it holds network.name, network.weights",
    "lr=0.1": "unknown setting lr; did you mean incremental.lr or base.lr?",
    "learning_rate=0.1": "unknown setting learning_rate; did you mean incremental.lr or base.lr?",
    "learnig-rate=0.1": "unknown setting learnig-rate; did you mean incremental.lr or base.lr?",
    "base.learning_rate=0.1": "unknown setting base.learning_rate; did you mean lr?",
    "optimizer.lr=0.1": "unknown setting optimizer; did you mean incremental.lr or base.lr?",
    "memory_size=50": "unknown setting memory_size; did you mean memory.size?",
    "buffer_size=50": "unknown setting buffer_size; did you mean memory.size?",
    "backbone=small": "unknown setting backbone; did you mean network.name?",
    "incremental.epochs=3": "incremental.epochs is a setting of protocol=offline, and the protocol is online",
    "batch_size=2": "unknown setting batch_size; did you mean incremental.batch_size, base.batch_size or "
    "evaluation.batch_size?",
    "incremental.wieght_decay=1": "unknown setting incremental.wieght_decay; did you mean weight_decay?",
    "memry.size=1": "unknown setting memry; did you mean memory.size or data.size?",
    "memory.xyz=1": "unknown setting memory.xyz; known here: size",
}


@pytest.mark.parametrize(("assignment", "told"), HINTS.items())
def test_a_setting_that_is_not_known_is_told_where_it_is(assignment: str, told: str) -> None:
    with pytest.raises(RequestError) as refused:
        settings(assignment)
    assert str(refused.value) == told


def test_hints_hold_for_every_dataclass_of_settings(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"^unknown setting slurm.partitoin; did you mean partition\?$"):
        checked(SlurmSettings, {"partitoin": "gpu"}, "slurm")
    with pytest.raises(RequestError, match=r"^unknown setting strategies.ours.dleta; did you mean delta\?$"):
        checked(Ours.Parameters, {"dleta": 0.5}, "strategies.ours")
    (tmp_path / "settings.yaml").write_text("scenarios: {shapes-*: {training: {lr: 1}}}\n")
    assert read_yaml(tmp_path / "settings.yaml")
    with pytest.raises(RequestError, match=r"did you mean incremental\.lr or base\.lr"):
        settings(file=tmp_path / "settings.yaml")


# ---------------------------------------------------------------- a memory that is not kept


@pytest.mark.parametrize(
    ("asked", "keeps"),
    [("mib", True), ("ewf", True), ("lwf-mc", True), ("ewf(on=plop)", False), ("dkd", False), ("ssul-m", False)],
)
def test_offline_a_memory_that_a_method_does_not_keep_is_told(asked: str, keeps: bool) -> None:
    [request] = parse_strategies([asked])
    assert memory_notes(request, settings("protocol=offline")) == []
    told = memory_notes(request, settings("protocol=offline,memory.size=9"))
    assert told == ([] if keeps else [f"memory.size=9: offline {request.label} keeps no memory of that size"])


def test_nothing_is_told_of_memory_to_joint_and_online() -> None:
    joint, finetune = parse_strategies("joint,finetune")
    assert memory_notes(joint, settings("protocol=offline,memory.size=9")) == []
    assert memory_notes(finetune, settings("memory.size=9")) == []


# ---------------------------------------------------------------- void as a negative


def test_void_is_a_negative_for_methods_alone_that_know_it(monkeypatch: pytest.MonkeyPatch) -> None:
    er, mib = parse_strategies("er,mib")
    negative = settings("data.void=negative")
    for void in ("ignore", "background"):
        require_void_known(er, settings(f"data.void={void}"))
    with pytest.raises(RequestError, match=r"^data.void=negative: the losses of er .*; those of dkd, dkd-m do$"):
        require_void_known(er, negative)
    monkeypatch.setattr(method_class("mib"), "void_is_negative", True)
    require_void_known(mib, negative)
    monkeypatch.setattr(method_class("dkd"), "void_is_negative", False)  # and so those of dkd-m
    with pytest.raises(RequestError, match=r"^data.void=negative: the losses of er .*; those of mib do$"):
        require_void_known(er, negative)
