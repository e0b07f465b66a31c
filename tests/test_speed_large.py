"""`bench speed large`: on the small network everything of it is there."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from bench.speed.large import CASES, print_case


def test_an_update_may_be_of_one_incoming_image(capsys: pytest.CaptureFixture[str]) -> None:
    case = next(case for case in CASES if case.batch == 1)
    print_case(replace(case, preset="small", side=32, methods=("er", "mib")), rounds=1)
    assert capsys.readouterr().out.count(" ms  ") == 3


def test_every_method_and_the_bare_loop_are_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = next(case for case in CASES if "plop" in case.methods)
    print_case(replace(case, preset="mib,small", side=32, batch=2, methods=("finetune", "mib", "plop")), rounds=1)
    told = capsys.readouterr().out
    named = re.findall(r"^  (\S+(?: loop)?).* ms  ", told, re.MULTILINE)
    assert named == ["finetune", "mib", "plop", "bare loop"]
    assert 0 < int(re.findall(r"pass: (\d+) % of mib's update", told)[0]) < 100
