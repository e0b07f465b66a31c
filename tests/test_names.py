"""Scenario names beyond BASE-INCREMENT: step sizes, class orders, step files, index files, one canonical name."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.errors import DataError
from benchmarks.names import class_groups, parse_name
from benchmarks.scenarios import Scenario, load_scenario
from benchmarks.sets.ade20k import Ade20k
from benchmarks.sets.registry import image_set_class
from benchmarks.streams import load_benchmark

SHAPES = image_set_class("shapes").fixed_class_names or ()


def written(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def groups_of(name: str) -> tuple[tuple[int, ...], ...]:
    return class_groups(parse_name(name), SHAPES)


# ----------------------------------------------------------------------------------------------- steps and orders


def test_sizes_give_the_classes_of_each_step() -> None:
    assert groups_of("shapes-10+6+4-disjoint") == (tuple(range(1, 11)), tuple(range(11, 17)), (17, 18, 19, 20))


def test_order_file_of_ids_permutes_the_classes(tmp_path: Path) -> None:
    file = written(tmp_path / "order.txt", "20, 19 18", *range(1, 18))
    assert groups_of(f"shapes-15-5-disjoint:order={file}") == ((20, 19, 18, *range(1, 13)), (13, 14, 15, 16, 17))


def test_order_file_of_names_has_a_name_per_line(tmp_path: Path) -> None:
    file = written(tmp_path / "order.txt", *reversed(SHAPES[1:]))
    assert groups_of(f"shapes-19-1-disjoint:order={file}") == (tuple(range(20, 1, -1)), (1,))


@given(st.integers(0, 2**32 - 1), st.sampled_from(["19-1", "15-1", "10-2", "10+6+4"]))
def test_random_order_is_a_permutation_that_its_seed_fixes(seed: int, split: str) -> None:
    name = f"shapes-{split}-overlapped:order=random:{seed}"
    groups = groups_of(name)
    assert sorted(c for group in groups for c in group) == list(range(1, 21))
    assert groups == groups_of(name)


def test_random_order_is_pinned() -> None:
    """Runs of different machines and numpy versions must agree on it."""
    assert groups_of("shapes-15-5-disjoint:order=random:3")[1] == (6, 1, 9, 4, 11)


def test_steps_file_names_the_classes_of_each_step(tmp_path: Path) -> None:
    ids = written(tmp_path / "ids.txt", "3 1 2", "7, 9", "20")
    names = written(
        tmp_path / "names.txt", f"{SHAPES[3]}, {SHAPES[1]},{SHAPES[2]}", f"{SHAPES[7]}, {SHAPES[9]}", SHAPES[20]
    )
    for file in (ids, names):
        assert groups_of(f"shapes-disjoint:steps={file}") == ((3, 1, 2), (7, 9), (20,))


def test_classes_in_no_step_are_never_known(tmp_path: Path) -> None:
    file = written(tmp_path / "steps.txt", "1 2 3", "4 5")
    benchmark = load_benchmark(f"shapes-disjoint:steps={file}")
    assert benchmark.n_classes == 5
    assert benchmark.class_names == list(SHAPES[:6])
    last = benchmark.test_stream[1].data
    assert {label for i in range(len(last)) for label in last.annotated(i)[1].unique().tolist()} <= {*range(6), 255}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((), "empty"),
        (("1 2 3",), "at least two"),
        (("1 2", "2 3"), "'2' stands there more than once"),
        (("1 2", "21"), "no class '21'"),
        (("1 2", "0"), "no class '0'"),
        (("plain red disk", "2"), "did you mean plain red disc"),
    ],
)
def test_wrong_steps_are_refused(tmp_path: Path, lines: tuple[str, ...], said: str) -> None:
    file = written(tmp_path / "steps.txt", *lines)
    with pytest.raises(DataError, match=said) as error:
        groups_of(f"shapes-disjoint:steps={file}")
    assert str(file) in str(error.value)


def test_order_of_a_part_of_the_classes_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "order.txt", *range(1, 20))
    with pytest.raises(DataError, match="orders 19 classes; shapes has 20"):
        groups_of(f"shapes-15-1-disjoint:order={file}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shapes-15-1-disjoint:", "unknown scenario"),
        ("shapes-15-1-disjoint:order", "'order' is not one of the options"),
        ("shapes-15-1-disjoint:order=", "'order=' is not one of"),
        ("shapes-15-1-disjoint:oder=random:1", "'oder=random:1' is not one of"),
        ("shapes-15-1-disjoint:order=random:1,order=random:2", "once each"),
        ("shapes-15-1-disjoint:order=random:x", "order=random:SEED"),
        ("shapes-15-1-disjoint:order=random:-1", "order=random:SEED"),
        ("shapes-15-1-disjoint:order=mib-b", "order=mib-b is not a file and not random:SEED"),
        ("shapes-15-1-disjoint:order=nowhere.txt", "nowhere.txt is not a file and not random:SEED"),
        ("folder-2-1-disjunct", "did you mean folder-2-1-disjoint?"),
        ("folder-2-1", "SETUP one of disjoint, overlapped, sequential"),
        ("shapes-disjoint", "unknown scenario"),
        ("shapes-disjoint:steps=nowhere.txt", "nowhere.txt is not a file"),
        ("shapes-15-1-disjoint:steps=f", "come from 15-1 or from steps="),
        ("shapes-disjoint:steps=f,order=random:1", "order= cannot be given too"),
        ("shapes-15-1-disjoint:rule=coco", "allowed are voc, ade"),
        ("shapes-15-1-overlapped:rule=ade", "nothing is divided"),
        ("shapes-10+6-disjoint", "20 classes, 10\\+6 are 16"),
        ("shapes-20+0-disjoint", "20 classes"),
        ("voc-19-1:order=random:1", "did you mean voc-19-1-disjoint:order=random:1"),
        ("shapes-15-1-disjoint:split=nowhere", "nowhere is not a folder"),
        ("shapes-15-1-disjoint:first=1", "it is a number of steps, at least 2"),
        ("shapes-15-1-disjoint:first=two", "first=two; it is a number of steps"),
        ("shapes-15-1-disjoint:first=7", "it has 6 steps, not 7"),
    ],
)
def test_wrong_options_are_refused_in_one_line(name: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        load_scenario(name)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------ canonical names


def test_standard_scenario_has_one_name_however_it_is_asked_for(tmp_path: Path) -> None:
    steps = written(tmp_path / "steps.txt", " ".join(map(str, range(1, 16))), "16 17 18 19 20")
    order = written(tmp_path / "order.txt", *range(1, 21))
    asked = [
        "shapes-15-5-disjoint",
        "shapes-15+5-disjoint",
        f"shapes-15-5-disjoint:order={order}",
        f"shapes-disjoint:steps={steps}",
        "shapes-15-5-disjoint:rule=voc",
    ]
    found = [load_scenario(name) for name in asked]
    assert {scenario.name for scenario in found} == {"shapes-15-5-disjoint"}
    assert len({scenario.split_hash for scenario in found}) == 1


def test_files_stand_in_the_name_as_a_digest_of_what_they_say(tmp_path: Path) -> None:
    first = written(tmp_path / "a.txt", *reversed(range(1, 21)))
    second = written(tmp_path / "b.txt", ",".join(map(str, reversed(range(1, 21)))))
    other = written(tmp_path / "c.txt", 2, 1, *range(3, 21))
    names = [load_scenario(f"shapes-15-5-disjoint:order={file}").name for file in (first, second, other)]
    assert names[0] == names[1] != names[2]
    assert str(tmp_path) not in names[0]


def test_a_published_order_is_asked_for_by_name_and_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("".join(f"{c} {c}\n" for c in range(150)))
    file = written(tmp_path / "order.txt", *Ade20k.class_orders["mib-b"])
    asked = [f"ade-100-50-disjoint:order={order}" for order in ("mib-b", file)]
    found = [load_scenario(name, class_list=tmp_path / "train.txt") for name in asked]
    assert [scenario.name for scenario in found] == ["ade-100-50-disjoint:order=mib-b"] * 2
    assert found[0].groups == found[1].groups
    with pytest.raises(DataError, match="mib-c is not a file and not mib-b and not random:SEED"):
        class_groups(parse_name("ade-100-50-disjoint:order=mib-c"), Ade20k.fixed_class_names or ())


def test_a_random_order_keeps_its_seed_in_the_name() -> None:
    assert load_scenario("shapes-15-5-overlapped:order=random:7").name == "shapes-15-5-overlapped:order=random:7"


@pytest.mark.parametrize("name", ["voc-15-1-disjoint", "voc-15-1-sequential:rule=ade", "voc-15-1-overlapped"])
def test_the_first_steps_alone_have_the_images_and_labels_that_they_have_among_all(data_root: Path, name: str) -> None:
    whole, first = (load_benchmark(full, data_root) for full in (name, f"{name}{',' if ':' in name else ':'}first=3"))
    assert first.scenario.name == f"{name}{',' if ':' in name else ':'}first=3"
    assert first.class_names == whole.class_names[: 1 + 15 + 1 + 1]
    assert first.scenario.split_hash != whole.scenario.split_hash
    for stream in ("train", "test", "joint"):
        assert len(first.streams[stream]) == 3
        for own, other in zip(first.streams[stream], whole.streams[stream][:3], strict=True):
            assert own.data.ids == other.data.ids
            assert own.classes_seen_so_far == other.classes_seen_so_far
            for i in range(len(own.data)):
                assert all(np.array_equal(*pair) for pair in zip(own.data[i], other.data[i], strict=True))


def test_all_steps_have_no_name_of_their_own() -> None:
    assert load_scenario("shapes-15-5-disjoint:first=2").name == "shapes-15-5-disjoint"


# ------------------------------------------------------------------------------------------------- index files

NAME = "shapes-15-1-overlapped"


@pytest.fixture(scope="module")
def computed() -> Scenario:
    return load_scenario(NAME)


def test_index_files_give_back_the_split_they_were_written_from(computed: Scenario, tmp_path: Path) -> None:
    arrays, texts = tmp_path / "arrays", tmp_path / "texts"
    ids = computed.imageset.ids("train")
    for folder in (arrays, texts):
        folder.mkdir()
        written(folder / "README", "not an index file")
    for t, step in enumerate(computed.steps):
        np.save(arrays / f"train-{t}.npy", step.train)
        np.save(arrays / f"val-{t}.npy", step.test)
        written(texts / f"step_{t}.txt", *(ids[i] for i in step.train))
    loaded = [load_scenario(f"{NAME}:split={folder}") for folder in (arrays, texts)]
    assert len({scenario.name for scenario in loaded}) == 1
    for scenario in loaded:
        assert scenario.split_hash == computed.split_hash
        assert scenario.name.startswith(f"{NAME}:split=")


def test_images_without_a_class_of_their_step_are_counted(computed: Scenario, tmp_path: Path) -> None:
    for t, step in enumerate(computed.steps):
        foreign = np.setdiff1d(np.arange(3000), step.train)[: 3 if t == 2 else 0]
        np.save(tmp_path / f"{t}.npy", np.concatenate([step.train, foreign]))
    scenario = load_scenario(f"{NAME}:split={tmp_path}")
    assert scenario.images_without_own_class == [0, 0, 3, 0, 0, 0]


def good_index_files(folder: Path) -> None:
    for t in range(6):
        np.save(folder / f"{t}.npy", np.arange(10 * t, 10 * t + 10))


def test_disjoint_index_files_share_no_image(tmp_path: Path) -> None:
    good_index_files(tmp_path)
    load_scenario(f"shapes-15-1-disjoint:split={tmp_path}")
    np.save(tmp_path / "5.npy", np.array([3, 50]))
    with pytest.raises(DataError, match="train-0003 to several steps"):
        load_scenario(f"shapes-15-1-disjoint:split={tmp_path}")
    load_scenario(f"shapes-15-1-overlapped:split={tmp_path}")


class Ran:
    """Pickled, it would create a file when read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("2.npy", np.array([0, 3000]), "place 3000; the training list has places 0..2999"),
        ("2.npy", np.array([-1]), "place -1"),
        ("2.npy", np.array([1, 1]), "more than once"),
        ("2.npy", np.array([], dtype=int), "lists no image"),
        ("2.npy", np.array([0.5]), "float64"),
        ("2.npy", np.array([[1, 2]]), "one axis"),
        ("2.npy", b"nonsense", "cannot read"),
        ("2.txt", b"train-0001\n", "both index files of step 2"),
        ("9.npy", np.array([1]), "steps \\[0, 1, 2, 3, 4, 5, 9\\]; the scenario has steps 0..5"),
    ],
)
def test_wrong_index_files_are_refused(tmp_path: Path, name: str, content: np.ndarray | bytes, said: str) -> None:
    good_index_files(tmp_path)
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.save(tmp_path / name, content)
    with pytest.raises(DataError, match=said) as error:
        load_scenario(f"{NAME}:split={tmp_path}")
    assert str(tmp_path) in str(error.value)


def test_index_file_that_holds_a_pickle_is_not_executed(tmp_path: Path) -> None:
    good_index_files(tmp_path)
    np.save(tmp_path / "2.npy", np.array([Ran(tmp_path / "ran")], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"cannot read .*2\.npy"):
        load_scenario(f"{NAME}:split={tmp_path}")
    assert not (tmp_path / "ran").exists()


def test_unknown_id_in_a_text_file_is_named(tmp_path: Path) -> None:
    for t in range(6):
        written(tmp_path / f"{t}.txt", f"train-{t:04d}", *(["train-9999"] if t == 4 else []))
    with pytest.raises(DataError, match=r"4\.txt lists train-9999"):
        load_scenario(f"{NAME}:split={tmp_path}")
