"""A Slurm on this machine alone: for tests, and by hand with `python tests/slurm_box.py COMMAND...`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "setpriv")
LONGEST_FOLDER = 75  # Slurm's sockets lie in it, and a socket's path has 107 bytes

# The partition `urgent` preempts: a job in `main` gets the signal it asked for with --signal and goes back 10 s later.
CONF = """\
ClusterName=box
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
Epilog={folder}/epilog
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
JobRequeue=1
KillWait=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
NodeName=box NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} CPUs={cpus}
PartitionName=main Nodes=box Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=10
PartitionName=urgent Nodes=box MaxTime=INFINITE PriorityTier=2
"""

# A requeued job waits for cred_expire + 1 s, 6 s at least, unless its start already lies ahead when its node is free of
# it; the epilog runs just before that.
EPILOG = """\
#!/bin/sh
SLURM_CONF={folder}/slurm.conf scontrol update jobid=$SLURM_JOB_ID StartTime=now+2 || true
"""


@dataclass(frozen=True)
class SlurmBox:
    """A running Slurm: its files lie in `folder`, its clients need `environment` beside their own."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: str, timeout: float = 30) -> str:
        """Return what a client prints; raise `CalledProcessError` if it fails, `TimeoutExpired` after `timeout` s."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=timeout)
        return done.stdout


def skip_reason() -> str | None:
    """Return why no Slurm can be started here; None if it can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not found on the PATH: apt-get install slurmctld slurmd slurm-client munge"
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    return None


@contextmanager
def slurm(cpus: int = 2) -> Iterator[SlurmBox]:
    """Start a Slurm with one node of `cpus` CPUs, real or not, and all its files in a temporary folder.

    At the end its jobs are cancelled, and every process is killed that has its SLURM_CONF in the environment.
    """
    with TemporaryDirectory(prefix="slurm-") as folder:
        box = SlurmBox(Path(folder).resolve())
        _write_files(box, cpus)
        daemons: list[subprocess.Popen[bytes]] = []
        try:
            _start(box, daemons)
            yield box
        finally:
            _stop(box, daemons)


def _write_files(box: SlurmBox, cpus: int) -> None:
    folder = box.folder
    if len(os.fsencode(folder)) > LONGEST_FOLDER:
        raise ValueError(f"{folder}: longer than the {LONGEST_FOLDER} bytes that Slurm's sockets leave")
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    host = socket.gethostname().partition(".")[0]
    with _listening() as first, _listening() as second:
        ports = {"controller_port": first.getsockname()[1], "node_port": second.getsockname()[1]}
    (folder / "slurm.conf").write_text(CONF.format(folder=folder, host=host, cpus=cpus, **ports))
    (folder / "epilog").write_text(EPILOG.format(folder=folder))
    (folder / "epilog").chmod(0o755)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)


def _listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def _start(box: SlurmBox, daemons: list[subprocess.Popen[bytes]]) -> None:
    names = {"socket": "socket", "key-file": "key", "log-file": "log", "pid-file": "pid", "seed-file": "seed"}
    munge = [f"--{option}={box.folder}/munge.{name}" for option, name in names.items()]
    # forced because the folder is closed to other users, who are not served here
    daemons.append(_daemon(box, "munged", "--foreground", "--force", *munge))
    wait_until(lambda: _alive(box, daemons) and (box.folder / "munge.socket").exists(), 10)
    daemons.append(_daemon(box, "slurmctld", "-D"))
    daemons.append(_daemon(box, "slurmd", "-D", "-N", "box"))
    wait_until(lambda: _alive(box, daemons) and _idle(box), 30)


def _daemon(box: SlurmBox, *command: str) -> subprocess.Popen[bytes]:
    """Start a daemon that Ctrl-C does not reach, and that is killed if this process is."""
    with (box.folder / f"{command[0]}.log").open("wb") as log:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            env={**os.environ, **box.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _alive(box: SlurmBox, daemons: list[subprocess.Popen[bytes]]) -> bool:
    """Return True; raise `RuntimeError` with its last words if a daemon has ended."""
    for daemon, name in zip(daemons, ("munged", "slurmctld", "slurmd"), strict=False):
        if daemon.poll() is not None:
            words = (box.folder / f"{name}.log").read_text(errors="replace")
            raise RuntimeError(f"{name} ended at once:\n{words[-2000:]}")
    return True


def _idle(box: SlurmBox) -> bool:
    with suppress(subprocess.CalledProcessError):  # the controller does not answer yet
        return box.run("sinfo", "--noheader", "--partition=main", "--format=%T").strip() == "idle"
    return False


def _stop(box: SlurmBox, daemons: list[subprocess.Popen[bytes]]) -> None:
    try:
        with suppress(subprocess.SubprocessError, TimeoutError):  # what is still there is killed below
            box.run("scancel", "--user=root", timeout=5)
            wait_until(lambda: not box.run("squeue", "--noheader", timeout=5), 1)
    finally:
        wait_until(lambda: not _killed(box), 10)
        for daemon in daemons:
            daemon.wait()


def _killed(box: SlurmBox) -> list[int]:
    """Kill the processes that have this Slurm's SLURM_CONF in the environment and return which there were."""
    mark = f"SLURM_CONF={box.folder}/slurm.conf".encode()
    killed = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended meanwhile
            if mark in environment.read_bytes().split(b"\0"):
                killed.append(int(environment.parent.name))
                os.kill(killed[-1], signal.SIGKILL)
    return killed


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition holds; raise `TimeoutError` if it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s in vain")
        time.sleep(0.05)


def _refusal(command: list[str]) -> str | None:
    """Return in one line why a command cannot be run beside a Slurm; None if it can."""
    if not command:
        return "usage: python tests/slurm_box.py COMMAND..."
    if shutil.which(command[0]) is None:
        return f"{command[0]}: no such command"
    return skip_reason()


def main(command: list[str]) -> int:
    """Run a command beside a Slurm and return its exit status; 2 if it cannot be run."""
    reason = _refusal(command)
    if reason is not None:
        print(reason, file=sys.stderr)
        return 2
    for end in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(end, lambda number, _: sys.exit(128 + number))
    with slurm() as box:
        signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is the command's affair
        return subprocess.call(command, env={**os.environ, **box.environment})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
