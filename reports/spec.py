"""`spec.yaml` of a run directory: what determines the run."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from reports.atomic import write_atomic
from reports.files import RecordError, one_line, read_text

SCHEMA = 2
"""Of what is written. In schema 1 `imiou` was the mean over steps 0..t, which is `avg` since."""
READABLE = (1, SCHEMA)

Spec = dict[str, Any]

_IN_FOLDERS = str.maketrans({":": "@", "/": "_"})
"""What a strategy's label may have and the name of a folder may not, on any file system."""

_SPEC_TYPES: dict[str, type] = {
    "scenario": str,
    "strategy": str,
    "seed": int,
    "hash": str,
    "method": dict,
    "config": dict,
    "conventions": dict,
    "class_names": list,
    "steps": list,
}
# libyaml is about ten times as quick; PyYAML is sometimes built without it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_spec(spec: object, path: Path) -> Spec:
    """Return `spec` if it has what the records rest on; else raise a RecordError that names `path`."""
    if not isinstance(spec, dict):
        raise RecordError(f"{path}: not a mapping")
    if spec.get("schema") not in READABLE:
        readable = " and ".join(map(str, READABLE))
        raise RecordError(f"{path}: schema is {spec.get('schema')!r}, this version reads {readable}")
    for key, kind in _SPEC_TYPES.items():
        if not isinstance(spec.get(key), kind):
            raise RecordError(f"{path}: '{key}' must be of type {kind.__name__}, it is {spec.get(key)!r:.80}")
    if not isinstance(spec["method"].get("parameters"), dict):
        raise RecordError(f"{path}: 'method.parameters' must be of type dict")
    steps = spec["steps"]
    for number, step in enumerate(steps):
        if not isinstance(step, dict) or step.get("step") != number or not step.get("classes"):
            raise RecordError(f"{path}: 'steps' must be steps 0, 1, ... with their classes, entry {number} is not")
    if not steps or len(spec["class_names"]) != known_after(spec)[-1]:
        raise RecordError(f"{path}: 'class_names' must be the background and every class of 'steps'")
    return spec


def write_spec(run: Path, spec: Spec) -> None:
    """Write `spec.yaml` of a run directory."""
    write_atomic(run / "spec.yaml", yaml.safe_dump(spec, sort_keys=False))


def read_spec(run: Path) -> Spec:
    """Return `spec.yaml` of a run directory, finished or not; RecordError where it is missing or damaged."""
    path = run / "spec.yaml"
    text = read_text(path)
    try:
        spec = yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise RecordError(f"{path}: not YAML ({one_line(error)})") from None
    return check_spec(_in_todays_words(spec), path)


def _in_todays_words(spec: Any) -> Any:
    """Name a network's weights as today, `network.weights`, where an older spec has `network.pretrained`."""
    config = spec.get("config") if isinstance(spec, dict) else None
    network = config.get("network") if isinstance(config, dict) else None
    if isinstance(network, dict) and isinstance(network.get("pretrained"), bool):
        network["weights"] = "IMAGENET1K_V1" if network.pop("pretrained") else "none"
    return spec


def known_after(spec: Spec) -> list[int]:
    """Return the number of classes known after each step, the background included: the size of its confusion matrix."""
    return list(accumulate((len(step["classes"]) for step in spec["steps"]), initial=1))[1:]


def run_folder(out: Path, spec: Spec) -> Path:
    """Return the run's directory: scenario / strategy / hash and seed."""
    strategy = spec["strategy"].translate(_IN_FOLDERS)
    return out.joinpath(spec["scenario"], strategy, f"{spec['hash']}-seed{spec['seed']}")
