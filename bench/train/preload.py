"""What worker processes are forked with: all code that computes, as it is when the command starts, and its digest.

Of the strategies the built-in ones, and those of other packages that the command was asked for.
"""

from __future__ import annotations

import os
from contextlib import suppress

from bench.plan.code import code_digest
from bench.plan.plugins import plugins_of
from bench.train import work as work
from bench.train.forkserver import PRELOADED
from strategies.learning.importing import Importing
from strategies.learning.registry import built_in_names, method_class

for _name in [*built_in_names(), *os.environ.get(PRELOADED, "").split()]:
    with suppress(Exception), Importing():  # whoever asks for it is told
        method_class(_name)
        plugins_of(_name)
code_digest()
