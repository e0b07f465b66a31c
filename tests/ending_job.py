"""A job that ends its process, in a module of its own: processes that import no more are quick."""

import os
import signal
from dataclasses import dataclass

from jobs import IdleJob

from bench.screen.events import Report


@dataclass(frozen=True)
class Ending(IdleJob):
    """Ends its process by the signal that is its name, or with the exit status."""

    def execute(self, report: Report) -> None:
        if self.key.isdigit():
            os._exit(int(self.key))
        os.kill(os.getpid(), getattr(signal, self.key))
