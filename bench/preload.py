"""What worker processes are forked with: all code that computes, as it is when the command starts, and its digest."""

from __future__ import annotations

from contextlib import suppress

from bench import jobs as jobs
from bench.code import code_digest
from bench.plugins import plugins_of
from strategies.registry import BrokenStrategyError, method_class, strategy_entry_points

for _name in strategy_entry_points():
    with suppress(BrokenStrategyError):  # whoever asks for it is told
        method_class(_name)
        plugins_of(_name)
code_digest()
