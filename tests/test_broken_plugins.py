"""A strategy that is broken is named in one line, with its package and module, wherever its code is met."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from plugin_packages import Install, put_metadata
from rich.console import Console
from test_resume import SCENARIO, command_line
from torch import Tensor
from toy import benchmark, make
from usual import usual

from bench.cli.entry import main
from bench.launch.session import prepare
from bench.plan.request import Request
from bench.settings.errors import RequestError
from strategies.er import Er
from strategies.learning.evaluation import PixelMeter
from strategies.learning.faults import PredictionError
from strategies.learning.registry import STRATEGIES, method_class
from strategies.learning.template import OnlineTemplate

ER = "from strategies.er import Er\nfrom strategies.learning.protocol import BaseRecipe\n"
BROKEN = {
    "parses": (
        "import argparse\nparser = argparse.ArgumentParser('acme')\nparser.parse_args(['x'])\n",
        "cannot be imported: it ends the process (SystemExit: 2); it prints: acme: error: unrecognized arguments: x",
    ),
    "exits": (
        "import sys\nprint('loading')\nprint('no licence', file=sys.stderr)\nsys.exit(3)\n",
        "cannot be imported: it ends the process (SystemExit: 3); it prints: no licence",
    ),
    "raises": (
        "class Oops(BaseException):\n    pass\nraise Oops('two\\nlines')\n",
        "cannot be imported: Oops: two lines",
    ),
    "lacks": (
        "import no_such_module\n",
        "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'",
    ),
    "none": ("x = 1\n", "cannot be imported: AttributeError: module 'none' has no attribute 'Method'"),
    "number": ("Method = 3\n", "is no class derived from strategies.api.Method"),
    "plugin": (
        "from avalanche.core import SupervisedPlugin\nclass Method(SupervisedPlugin):\n    pass\n",
        "is no class derived from strategies.api.Method",
    ),
    "plain": (
        "import strategies.learning.method\nclass Method(strategies.learning.method.Method):\n    pass\n",
        "has no Parameters, a dataclass of its hyper-parameters",
    ),
    "abstract": (
        f"{ER}import strategies.learning.method as m\nclass Method(m.StreamReplay):\n    Parameters = Er.Parameters\n",
        "lacks make_memory",
    ),
    "offline": (f"{ER}class Method(Er):\n    offline = True\n", "says offline, which is protocols = ('joint',) now"),
    "protocol": (
        f"{ER}class Method(Er):\n    protocols = ('online', 'nightly')\n",
        "names as its protocols ('online', 'nightly'); there are online, offline, joint",
    ),
    "word": (
        f"{ER}class Method(Er):\n    protocols = 'online'\n",
        "names as its protocols 'online'; there are online, offline, joint",
    ),
    "head": (
        f"{ER}class Method(Er):\n    recipe = lambda parameters: BaseRecipe(head='square')\n",
        "asks for a base model that is unknown: head='square': input should be 'linear', 'cosine', 'grouped' or "
        "'auxiliary'",
    ),
    "recipe": (
        f"{ER}class Method(Er):\n    recipe = lambda parameters: 'linear'\n",
        "asks for a base model by 'linear', which is no BaseRecipe",
    ),
    "ask": (
        f"{ER}class Method(Er):\n    recipe = lambda parameters: BaseRecipe(tau=parameters.tau)\n",
        "does not say which base model it needs: AttributeError: 'ErParameters' object has no attribute 'tau'",
    ),
    "path": (
        f"{ER}from dataclasses import dataclass\nfrom pathlib import Path\n"
        "@dataclass\nclass Parameters:\n    file: Path = Path('a')\nclass Method(Er):\n    Parameters = Parameters\n",
        "refuses its Parameters: TypeError: Object of type PosixPath is not JSON serializable",
    ),
}
"""By name: the code of a module, and what is said of its `Method`."""
ENDS = "import os\nos._exit(5)\n"


@contextmanager
def own_streams() -> Iterator[None]:
    """Have Python print to the process's own stdout and stderr, in whose place pytest has put others."""
    with (
        open(1, "w", closefd=False) as out,
        open(2, "w", closefd=False) as err,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        yield


@pytest.mark.parametrize("name", usual(BROKEN, "exits", "raises", "lacks", "number"))
def test_who_asks_for_it_is_told_in_one_line(
    name: str, install: Install, data_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, reason = BROKEN[name]
    install(f"acme-{name}", {name: f"{name}:Method"}, code, f"{name}.py")
    asked = Request(f"er,{name}", SCENARIO, data_root, preset="small", out=tmp_path / "runs", jobs=1)
    with own_streams(), pytest.raises(RequestError) as refused:
        prepare(asked, Console(quiet=True))
    assert str(refused.value) == f"strategy '{name}' ({name}:Method of acme-{name} 1.0) {reason}"
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "runs").exists()


def test_the_check_goes_through_them_all(install: Install, capfd: pytest.CaptureFixture[str]) -> None:
    for name, (code, _) in BROKEN.items():
        install(f"acme-{name}", {name: f"{name}:Method"}, code, f"{name}.py")
    install("acme-end", {"end": "end:Method"}, ENDS, "end.py")
    install("acme-blank", {"a blank": "blank:Method"}, f"{ER}class Method(Er):\n    pass\n", "blank.py")
    install("acme-entry", {"entry": "no class"}, "", "entry.py")
    install("acme-sound", {"sound": "sound:Method", "ablation": "sound:Method"}, module="sound.py")
    install("acme-talks", {"talks": "talks:Method"}, f"{ER}print('welcome')\nMethod = Er\n", "talks.py")
    with own_streams(), pytest.raises(SystemExit) as ended:
        main(["strategies", "--check"])
    said = capfd.readouterr()
    assert (ended.value.code, said.err) == (1, "welcome\n")
    lines = [line for line in said.out.splitlines() if " 1.0  " in line]
    told = {line.partition("  ")[0]: line.partition(" 1.0  ")[2] for line in lines}
    refused = {name: f"BROKEN: {reason}" for name, (_, reason) in BROKEN.items()}
    assert told == {
        **refused,
        "end": "BROKEN: cannot be imported: its process ended with exit status 5",
        "a blank": "BROKEN: cannot be asked for: a name has letters, digits, '_', '.', '+' and '-' alone",
        "entry": "BROKEN: cannot be imported: its package declares no MODULE:CLASS",
        "sound": "ok",
        "ablation": "ok  ('ablation' is a grid; ask for acme-sound:ablation)",
        "talks": "ok",
    }
    sound = said.out.count(f"continual-seg-bench {version('continual-seg-bench')}  ok")
    assert sound == len(STRATEGIES.built_in_names())


def test_metadata_that_cannot_be_read_hides_no_other_package(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_metadata(tmp_path / "site", "garbled", "[bench.strategies]\nno equals sign\n")
    install("acme", {"new": "acme:Method"})
    with pytest.raises(SystemExit) as ended:
        main(["strategies"])
    lines = capsys.readouterr().out.splitlines()
    assert not ended.value.code
    assert lines[-1].startswith(f"{tmp_path / 'site'}: BROKEN: the metadata of a package there cannot be read: ")
    assert {"er", "new"} <= {line.split()[0] for line in lines}


def test_what_a_sound_one_prints_goes_to_stderr_and_it_changes_no_folder(
    install: Install, capfd: pytest.CaptureFixture[str]
) -> None:
    """Printed by C too; a logger that it sets up goes on writing where it is to."""
    here = Path.cwd()
    code = "import logging, os\nlogging.getLogger('acme').addHandler(logging.StreamHandler())\nos.chdir('/')\n"
    code += "print('from Python')\nos.system('echo from C')\n"
    install("acme", {"new": "acme:Method"}, f"{code}{ER}Method = Er\n")
    with own_streams():
        assert (method_class("new"), Path.cwd()) == (Er, here)
        out, err = capfd.readouterr()
        assert (out, sorted(err.splitlines())) == ("", ["from C", "from Python"])
        logging.getLogger("acme").warning("later")
    assert capfd.readouterr().err == "later\n"


# ------------------------------------------------------------------------------------------------ runs


def test_a_method_that_ends_the_process_or_predicts_nothing_fails_its_own_run(
    install: Install, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = f"{ER}import sys\nclass Ends(Er):\n    loss = lambda *args: sys.exit(4)\n"
    code += "class Blind(Er):\n    predict = lambda *args: super(Blind, *args[:1]).predict(args[1]) * float('nan')\n"
    install("acme", {"ends": "acme:Ends", "blind": "acme:Blind"}, code)
    settings = ["base.epochs=1", "data.size=16", "memory.size=8"]
    with pytest.raises(SystemExit) as ended:
        main([*command_line(data_root, tmp_path, "ends,blind,er", settings), "--jobs", "1"])
    said = capsys.readouterr().out.splitlines()
    assert ended.value.code == 1
    failed = [line for line in said if line.startswith("failed: ")]
    assert failed[0] == "failed: ends seed 0: it ends the process (SystemExit: 4)"
    assert failed[1].startswith(
        "failed: blind seed 0: step 0: acme.Blind.predict gives NaN, or minus infinity alone, at "
    )
    assert len(failed) == 2 and any(line.split()[:2] == ["er", "1"] for line in said)
    [log] = (tmp_path / SCENARIO / "ends").rglob("log.txt")
    assert "acme.py" in log.read_text()


# ------------------------------------------------------------------------------------------------ scores


class Scoring(Er):
    """Predicts what it is told to."""

    scores = Tensor()

    def predict(self, strategy: OnlineTemplate) -> Tensor:
        return self.scores.expand(len(strategy.mb_x), -1, -1, -1)


def evaluated(scores: Tensor) -> None:
    template = make(Scoring, [PixelMeter()])
    template.begin(benchmark().train_stream[0])
    Scoring.scores = scores
    template.eval(benchmark().test_stream[0])
    template.predicted(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_one_pixel_without_a_prediction_fails_the_evaluation(value: float) -> None:
    scores = torch.zeros(4, 16, 16)
    scores[:, 2, 3] = value
    told = r"^step 0: .*\.Scoring\.predict gives NaN, or minus infinity alone, at 4 of 1,024 pixels$"
    with pytest.raises(PredictionError, match=told):
        evaluated(scores)


def test_a_prediction_outside_of_a_step_is_refused_without_one() -> None:
    template = make(Scoring)
    Scoring.scores = torch.full((4, 16, 16), torch.nan)
    with pytest.raises(PredictionError, match=r"^test_broken_plugins\.Scoring\.predict gives NaN, .* at 256 of 256 "):
        template.predicted(torch.zeros(1, 3, 16, 16))


def test_infinite_scores_that_decide_are_none_of_these() -> None:
    scores = torch.zeros(4, 16, 16)
    scores[0], scores[1, 5:] = -torch.inf, torch.inf
    evaluated(scores)


@pytest.mark.parametrize("shape", [(3, 16, 16), (4, 4, 4)])
def test_scores_of_another_shape_fail_the_evaluation(shape: tuple[int, ...]) -> None:
    with pytest.raises(PredictionError, match=r"predict gives scores of shape .*, not \(4, 4, 16, 16\)$"):
        evaluated(torch.zeros(shape))
