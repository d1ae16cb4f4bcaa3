"""ImageNet's two forms: folders named by WordNet id, and the official file for a flat folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import quiet_trainer, tiny_classifier, write_pictures

from igos_pl.data.imagenet import index_of_ilsvrc2012_id
from igos_pl.datamodules import ImageFolderDataModule, ImageNetDataModule
from igos_pl.errors import IgosError
from igos_pl.explainer import Explainer


def labels_of(root: Path, **options: Any) -> dict[str, int]:
    data = ImageNetDataModule(str(root), **options)
    return {sample.id: sample.truth.label for sample in data.find_samples()}


def flat(tmp_path: Path, count: int) -> Path:
    names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, count + 1)]
    return write_pictures(tmp_path / "val", names)


def test_label_is_the_place_among_all_classes_not_among_the_folders(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["n04116512/r.JPEG", "n01440764/t.JPEG", "n02124075/c.JPEG", "n02124075/d.JPEG"])
    assert labels_of(tmp_path) == {"t": 0, "c": 285, "d": 285, "r": 767}


def test_folders_may_lie_deeper(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["ILSVRC/val/n02124075/c.JPEG"])
    assert labels_of(tmp_path) == {"c": 285}


def test_official_numbers_are_translated(tmp_path: Path) -> None:
    """The first five validation images: the devkit's numbers, and the network's outputs."""
    root = flat(tmp_path, 5)
    file = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    file.write_text("490\n361\n171\n822\n297\n")
    found = labels_of(root, ground_truth=str(file))
    assert list(found.values()) == [65, 970, 230, 809, 516]
    assert list(found) == [f"ILSVRC2012_val_{i:08d}" for i in range(1, 6)]
    limited = ImageNetDataModule(str(root), ground_truth=str(file), limit=2)
    assert len(limited.find_samples()) == 5  # the limit is applied later, and the file still fits


def test_official_numbers_belong_to_file_names_in_any_folder(tmp_path: Path) -> None:
    names = ["n02124075/1.JPEG", "n01440764/2.JPEG", "n02124075/3.JPEG", "n01443537/4.JPEG"]
    root = write_pictures(tmp_path / "val", names)
    labels = labels_of(root)
    number_of = {label: number for number, label in index_of_ilsvrc2012_id().items()}
    file = tmp_path / "truth.txt"
    file.write_text("".join(f"{number_of[labels[name]]}\n" for name in "1234"))
    assert labels_of(root, ground_truth=str(file)) == labels == {"1": 285, "2": 0, "3": 285, "4": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "490\n361\n",
            "has 2 labels, but there are 3 images. Give the official file of 50,000 labels, or a file",
        ),
        ("490\n361\n171\n822\n", "has 4 labels, but there are 3 images"),
        ("490\nn02124075\n171\n", "entry 2: expected a number from 1 to 1000, found 'n02124075'"),
        ("490\n0\n171\n", "entry 2: expected a number from 1 to 1000, found '0'"),
        ("490\n1001\n171\n", "entry 2: .*found '1001'"),
        ("490\n²\n171\n", "entry 2: .*found '²'"),
        ("", "has 0 labels, but there are 3 images"),
    ],
)
def test_bad_ground_truth_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    root = flat(tmp_path, 3)
    (tmp_path / "truth.txt").write_text(text, encoding="utf-8")
    with pytest.raises(IgosError, match=message):
        labels_of(root, ground_truth=str(tmp_path / "truth.txt"))


def test_a_part_of_the_images_finds_its_labels_by_number(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "part", ["ILSVRC2012_val_00000007.JPEG", "ILSVRC2012_val_00049999.JPEG"])
    file = tmp_path / "truth.txt"
    numbers = ["1"] * 50_000
    numbers[6], numbers[49_998] = "490", "361"
    file.write_text("\n".join(numbers))
    assert list(labels_of(root, ground_truth=str(file)).values()) == [65, 970]
    write_pictures(root, ["cat.JPEG"])
    with pytest.raises(
        IgosError, match=r"50,000 labels, but there are 3 images.* cat\.JPEG has another name"
    ):
        labels_of(root, ground_truth=str(file))


def test_binary_and_missing_ground_truth_files_are_named(tmp_path: Path) -> None:
    root = flat(tmp_path, 1)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x80\n")
    with pytest.raises(IgosError, match="binary, entry 1: expected a number"):
        labels_of(root, ground_truth=str(tmp_path / "binary"))
    with pytest.raises(
        IgosError, match=r"There is no ground-truth file .*nowhere.*: correct ground_truth \(--data"
    ):
        labels_of(root, ground_truth=str(tmp_path / "nowhere"))


def test_other_folders_are_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["n02124075/c.JPEG", "cats/d.JPEG"])
    with pytest.raises(IgosError, match=r"cats/d\.JPEG does not lie in a folder.*--data\.ground_truth"):
        labels_of(tmp_path)


def test_images_of_a_class_share_their_annotations(tmp_path: Path) -> None:
    """A data set has millions of images, and empty annotations take hundreds of bytes."""
    root = write_pictures(tmp_path, ["n01440764/a.JPEG", "n01440764/b.JPEG"])
    for data in (ImageNetDataModule(str(root)), ImageFolderDataModule(str(root))):
        one, other = data.find_samples()
        assert one.truth is other.truth


def test_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(IgosError, match="There is no folder .*nowhere"):
        labels_of(tmp_path / "nowhere")


@pytest.mark.parametrize("ground_truth", [None, "truth.txt"])
def test_one_name_in_two_classes_is_refused(tmp_path: Path, ground_truth: str | None) -> None:
    root = write_pictures(tmp_path / "val", ["n01440764/a.JPEG", "n02124075/a.JPEG"])
    if ground_truth:
        ground_truth = str(tmp_path / ground_truth)
        Path(ground_truth).write_text("1\n2\n")
    data = ImageNetDataModule(str(root), ground_truth, num_workers=0)
    trainer = quiet_trainer(tmp_path / "run")
    with pytest.raises(IgosError, match=r"Two images have the id 'a': .*n01440764.*n02124075.*rename"):
        trainer.predict(Explainer(tiny_classifier(), mask_size=4), data)


@pytest.mark.filterwarnings("ignore:.*many workers.*")
def test_ground_truth_is_what_is_explained(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "val", ["n01443537/a.JPEG", "n01484850/b.JPEG"])
    explainer = Explainer(tiny_classifier(targets="ground_truth"), mask_size=4, iterations=1, path_steps=1)
    results = quiet_trainer(tmp_path / "run").predict(explainer, ImageNetDataModule(str(root), num_workers=0))
    assert results is not None
    assert results[0].explanations["label"].tolist() == [1, 2]
    assert [record.ground_truth for record in results[0].images] == [1, 2]
