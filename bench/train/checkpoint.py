"""Checkpoints: state in a file that tells whether it is whole and whose it is, and that executes nothing.

A file is the SHA-256 of what follows, as a line, and what `torch.save` wrote of {"owner", "state"}. It is
read with `weights_only`, which builds tensors and plain data and refuses everything else.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.screen.faults import explained
from benchmarks.cache import sealed, unsealed
from reports.atomic import write_atomic_bytes

KEPT_STEPS = 2
"""Checkpoints of so many steps are kept: where the newest is damaged, the one before it serves."""


class CheckpointError(ValueError):
    """A checkpoint is damaged, or not this job's: one line that names the file and what is wrong with it."""


@dataclass(frozen=True)
class Checkpoint:
    """A file of state that only a job with an equal `owner`, plain data, goes on from."""

    path: Path
    owner: Mapping[str, Any]

    def write(self, state: Any) -> None:
        """Write plain data and tensors; the file appears by one rename."""
        import torch

        buffer = io.BytesIO()
        torch.save({"owner": dict(self.owner), "state": state}, buffer)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic_bytes(self.path, sealed(buffer.getvalue()))

    def read(self) -> Any:
        """Return the state, its tensors on the CPU; raise `CheckpointError`, and OSError where that may pass."""
        try:
            file = self.path.read_bytes()
        except (FileNotFoundError, IsADirectoryError) as error:
            raise CheckpointError(f"{self.path}: {error.strerror}") from None
        try:
            content = unsealed(file)
        except ValueError as error:
            raise CheckpointError(f"{self.path}: damaged, {error}") from None
        import torch

        try:
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            owner, state = found["owner"], found["state"]
        except Exception as error:
            if explained(error):
                raise
            kind = type(error).__name__
            raise CheckpointError(f"{self.path}: refused, it is not plain data and tensors ({kind})") from None
        if owner != self.owner:
            raise CheckpointError(f"{self.path}: another job's, {_difference(owner, self.owner)}")
        return state

    def fault(self) -> CheckpointError | None:
        """Return what `read` would raise; None where it would return."""
        try:
            self.read()
        except CheckpointError as error:
            return error
        return None

    def restore(self, load: Callable[[Any], None]) -> None:
        """Give the state to `load`; raise `CheckpointError`, also where `load` can make nothing of it."""
        state = self.read()
        try:
            load(state)
        except Exception as error:
            if explained(error):
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise CheckpointError(f"{self.path}: does not fit ({reason})") from error

    def remove(self) -> None:
        """Delete the file, if there is one."""
        self.path.unlink(missing_ok=True)


def _difference(found: Any, wanted: Mapping[str, Any]) -> str:
    if not isinstance(found, dict):
        return "it does not say whose"
    sides = {key: (found.get(key, "missing"), wanted.get(key, "missing")) for key in [*wanted, *found]}
    key = next(key for key, (there, here) in sides.items() if there != here)
    return "its {} is {}, not {}".format(key, *sides[key])


def _told(plugins: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join("{distribution} {version} (code {code})".format(**one) for one in plugins)


class StepCheckpoints:
    """The checkpoints of a run after its last steps: `folder`/step-<t>.ckpt."""

    def __init__(self, folder: Path, spec: Mapping[str, Any]) -> None:
        """`spec` is the run's: whatever could change its numbers stands in its checkpoints."""
        self.folder = folder
        of_all = {key: spec[key] for key in ("hash", "seed", "versions", "code")}
        plugins = {"plug-in": spec["plugins"], "network's plug-in": spec["network_plugins"]}
        self.owner = {**of_all, **{key: _told(used) for key, used in plugins.items()}}

    def after(self, step: int) -> Checkpoint:
        """Return the checkpoint after a step."""
        return Checkpoint(self.folder / f"step-{step}.ckpt", {**self.owner, "step": step})

    def during(self, step: int) -> Checkpoint:
        """Return the checkpoint of the training at a step."""
        return Checkpoint(self.folder / f"training-{step}.ckpt", {**self.owner, "training": step})

    def steps(self) -> list[int]:
        """Return the steps after which there is one, the newest first, sound or not."""
        names = (re.fullmatch(r"step-(\d+)\.ckpt", path.name) for path in self.folder.glob("step-*.ckpt"))
        return sorted((int(name[1]) for name in names if name), reverse=True)

    def files(self) -> list[Path]:
        """Return the files of them all, sound or not."""
        return list(self.folder.glob("*.ckpt"))

    def write(self, step: int, state: Any) -> None:
        """Write the checkpoint after a step and delete those that it makes superfluous."""
        self.after(step).write(state)
        for old in self.steps()[KEPT_STEPS:]:
            self.after(old).remove()

    def clear(self) -> None:
        """Delete them all."""
        shutil.rmtree(self.folder, ignore_errors=True)
