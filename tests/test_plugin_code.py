"""Whose a method is and by what code: two packages with one name, edited plug-ins, plug-ins of plug-ins."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
from plugin_packages import Install

import strategies
from bench.cli.entry import main
from bench.plan.plugins import plugins_of
from bench.plan.stale import label_of, method_of
from bench.settings.errors import RequestError
from bench.settings.merging import resolve_config
from bench.settings.strategies import method_parameters, parse_strategies
from reports.rows import method_of as row_method
from reports.spec import run_folder
from strategies.learning.registry import STRATEGIES, method_class


def code_of(method: str) -> str:
    plugins_of.cache_clear()
    return str(plugins_of(method, STRATEGIES)[0]["code"])


# ------------------------------------------------------------------------------------------------ two owners


def test_a_name_that_two_packages_declare_is_refused_with_both_named(install: Install) -> None:
    install("acme-er", {"er": "acme_er:Method"})
    with pytest.raises(RequestError) as refused:
        parse_strategies("er")
    assert str(refused.value) == (
        "strategy 'er' is declared by acme-er and by continual-seg-bench; ask for acme-er:er or continual-seg-bench:er"
    )
    assert parse_strategies("mir")[0].name == "mir"


def test_the_package_s_name_chooses(install: Install) -> None:
    install("Acme.Er", {"er": "Acme_Er:Method"}, module="Acme_Er.py")
    acme, own = parse_strategies("acme_er:er(every=2),continual-seg-bench:er")
    assert (acme.label, own.label) == ("acme-er:er(every=2)", "er")
    assert method_class(acme.name).__module__ == "Acme_Er"
    assert method_class(own.name).__module__ == "strategies.er"
    assert row_method(acme.label) == "acme-er:er"
    with pytest.raises(RequestError, match="unknown strategy 'acme-er:mir'"):
        parse_strategies("acme-er:mir")


def test_one_method_under_two_names_is_given_twice(install: Install) -> None:
    install("acme", {"new": "acme:Method"})
    with pytest.raises(RequestError, match="'new' more than once"):
        parse_strategies("new,acme:new")


def test_the_listing_names_both(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install("acme", {"er": "acme:Method"})
    with pytest.raises(SystemExit) as ended:
        main(["strategies", "--check"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert not ended.value.code
    assert "er" not in lines and "mir" in lines
    for name in ("acme:er", "continual-seg-bench:er"):
        assert lines[name].endswith("ok  ('er' is declared by acme and by continual-seg-bench)")


def test_a_preset_s_section_is_the_built_in_method_s(install: Install) -> None:
    """`strategies.ours` of a preset would be refused by another package's method."""
    install("acme", {"ours": "acme:Method"})
    config = resolve_config("voc-15-1-disjoint", assignments=["strategies.acme:ours.every=3,strategies.ours.gamma=7"])
    acme, own = parse_strategies("acme:ours,continual-seg-bench:ours")
    assert method_parameters(acme, config).every == 3
    assert method_parameters(own, config).gamma == 7


def test_a_lone_package_s_section_may_have_either_name(install: Install) -> None:
    install("acme", {"new": "acme:Method"})
    for section in ("new", "acme:new"):
        config = resolve_config("shapes-15-5-disjoint", assignments=[f"strategies.{section}.every=3"])
        for name in ("new", "acme:new"):
            assert method_parameters(parse_strategies(name)[0], config).every == 3


def test_a_built_in_run_is_asked_for_whatever_else_is_installed(install: Install) -> None:
    spec = {"strategy": "er", "method": {"name": "er"}, "plugins": plugins_of("er", STRATEGIES)}
    install("acme", {"er": "acme:Method"})
    [asked] = parse_strategies([label_of(spec)])
    assert (asked.label, method_class(method_of(spec)).__module__) == ("er", "strategies.er")


def test_metadata_left_behind_is_no_second_owner(install: Install) -> None:
    install("acme", {"new": "gone:Method"}, module="gone.py", site="old")
    install("acme", {"new": "acme:Method"})
    assert STRATEGIES.packages_declaring("new") == ["acme"]
    assert STRATEGIES.entry_point("new").value == "acme:Method"


def test_a_label_makes_one_folder_on_any_file_system() -> None:
    spec = {"scenario": "s", "strategy": "acme:er(policy=a/b)", "hash": "0", "seed": 1}
    assert run_folder(Path("runs"), spec) == Path("runs/s/acme@er(policy=a_b)/0-seed1")


# ------------------------------------------------------------------------------------------------ code


def test_a_plug_in_is_known_by_distribution_version_and_code(install: Install) -> None:
    file = install("acme", {"new": "acme:Method"}, "import torch\n")
    content = file.read_bytes()
    expected = hashlib.sha256(f"acme.py {len(content)}\n".encode() + content).hexdigest()
    assert plugins_of("new", STRATEGIES) == [{"distribution": "acme", "version": "1.0", "code": expected}]


def test_a_built_in_method_is_named_alike() -> None:
    [own] = plugins_of("er", STRATEGIES)
    assert own["distribution"] == "continual-seg-bench"
    assert own["code"] != plugins_of("mir", STRATEGIES)[0]["code"]


@pytest.mark.parametrize("edited", ["acme/method.py", "acme/parts/losses.py", "acme/weights.bin"])
def test_every_file_of_its_package_counts(edited: str, install: Install, tmp_path: Path) -> None:
    install("acme", {"new": "acme.method:Method"}, module="acme/method.py")
    (tmp_path / "site" / "acme" / "__init__.py").touch()
    before = code_of("new")
    file = tmp_path / "site" / edited
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as source:
        source.write("# edited\n")
    assert code_of("new") != before
    assert "acme.method" not in sys.modules


def test_the_place_of_the_code_does_not_count(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editable install has its modules elsewhere, and names them in its metadata."""
    file = install("acme", {"new": "acme:Method"})
    helper = file.with_name("acme_helper.py")
    helper.write_text("x = 1\n")
    (tmp_path / "site" / "acme-1.0.dist-info" / "top_level.txt").write_text("acme\nacme_helper\n")
    before = code_of("new")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    for module in (file, helper):
        module.rename(tmp_path / "elsewhere" / module.name)
    assert code_of("new") == before
    (tmp_path / "elsewhere" / "acme_helper.py").write_text("x = 2\n")
    assert code_of("new") != before


def test_plug_ins_that_a_plug_in_imports_are_named_too(install: Install) -> None:
    other = install("other", {"old": "other:Method"})
    install("third", {"third": "third:Method"})
    install("acme", {"new": "acme:Method"}, "def late():\n    from other import Method\n")
    names = [plugin["distribution"] for plugin in plugins_of("new", STRATEGIES)]
    assert names == ["acme", "other"]
    before = plugins_of("new", STRATEGIES)
    other.write_text("Method = None\n")
    plugins_of.cache_clear()
    assert [one == two for one, two in zip(before, plugins_of("new", STRATEGIES), strict=True)] == [True, False]


def test_what_a_plug_in_imports_of_a_built_in_method_counts(install: Install) -> None:
    install("acme", {"new": "acme:Method"}, "from strategies.mir import Mir as Method\n")
    [plugin] = plugins_of("new", STRATEGIES)
    root = Path(strategies.__file__).parent
    own = b"from strategies.mir import Mir as Method\n"
    files = [("acme.py", own), ("strategies.mir", (root / "mir.py").read_bytes())]
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(f"{name} {len(content)}\n".encode() + content)
    assert plugin["code"] == digest.hexdigest()


def test_files_that_are_no_code_are_no_matter(install: Install, tmp_path: Path) -> None:
    file = install("acme", {"new": "acme.method:Method"}, module="acme/method.py")
    before = code_of("new")
    (tmp_path / "site" / "acme-1.0.dist-info" / "top_level.txt").write_text("acme\n__main__\n")
    assert code_of("new") == before
    (file.parent / "template.py").write_bytes(b"import \0 {{ name }}\n")
    assert code_of("new") != before
