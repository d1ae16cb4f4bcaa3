"""The table of ImageNet classes against published facts."""

from importlib.resources import files

import pytest

from igos_pl.data.imagenet import class_names, index_of_ilsvrc2012_id, index_of_wordnet_id

# The labels of validation images 1 to 20: each as the ILSVRC2012 devkit gives it, then as
# class index, which is how Caffe's val.txt gives it.
FIRST_LABELS = [
    *[(490, 65), (361, 970), (171, 230), (822, 809), (297, 516)],
    *[(482, 57), (13, 334), (704, 415), (599, 674), (164, 332)],
    *[(649, 109), (11, 286), (73, 370), (286, 757), (554, 595)],
    *[(6, 147), (648, 108), (399, 23), (749, 478), (545, 517)],
]


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (0, "tench"),
        (65, "sea snake"),
        (285, "Egyptian cat"),
        (657, "missile"),
        (872, "tripod"),
        (967, "espresso"),
        (985, "daisy"),
        (999, "toilet tissue"),
    ],
)
def test_known_names(index: int, name: str) -> None:
    assert class_names()[index] == name


def test_names_are_many_and_different() -> None:
    names = class_names()
    assert len(names) == len(set(names)) == 1000
    assert all(name and name == name.strip() for name in names)


def test_words_with_two_meanings_stay_apart() -> None:
    names, index = class_names(), index_of_wordnet_id()
    assert names[index["n02012849"]] == "crane bird"
    assert names[index["n03126707"]] == "crane"
    assert names[index["n03710637"]] == "maillot"
    assert names[index["n03710721"]] == "maillot tank suit"


def test_names_are_those_of_torchvision() -> None:
    models = pytest.importorskip("torchvision.models")
    theirs = models.ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    # Some releases give two classes the same name, "crane" or "maillot".
    twins = {134, 517, 638, 639}
    assert len(theirs) == 1000
    for index, name in enumerate(class_names()):
        assert index in twins or name == theirs[index]


def test_wordnet_ids_are_sorted() -> None:
    ids = list(index_of_wordnet_id())
    assert len(ids) == 1000
    assert ids == sorted(ids)
    assert all(len(wnid) == 9 and wnid[0] == "n" and wnid[1:].isdigit() for wnid in ids)
    assert list(index_of_wordnet_id().values()) == list(range(1000))


def test_ilsvrc2012_ids_match_the_indices_one_to_one() -> None:
    index = index_of_ilsvrc2012_id()
    assert sorted(index) == list(range(1, 1001))
    assert sorted(index.values()) == list(range(1000))


@pytest.mark.parametrize(("label", "index"), FIRST_LABELS)
def test_first_validation_labels(label: int, index: int) -> None:
    assert index_of_ilsvrc2012_id()[label] == index


@pytest.mark.parametrize(
    ("label", "wnid"),
    [
        (1, "n02119789"),
        (2, "n02100735"),
        (3, "n02110185"),
        (449, "n01440764"),
        (597, "n04485082"),
        (1000, "n03255030"),
    ],
)
def test_devkit_ids_of_wordnet_ids(label: int, wnid: str) -> None:
    assert index_of_ilsvrc2012_id()[label] == index_of_wordnet_id()[wnid]


def test_table_has_a_header_and_counts_its_lines() -> None:
    text = files("igos_pl.data").joinpath("imagenet_classes.tsv").read_text(encoding="utf-8")
    header, *lines = text.splitlines()
    assert header.split("\t") == ["index", "wordnet_id", "ilsvrc2012_id", "name"]
    assert [int(line.split("\t")[0]) for line in lines] == list(range(1000))
