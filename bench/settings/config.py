"""Settings: presets, files and `--set`, merged and checked; an unknown key names the nearest known one."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import importlib.resources
import importlib.util
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

import yaml
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from bench.settings.hints import did_you_mean, what_it_holds
from bench.settings.plain_yaml import AmbiguousYamlError, parse_yaml
from benchmarks.paths import user_path
from strategies.learning.faults import in_a_line
from strategies.learning.protocol import BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY, BaseRecipe, Called, OnlineProtocol
from strategies.learning.registry import (
    OWN_PACKAGE,
    BrokenStrategyError,
    UnknownStrategyError,
    entry_point,
    full_name,
    method_class,
    package_of,
    packages_declaring,
)
from strategies.networks.settings import STRICT, NetworkName, Precision

PRESETS = ("paper", "small")
DEFAULT_PRESET = {"voc": "paper", "ade": "paper", "folder": "paper", "shapes": "small", "scenes": "small"}
VALID_FRACTION = 0.1
"""Of the training images held out where the valid stream is asked for and no fraction is set."""

GRIDS: dict[str, tuple[str, ...]] = {
    "ablation": (
        "ours(memory=reservoir,loss=cross-entropy,head=linear,sampling=uniform)",
        "ours(loss=cross-entropy,head=linear,sampling=uniform)",
        "ours(head=linear,sampling=uniform)",
        "ours(sampling=uniform)",
        "ours",
    ),
}
"""Lists of strategies by name. `ablation`: the rows of Table 4, from er to ours, one part more in each."""

LAUNCHER_SECTION = "slurm"
"""Settings that stand beside those of a run, and change none of its numbers."""

_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"' r"|'[^']*'")
_BETWEEN_ASSIGNMENTS = re.compile(r",(?![^\[{(]*[\]})])(?=\s*[A-Za-z_][\w.:-]*=)")
"""Between `a=1` and `b=2` in `a=1,b=2`, not within brackets."""
LOGGERS = ("csv", "tensorboard", "wandb")

T = TypeVar("T")
Settings = dict[str, Any]


class RequestError(ValueError):
    """What was asked for is wrong; the message is one line: what, where, what is allowed."""


class MissingSettingError(RequestError):
    """A setting without a default was not given."""


@validated(frozen=True, config=STRICT)
class BaseProtocol:
    """How the base model is trained (METHODS, Protocol)."""

    epochs: Annotated[int, Field(ge=1, le=100_000), Called(("num_epochs", "max_epochs"))]
    batch_size: Annotated[int, Field(ge=1, le=65536), BATCH_SIZE]
    optimizer: Annotated[Literal["sgd", "adamw"], Called(("optim", "optimiser"))]
    lr: Annotated[float, Field(gt=0), LEARNING_RATE]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0), WEIGHT_DECAY]
    warmup_steps: Annotated[int, Field(ge=0), Called(("warmup",))]
    poly_power: Annotated[float, Field(ge=0)]
    devices: Annotated[int, Field(ge=1, le=64), Called(("gpus", "num_gpus"))]
    """GPUs, or processes on the CPU, that share each batch."""


@validated(frozen=True, config=STRICT)
class NetworkConfig:
    """Which network; `pretrained` loads ImageNet weights into its backbone."""

    name: Annotated[NetworkName, Called(("model", "backbone", "architecture"))]
    pretrained: bool


@validated(frozen=True, config=STRICT)
class MemoryConfig:
    """BM, the memory's size in images."""

    size: Annotated[int, Field(ge=1), Called(("buffer", "buffer_size", "memory", "capacity"))]


@validated(frozen=True, config=STRICT)
class DataConfig:
    """What is done to images: squeezed to `size` x `size` (or as they are), scaled, cropped, flipped."""

    size: Annotated[int, Field(ge=16, le=4096), Called(("image_size", "resolution"))] | None
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
    crop: Annotated[int, Field(ge=16), Called(("crop_size",))] | None
    flip: bool
    workers: Annotated[int, Field(ge=0), Called(("num_workers",))]
    ram_gb: Annotated[float, Field(ge=0)]
    """Decoded images are kept in memory where both splits fit in so many GiB, else decoded by workers."""
    train_list: str | None
    """A file that names the training images in place of the data root's own list."""
    shared_ids: Literal["refuse", "allow"]
    """Whether images that the training and the test list name both are refused."""
    max_megapixels: Annotated[float, Field(gt=0, le=1_000_000)]
    """Larger images, in millions of pixels, are refused: a damaged file may claim any size."""


@validated(frozen=True, config=STRICT)
class EvaluationConfig:
    """What is evaluated, and by which conventions (METHODS, Protocol)."""

    batch_size: Annotated[int, Field(ge=1, le=65536)]
    future_classes: Literal["background", "ignore"]
    """Pixels of classes not yet known count as background, or are void."""
    images: Literal["known", "all"]
    """Those with a pixel of a class known by the step, or all."""
    background_in_mean: bool
    """Whether tables and figures show the mean with the background; both are stored."""
    short_side: Annotated[int, Field(ge=16, le=4096)] | None
    """Scale the shorter side to so many pixels and take the central square; null: images as they are."""
    pictures: Annotated[int, Field(ge=0, le=10_000)]
    """Images, spread evenly over the last step's, whose predictions are kept after every step."""
    stream: Literal["test", "valid"]
    valid_fraction: Annotated[float, Field(ge=0, lt=1)]
    valid_seed: Annotated[int, Field(ge=0)]


@validated(frozen=True, config=STRICT)
class RuntimeConfig:
    """What determines a run's numbers beside its settings, independent of how many runs go side by side."""

    threads: Annotated[int, Field(ge=1, le=1024), Called(("num_threads",))]
    precision: Annotated[Precision, Called(("amp", "dtype"))]
    """Of the backbone: fp32, or bf16 autocast."""
    tf32: bool
    """Whether GPUs may compute fp32 convolutions and matrix products in TF32: 10 bits of mantissa instead of 23."""


@validated(frozen=True, config=STRICT)
class Config:
    """All settings of a run."""

    network: NetworkConfig
    base: BaseProtocol
    incremental: OnlineProtocol
    memory: MemoryConfig
    data: DataConfig
    evaluation: EvaluationConfig
    runtime: RuntimeConfig
    strategies: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class StrategyRequest:
    """A strategy as asked for: its name and the parameters given with it, as in `ours(head=linear)`."""

    name: str
    """`er`, or `package:er`: what `strategies.learning.registry` knows it by."""
    parameters: tuple[tuple[str, Any], ...] = ()

    @property
    def title(self) -> str:
        """The name in results and settings: that of a built-in method has no package."""
        return self.name.removeprefix(f"{OWN_PACKAGE}:")

    @property
    def label(self) -> str:
        """The name of its rows and, as far as a file system allows it, of its folder."""
        given = ",".join(f"{k}={'null' if v is None else v}" for k, v in self.parameters)
        return f"{self.title}({given})" if given else self.title


def parse_strategies(text: str | Sequence[str]) -> list[StrategyRequest]:
    """Parse `er,ours(sampling=uniform)`, or the name of a grid; raise `RequestError` where it is wrong."""
    requests = [_parse_strategy(part) for part in _strategy_parts(text)]
    if not requests:
        raise RequestError("--strategies is empty; `bench strategies` lists what there is")
    asked = [(full_name(entry_point(r.name)), r.parameters) for r in requests]
    for one, request in zip(asked, requests, strict=True):
        if asked.count(one) > 1:
            raise RequestError(f"--strategies names '{request.label}' more than once")
    return requests


def strategy_labels(text: str) -> list[str]:
    """Return the labels of the strategies that `parse_strategies` reads, be their packages installed or not."""
    return [StrategyRequest(*_read_strategy(part)).label for part in _strategy_parts(text)]


def parse_loggers(text: str | Sequence[str]) -> tuple[str, ...]:
    """Parse `csv,tensorboard`; raise `RequestError` for an unknown name or a package that is missing."""
    asked = text.split(",") if isinstance(text, str) else text
    names = tuple(dict.fromkeys(name.strip() for name in asked if name.strip()))
    for name in names:
        if name not in LOGGERS:
            near = difflib.get_close_matches(name, LOGGERS, n=1)
            hint = f"did you mean {near[0]}? " if near else "unknown "
            raise RequestError(f"--loggers {name}: {hint}(known: {', '.join(LOGGERS)})")
        if name != "csv" and importlib.util.find_spec(name) is None:
            raise RequestError(f"--loggers {name}: the package is missing; pip install {name}")
    return names


def _split_outside_brackets(text: str) -> list[str]:
    return re.split(r",(?![^(]*\))", text)


def _strategy_parts(text: str | Sequence[str]) -> list[str]:
    """Each strategy's text, a grid's one by one."""
    given = _split_outside_brackets(text) if isinstance(text, str) else list(text)
    parts = [strategy.strip() for part in given for strategy in GRIDS.get(part.strip(), (part,))]
    return [part for part in parts if part]


def _parse_strategy(text: str) -> StrategyRequest:
    name, parameters = _read_strategy(text)
    try:
        point = entry_point(name)
    except UnknownStrategyError as error:
        raise RequestError(str(error)) from None
    return StrategyRequest(full_name(point) if ":" in name else name, parameters)


def _read_strategy(text: str) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """A strategy's name and parameters."""
    match = re.fullmatch(r"([^()\s]+)(?:\((.*)\))?", text)
    if match is None:
        raise RequestError(f"cannot read the strategy '{text}'; it is NAME or NAME(parameter=value,...)")
    pairs = [_pair(p, f"strategy '{text}'") for p in (match[2] or "").split(",") if p.strip()]
    _require_once([key for key, _ in pairs], f"strategy '{text}'")
    return match[1], tuple(sorted(pairs))


def _pair(text: str, where: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RequestError(f"{where}: '{text}' is not key=value")
    try:
        return key.strip(), parse_yaml(value)
    except AmbiguousYamlError as error:
        raise RequestError(f"{where}: '{text}': {error}") from None
    except yaml.YAMLError:
        raise RequestError(f"{where}: cannot read the value of '{text}'") from None


def resolve_config(
    scenario: str,
    preset: str | None = None,
    file: Path | None = None,
    assignments: Sequence[str] = (),
    evaluate_on: str | None = None,
) -> Config:
    """Return the settings: the preset of the scenario's data set, then the file, then each `key=value`, checked.

    `evaluate_on` chooses the stream over all of them; `valid` holds out `VALID_FRACTION` where no fraction is set.

    In a preset or file, settings below `scenarios: PATTERN:` hold for the scenarios that match, over the others.
    Raises `RequestError` for an unknown preset, key or strategy and for a value outside its range.
    """
    settings = _merged_settings(scenario, preset, file, assignments)
    settings.pop(LAUNCHER_SECTION, None)
    if evaluate_on is not None:
        settings = _merged(settings, {"evaluation": {"stream": evaluate_on}})
    if evaluate_on == "valid" and not settings["evaluation"].get("valid_fraction"):
        settings = _merged(settings, {"evaluation": {"valid_fraction": VALID_FRACTION}})
    config = _with_absolute_list(checked(Config, settings))
    for name in config.strategies:
        try:
            if not packages_declaring(name):
                entry_point(name)
        except UnknownStrategyError as error:
            raise RequestError(f"strategies.{name}: {error}") from None
    _check_together(config)
    return config


def _with_absolute_list(config: Config) -> Config:
    """Return the settings with a training list that jobs find whatever folder they start in."""
    if config.data.train_list is None:
        return config
    file = str(user_path(config.data.train_list).absolute())
    return dataclasses.replace(config, data=dataclasses.replace(config.data, train_list=file))


def launcher_settings(
    scenario: str, preset: str | None = None, file: Path | None = None, assignments: Sequence[str] = ()
) -> Settings:
    """Return the section of the settings that tells how jobs are submitted, unchecked; see `resolve_config`."""
    section = _merged_settings(scenario, preset, file, assignments).get(LAUNCHER_SECTION, {})
    if not isinstance(section, dict):
        raise RequestError(f"{LAUNCHER_SECTION}={section!r}: a section of settings is a mapping")
    return section


def _merged_settings(scenario: str, preset: str | None, file: Path | None, assignments: Sequence[str]) -> Settings:
    chosen = preset or DEFAULT_PRESET[scenario.partition("-")[0]]
    if chosen not in PRESETS:
        near = difflib.get_close_matches(chosen, PRESETS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise RequestError(f"unknown preset '{chosen}'{hint} (known: {', '.join(PRESETS)})")
    settings = _for_scenario(
        read_yaml(importlib.resources.files("bench.settings") / "presets" / f"{chosen}.yaml"), scenario
    )
    if file is not None:
        settings = _merged(settings, _for_scenario(read_yaml(file), scenario))
    for given in assignments:
        pairs = [_pair(text, "--set") for text in _split_assignments(given)]
        _require_once([key for key, _ in pairs], f"--set {given}")
        for key, value in pairs:
            nested: Any = value
            for part in reversed(key.split(".")):
                nested = {part: nested}
            settings = _merged(settings, nested)
    return settings


def _split_assignments(text: str) -> list[str]:
    """Return the parts of `a=1,b=2`, of which brackets and quotes are kept whole."""
    unquoted = _QUOTED.sub(lambda quoted: "_" * len(quoted[0]), text)
    cuts = [-1, *(comma.start() for comma in _BETWEEN_ASSIGNMENTS.finditer(unquoted)), len(text)]
    return [text[before + 1 : after] for before, after in pairwise(cuts)]


def python_assignments(settings: Mapping[str, Any]) -> list[str]:
    """Return `key=value` for settings with Python's values, tuples and None among them, as `--set` takes them.

    A text is taken as it is; raises `RequestError` for what is no plain data.
    """
    return [f"{key}={_as_text(key, value)}" for key, value in settings.items()]


def _as_text(key: str, value: Any) -> str:
    try:
        return json.dumps(value, default=_plain_data)
    except (AttributeError, TypeError, ValueError):
        raise RequestError(f"{key}={value!r}: a setting is a number, a text, a truth value, None or a list") from None


def _plain_data(value: Any) -> Any:
    """Return what a path, or a number of NumPy or torch, stands for."""
    return str(value) if isinstance(value, os.PathLike) else value.item()


def _require_once(keys: Sequence[str], where: str) -> None:
    """Raise `RequestError` where a key stands among the others once more."""
    for key in keys:
        if keys.count(key) > 1:
            raise RequestError(f"{where}: {key} is given more than once")


def with_own_option(assignments: Sequence[str], key: str, value: object, option: str) -> list[str]:
    """Return the assignments and one that an option of its own makes; `RequestError` where they have another value."""
    for given in assignments:
        for text in _split_assignments(given):
            name, _, other = text.partition("=")
            if name.strip() == key and other.strip() != str(value):
                raise RequestError(f"{option} {value} and --set {text.strip()}: give one of them")
    return [*assignments, f"{key}={value}"]


def _check_together(config: Config) -> None:
    if config.data.scale[0] > config.data.scale[1]:
        raise RequestError(f"data.scale {list(config.data.scale)}: the first value is above the second")
    if config.data.size is not None and config.evaluation.short_side is not None:
        raise RequestError("evaluation.short_side is for images as they are; data.size squeezes them to one size")
    if config.data.size is None and config.evaluation.short_side is None and config.evaluation.batch_size > 1:
        raise RequestError("evaluation.batch_size must be 1 where images differ in size (data.size is null)")
    if config.data.crop is None and (config.data.size is None or config.data.scale != (1.0, 1.0)):
        raise RequestError("data.crop must be set where data.size is null or data.scale varies: images differ in size")
    if config.network.pretrained and config.network.name == "small":
        raise RequestError("network.pretrained=True: there are no ImageNet weights for network.name=small")
    if config.evaluation.stream == "valid" and config.evaluation.valid_fraction == 0:
        raise RequestError("evaluation.stream=valid needs evaluation.valid_fraction above 0")


def read_yaml(path: Any) -> Settings:
    """Return the mapping in a plain YAML file; raise `RequestError` where it is something else."""
    try:
        settings = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"cannot read the settings {path} ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is not text ({error.reason})") from None
    except AmbiguousYamlError as error:
        raise RequestError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise RequestError(f"{path} is not plain YAML ({' '.join(str(error).split())})") from None
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise RequestError(f"{path}: settings are a mapping of sections")
    return settings


def _for_scenario(settings: Settings, scenario: str) -> Settings:
    """Return the settings with those of the matching `scenarios` patterns over them."""
    patterns = settings.pop("scenarios", {})
    if not isinstance(patterns, dict) or not all(isinstance(value, dict) for value in patterns.values()):
        raise RequestError("scenarios: below it stand patterns of scenario names, and below each a mapping of sections")
    for pattern, special in patterns.items():
        if fnmatch.fnmatchcase(scenario, pattern):
            settings = _merged(settings, special)
    return settings


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> Settings:
    result = dict(under)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = _merged(below, value)
        result[key] = value
    return result


def checked(kind: type[T], settings: Mapping[str, Any], where: str = "") -> T:
    """Build a dataclass of settings; raise `RequestError` that names the key, its value and what is allowed."""
    _check_keys(kind, settings, where, lambda unknown, value: did_you_mean(unknown, value, kind, where))
    try:
        return TypeAdapter(kind).validate_python(dict(settings))
    except ValidationError as error:
        if error.errors()[0]["type"] == "missing":
            raise MissingSettingError(_first_problem(error, where)) from None
        raise RequestError(_first_problem(error, where)) from None


def _first_problem(error: ValidationError, where: str = "") -> str:
    first = error.errors()[0]
    key = ".".join([*filter(None, [where]), *(str(p) for p in first["loc"])])
    if first["type"] == "missing":
        return f"{key} is missing"
    return f"{key}={_shown(first['input'])}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _shown(value: object) -> str:
    return "null" if value is None else repr(value)


def _check_keys(kind: type[Any], settings: Mapping[str, Any], where: str, hint: Callable[[str, object], str]) -> None:
    types = get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]
    for key, value in settings.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in known:
            raise RequestError(f"unknown setting {path}; {hint(path, value)}")
        if isinstance(value, bool) and types[key] is not bool:
            raise RequestError(f"{path}={value!r}: no truth value is allowed here")
        if isinstance(value, str) and value.lower() == "none" and NoneType in get_args(types[key]):
            raise RequestError(f"{path}={value}: write null for none")
        if dataclasses.is_dataclass(types[key]):
            if not isinstance(value, Mapping):
                told = what_it_holds(types[key], path)
                raise RequestError(f"{path}={_shown(value)}: a section of settings is a mapping; {told}")
            _check_keys(types[key], value, path, hint)


def method_parameters(request: StrategyRequest, config: Config | None = None) -> Any:
    """Import the method and return its checked hyper-parameters: the settings', and over them the given ones.

    Raises `RequestError` for what was given, `BrokenStrategyError` for what the method makes of it.
    """
    settings = dict(request.parameters)
    for section in _sections(request.name):
        settings = {**(config.strategies.get(section, {}) if config else {}), **settings}
    kind = method_class(request.name).Parameters
    try:
        parameters = checked(kind, settings, f"strategies.{request.title}")
        json.dumps(dataclasses.asdict(parameters))  # a run's record holds them
    except RequestError:
        raise
    except Exception as error:
        raise BrokenStrategyError(entry_point(request.name), f"refuses its Parameters: {in_a_line(error)}") from error
    return parameters


def base_recipe(request: StrategyRequest, parameters: Any) -> BaseRecipe:
    """Return what a method asks of the base model; raise `BrokenStrategyError` where that is no recipe."""
    method, point = method_class(request.name), entry_point(request.name)
    try:
        recipe = method.recipe(parameters)
    except ValidationError as error:
        raise BrokenStrategyError(point, f"asks for a base model that is unknown: {_first_problem(error)}") from error
    except Exception as error:
        raise BrokenStrategyError(point, f"does not say which base model it needs: {in_a_line(error)}") from error
    if type(recipe) is not BaseRecipe:
        raise BrokenStrategyError(point, f"asks for a base model by {recipe!r}, which is no BaseRecipe")
    return recipe


def _sections(name: str) -> list[str]:
    """Return the sections below `strategies` that hold for a method, the one that counts most first.

    `strategies.er` is the built-in method's, or that of the one package which declares the name.
    """
    point = entry_point(name)
    own = package_of(point) == OWN_PACKAGE
    return [full_name(point), point.name] if own or len(packages_declaring(point.name)) == 1 else [full_name(point)]
