"""The line that tells what has ended a command; it imports nothing but what Python has by then."""

from __future__ import annotations

import os


def say_interrupted(number: int) -> None:
    """Say by what a command was ended; its terminal may be closed."""
    import signal
    from contextlib import suppress

    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    with suppress(OSError):
        os.write(2, f"bench: interrupted{by}\n".encode())
