"""Where a loss that is not finite was met."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from strategies.learning.faults import NonFiniteLossError


@contextmanager
def told_of_losses(before: str, after: str) -> Iterator[None]:
    """Put words around those of a `NonFiniteLossError`."""
    try:
        yield
    except NonFiniteLossError as error:
        raise NonFiniteLossError(f"{before}{error}{after}") from None
