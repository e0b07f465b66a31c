"""What worker processes are forked with: all code that computes, as it is when the command starts, and its digest.

Of the strategies and networks the built-in ones, and those of other packages that the command was asked for.
"""

from __future__ import annotations

import os
from contextlib import suppress

from bench.plan.code import code_digest
from bench.plan.plugins import plugins_of
from bench.train import base as base
from bench.train import benchmark as benchmark
from bench.train import run as run
from bench.train import work as work
from bench.train.forkserver import PRELOADED
from strategies.learning.registry import STRATEGIES, method_class
from strategies.networks.registry import NETWORKS, network_class
from strategies.plugins.importing import Importing

_given = [name.rpartition("=") for name in os.environ.get(PRELOADED, "").split()]
for _kind, _class in ((STRATEGIES, method_class), (NETWORKS, network_class)):
    for _name in [*_kind.built_in_names(), *(name for group, _, name in _given if group == _kind.group)]:
        with suppress(Exception), Importing():  # whoever asks for it is told
            _class(_name)
            plugins_of(_name, _kind)
code_digest()
