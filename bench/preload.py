"""What worker processes are forked with: all code that computes, as it is when the command starts, and its digest.

Of the strategies the built-in ones, and those of other packages that the command was asked for.
"""

from __future__ import annotations

import os
from contextlib import suppress

from bench import jobs as jobs
from bench.code import code_digest
from bench.forkserver import PRELOADED
from bench.plugins import plugins_of
from strategies.importing import Importing
from strategies.registry import built_in_names, method_class

for _name in [*built_in_names(), *os.environ.get(PRELOADED, "").split()]:
    with suppress(Exception), Importing():  # whoever asks for it is told
        method_class(_name)
        plugins_of(_name)
code_digest()
