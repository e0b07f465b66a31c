"""Where a page's numbers come from: the command that repeats a run, and everything its spec records of it."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

import yaml
from markupsafe import Markup

from reports.conventions import UNKNOWN, recorded
from reports.page.parts import code
from reports.records import Run, run_order
from reports.rows import method_of, seeds_text
from reports.spec import Spec
from reports.templating import joined, part

_REPEATING = (
    "Runs that differ in nothing but the seed stand together. The command gives every setting, so that presets of "
    "another version change nothing; the packages' versions and the revision are beside it."
)
_FACTS = {
    "split hash": ("split_hash",),
    "data fingerprint": ("data", "fingerprint"),
    "base model": ("base", "hash"),
    "git revision": ("git",),
}


def repeat_command(runs: Sequence[Run]) -> str:
    """Return the command that makes these runs anew, over several lines; they may differ in nothing but the seed.

    Every setting is given, so that the presets of another version change nothing: those of `config` and the method's
    parameters that its label does not name. The label stays as it was, and with it the row that the runs belong to.
    """
    spec = runs[0].spec
    config = {section: copy.copy(values) for section, values in spec["config"].items()}
    device = config.get("runtime", {}).pop("device", None)
    root = spec.get("data", {}).get("root")
    words = [
        ("bench run --strategies", _strategy(spec)),
        ("--scenario", spec["scenario"]),
        ("--seeds", ",".join(str(run.spec["seed"]) for run in runs)),
        *([("--data-root", root)] if root else []),
        *([("--device", device)] if device else []),
        *(("--set", f"{key}={value}") for key, value in _settings(spec, config)),
    ]
    return " \\\n    ".join(f"{option} {shlex.quote(str(value))}" for option, value in words)


def runs_html(runs: Sequence[Run]) -> Markup:
    """Return, for all runs that differ in nothing but the seed, the command that repeats them and what is recorded."""
    return part("runs", _REPEATING, [_group(own) for own in _but_for_the_seed(runs)]) if runs else Markup()


# ---------------------------------------------------------------- the command


def _strategy(spec: Spec) -> str:
    """The label, its values written so that they are read back as they were."""
    given = _given(spec)
    if not given:
        return str(spec["strategy"])
    parameters = spec["method"]["parameters"]
    pairs = [f"{key}={_as_given(text, parameters.get(key))}" for key, text in given.items()]
    return f"{method_of(spec['strategy'])}({','.join(pairs)})"


def _given(spec: Spec) -> dict[str, str]:
    """The parameters that the label names, as text."""
    inside = spec["strategy"].removeprefix(method_of(spec["strategy"])).removeprefix("(").removesuffix(")")
    pairs = (part.partition("=") for part in inside.split(",") if part)
    return {key: text for key, _, text in pairs}


def _as_given(text: str, value: Any) -> str:
    try:
        same = yaml.safe_load(text) == value
    except yaml.YAMLError:
        same = False
    return text if same else _yaml(value)


def _settings(spec: Spec, config: Spec) -> Iterable[tuple[str, str]]:
    for name, value in config.items():
        section = {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
        yield from ((key, _yaml(one)) for key, one in section.items())
    given, name = _given(spec), spec["method"].get("name", method_of(spec["strategy"]))
    for key, value in spec["method"]["parameters"].items():
        if key not in given:
            yield f"strategies.{name}.{key}", _yaml(value)


def _yaml(value: Any) -> str:
    """A value in one line as `bench` reads it: JSON would write 1e-05, which YAML takes for a word."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("...\n").strip()


# ---------------------------------------------------------------- what is recorded


def _but_for_the_seed(runs: Sequence[Run]) -> list[list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in sorted(runs, key=run_order):
        shared = {key: value for key, value in run.spec.items() if key not in ("seed", "base")}
        groups.setdefault(json.dumps(shared, sort_keys=True, default=str), []).append(run)
    return list(groups.values())


def _group(runs: Sequence[Run]) -> dict[str, Any]:
    spec = runs[0].spec
    return {
        "strategy": spec["strategy"],
        "scenario": spec["scenario"],
        "seeds": f"seed{'s' if len(runs) > 1 else ''} {seeds_text(run.spec['seed'] for run in runs)}",
        "hash": spec["hash"],
        "command": repeat_command(runs),
        "facts": list(_facts(runs)),
    }


def _facts(runs: Sequence[Run]) -> Iterable[tuple[str, str]]:
    spec = runs[0].spec
    yield "folders", joined((code("/".join(run.path.parts[-3:])) for run in runs), "<br>")
    for name, keys in _FACTS.items():
        yield name, joined(dict.fromkeys(code(_recorded(run.spec, keys)) for run in runs), "<br>")
    versions = spec.get("versions") or {}
    yield "versions", ", ".join(f"{name} {version}" for name, version in versions.items()) or UNKNOWN


def _recorded(spec: Spec, keys: Sequence[str]) -> str:
    value: Any = spec
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return recorded(value)
