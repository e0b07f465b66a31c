"""Commands in other surroundings than this machine's: its /dev/shm, its disks, its users."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def in_surroundings(
    command: Sequence[str | Path],
    *,
    shm: str | None = None,
    read_only: bool = False,
    writable: Sequence[Path] = (),
    user: int | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 300,
) -> "subprocess.CompletedProcess[str]":
    """Run a command with a /dev/shm of size `shm` (`none`: there is none), or as a user id without a name.

    With `read_only` nothing can be written but what lies in the folders `writable`. Skips the test where this process
    may not arrange that.
    """
    if not _allowed():
        pytest.skip("no namespace with mounts of its own can be made here (not root)")
    steps = ["set -e"]
    if shm == "none":
        empty = "mount -t tmpfs -o size=4k,mode=555 tmpfs /dev/shm; mount -o remount,ro /dev/shm"
        steps.append(empty)
    elif shm is not None:
        steps.append(f"mount -t tmpfs -o size={shm},mode=1777 tmpfs /dev/shm")
    if read_only:
        folders = " ".join(shlex.quote(str(folder)) for folder in writable)
        steps += [
            f"for folder in {folders}; do mount --bind $folder $folder; done",
            "mount -o remount,bind,ro /",
            "for disk in /tmp /var/tmp; do if mountpoint -q $disk; then mount -o remount,bind,ro $disk; fi; done",
        ]
    as_user = [] if user is None else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *_READS]
    steps.append(shlex.join(["exec", *as_user, *map(str, command)]))
    surrounded = ["unshare", "--mount", "sh", "-c", "\n".join(steps)]
    if environment is None:
        environment = {**os.environ, "PYTHONPATH": f"{HERE.parent}:{HERE}"}
    return subprocess.run(
        surrounded, env=environment, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
    )


_READS = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
"""Whoever it is can read this machine's Python, even if root alone can get there, and write no more for that."""


@cache
def _allowed() -> bool:
    tools = all(map(shutil.which, ("unshare", "mount", "setpriv")))
    trial = ["unshare", "--mount", "mount", "-o", "remount,bind,ro", "/"]
    return tools and subprocess.run(trial, capture_output=True, check=False).returncode == 0
