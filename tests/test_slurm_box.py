"""The Slurm that tests start runs arrays, requeues jobs, and leaves no process behind."""

import re
from pathlib import Path

import pytest
from slurm_box import skip_reason, slurm, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(skip_reason() is not None, reason=str(skip_reason()))]


def test_an_array_of_three_jobs_runs_and_ends(tmp_path: Path) -> None:
    script = "echo $((10 + SLURM_ARRAY_TASK_ID))"
    with slurm() as box:
        box.run("sbatch", "--array=0-2", f"--output={tmp_path}/%a.txt", f"--wrap={script}")
        wait_until(lambda: not box.run("squeue", "--noheader"), 30)
        shown = box.run("scontrol", "show", "job", "--oneliner")
    assert re.findall(r"JobState=(\w+)", shown) == ["COMPLETED"] * 3
    assert [(tmp_path / f"{element}.txt").read_text() for element in range(3)] == ["10\n", "11\n", "12\n"]


def test_a_requeued_job_runs_again_until_slurm_is_stopped(tmp_path: Path) -> None:
    output = tmp_path / "runs.txt"
    output.touch()
    script = f"echo $$ $SLURM_RESTART_COUNT >> {output}; sleep 100"

    def runs() -> list[str]:
        return output.read_text().splitlines()

    with slurm() as box:
        job = box.run("sbatch", "--parsable", "--output=/dev/null", f"--wrap={script}").strip()
        wait_until(lambda: len(runs()) == 1, 30)
        box.run("scontrol", "requeue", job)
        wait_until(lambda: len(runs()) == 2, 30)
        shown = box.run("scontrol", "show", "job", job)
        (first,), (second, restarts) = (line.split() for line in runs())
        assert restarts == "1" and "Restarts=1 " in shown and "JobState=RUNNING " in shown
        assert command(second) and not command(first)
    assert not command(second)


def command(process: str) -> str:
    """Return a process's command line; nothing if it has ended."""
    try:
        return Path("/proc", process, "cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
