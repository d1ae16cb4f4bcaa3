"""Which explanations are chosen: by number, by conditions, the best, the worst, at random."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import results

from igos_pl.cli.choosing import chosen_groups
from igos_pl.errors import IgosError
from igos_pl.store import MaskFile
from igos_pl.store.selection import groups, parsed_numbers, random_order, where

IDS = ["a", "a", "b", "c", "c", "c", "d"]
NAMES = ["cat", "dog", "cat", "tabby, tabby cat", "dog", "cat", "dog"]
INSERTION = [0.9, 0.1, 0.5, 0.7, np.nan, 0.3, 0.8]


@pytest.fixture
def masks(tmp_path: Path) -> Iterator[MaskFile]:
    path = results.write_result(
        tmp_path / "result.h5", IDS, label_name=NAMES, insertion=INSERTION, label=[0, 1, 0, 2, 1, 0, 1],
        ground_truth=[0, 0, 2, 1],
    )  # fmt: skip
    with MaskFile(path) as opened:
        yield opened


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], [0, 1, 2, 3, 4, 5, 6]), (["label_name=cat"], [0, 2, 5]), (["label_name == cat"], [0, 2, 5]),
        (["label_name!=cat"], [1, 3, 4, 6]), (["label_name=tabby, tabby cat"], [3]),
        (["insertion>0.5"], [0, 3, 6]), (["insertion >= .5", "insertion<0.8"], [2, 3]),
        (["insertion!=0.5"], [0, 1, 3, 5, 6]), (["label=ground_truth"], [0, 2, 3, 6]),
        (["label!=ground_truth", "sample_id=a"], [1]), (["difference>0.55"], [0, 6]),
    ],
)  # fmt: skip
def test_conditions(masks: MaskFile, conditions: list[str], expected: list[int]) -> None:
    assert where(masks, conditions).tolist() == expected


def test_no_rows_have_the_types_and_shapes_of_rows(masks: MaskFile) -> None:
    none = masks[masks.where(label=99)]
    for name in masks.table.schema:
        assert none.column(name).dtype == masks.column(name).dtype
        assert none.column(name).shape == (0, *masks.column(name).shape[1:])
    assert none.column("masks").mean((1, 2)).shape == (0,)
    assert none.image_column("frame").shape == (0, 4)
    assert where(none, ["label_name=cat", "insertion>0.5", "label!=ground_truth"]).tolist() == []


def test_an_image_without_a_label_is_not_predicted_wrongly(tmp_path: Path) -> None:
    path = results.write_result(
        tmp_path / "result.h5", ["a", "b", "c"], label=[0, 1, 2], ground_truth=[-1, 0, 2]
    )
    with MaskFile(path) as opened:
        assert where(opened, ["label!=ground_truth"]).tolist() == [1]
        assert where(opened, ["ground_truth!=0"]).tolist() == [2]
        assert where(opened, ["ground_truth=-1"]).tolist() == []
        assert select(opened, [0], conditions=["ground_truth=0"]).tolist() == [], "others have labels"


def test_labels_that_no_image_has(tmp_path: Path) -> None:
    path = results.write_result(tmp_path / "result.h5", ["a", "b"], label=[0, 1], ground_truth=[-1, -1])
    with MaskFile(path) as opened:
        for condition in ("label!=ground_truth", "ground_truth=1"):
            with pytest.raises(IgosError, match=f"not known for any .* {condition} chooses none. Labels"):
                where(opened, [condition])


def test_an_explanation_of_no_class_is_not_wrong(tmp_path: Path) -> None:
    path = results.write_result(
        tmp_path / "result.h5", ["a", "b", "c"], label=[-1, 1, 2], ground_truth=[0, 0, 2]
    )
    with MaskFile(path) as opened:
        assert where(opened, ["label!=ground_truth"]).tolist() == [1]
        assert where(opened, ["label<2"]).tolist() == [1]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("label_name=cta", "No explanation has label_name 'cta': did you mean cat"),
        ("labelname=cat", "did you mean label_name"), ("cat", "'cat' is not a condition"),
        ("insertion>high", "'high' in the condition"), ("label_name<cat", "use = or !="),
        ("masks=1", "No column 'masks' to choose by"), ("energy_box>0.5", "energy_box is not known"),
    ],
)  # fmt: skip
def test_wrong_conditions(masks: MaskFile, condition: str, message: str) -> None:
    with pytest.raises(IgosError, match=message):
        where(masks, [condition])


def select(masks: MaskFile, *args: Any, **choice: Any) -> np.ndarray:
    """The rows of all groups."""
    return np.concatenate(list(groups(masks, *args, **choice).values()))


def test_rows_that_fulfil_nothing_are_named(masks: MaskFile) -> None:
    options = Namespace(rows="0,2", where=["label_name=dog"], best=None, worst=None, random=None, seed=0)
    with pytest.raises(IgosError, match="^No explanation of --rows 0,2 fulfils label_name=dog$"):
        chosen_groups(options, masks)


def test_groups_have_names_and_share_no_row(masks: MaskFile) -> None:
    found = groups(masks, best=2, worst=9, at_random=9)
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "best": [0, 6], "worst": [1, 5, 2, 3], "random": [4],
    }  # fmt: skip
    assert list(groups(masks)) == ["all"]


def test_a_group_of_zero_rows_is_left_out(masks: MaskFile) -> None:
    assert select(masks, best=0, worst=1).tolist() == [1]
    assert select(masks, worst=0, at_random=9).size == 7
    with pytest.raises(IgosError, match=r"best \(--best\) is 0, so nothing is chosen: .* leave best out"):
        groups(masks, best=0)
    with pytest.raises(IgosError, match=r"best \(--best\) and at_random \(--random\) are 0"):
        groups(masks, best=0, at_random=0)


def test_best_and_worst(masks: MaskFile) -> None:
    assert select(masks, best=2).tolist() == [0, 6]
    assert select(masks, worst=2).tolist() == [1, 5]
    assert select(masks, best=1, worst=1).tolist() == [0, 1]
    assert select(masks, conditions=["label_name=dog"], best=1, worst=1).tolist() == [6, 1]
    assert select(masks, [4, 2, 4]).tolist() == [4, 2]
    with pytest.raises(IgosError, match="deletion and insertion were not computed"):
        select(masks, [4], best=1)
    with pytest.raises(IgosError, match="There is no row 7: there are 7, counted from 0"):
        select(masks, [7])


@pytest.mark.parametrize(
    ("best", "worst", "expected"),
    [(9, 9, ([0, 6, 3], [1, 5, 2])), (4, 4, ([0, 6, 3], [1, 5, 2])), (9, 1, ([0, 6, 3, 2, 5], [1])),
     (5, 2, ([0, 6, 3, 2], [1, 5])), (2, 9, ([0, 6], [1, 5, 2, 3]))],
)  # fmt: skip
def test_few_rows_are_shared_by_the_best_and_the_worst(
    masks: MaskFile, best: int, worst: int, expected: tuple[list[int], list[int]]
) -> None:
    found = groups(masks, best=best, worst=worst)
    assert (found["best"].tolist(), found["worst"].tolist()) == expected


def test_a_single_row_is_the_best(masks: MaskFile) -> None:
    assert {name: rows.tolist() for name, rows in groups(masks, [3], best=2, worst=2).items()} == {
        "best": [3], "worst": [], "random": [],
    }  # fmt: skip


def test_random_ones_are_neither_the_best_nor_the_worst(masks: MaskFile) -> None:
    for seed in range(5):
        found = groups(masks, best=2, worst=2, at_random=3, seed=seed)
        assert sorted(np.concatenate(list(found.values()))) == list(range(7))


def test_random_ones_are_of_different_images_and_depend_on_the_seed(masks: MaskFile) -> None:
    chosen = select(masks, at_random=4, seed=1)
    assert sorted(IDS[row] for row in chosen) == ["a", "b", "c", "d"]
    assert select(masks, at_random=4, seed=1).tolist() == chosen.tolist()
    assert len({tuple(select(masks, at_random=4, seed=seed)) for seed in range(8)}) > 4
    assert sorted(select(masks, at_random=99)) == list(range(7))


def test_a_random_order_stays_when_images_are_added() -> None:
    few, many = [str(number) for number in range(0, 60, 2)], [str(number) for number in range(60)]
    order = [many[place] for place in random_order(many, 5)]
    assert [name for name in order if name in few] == [few[place] for place in random_order(few, 5)]
    assert order != many
    assert random_order([], 0).tolist() == []


def test_numbers() -> None:
    assert parsed_numbers("0,3, 7") == [0, 3, 7]
    assert parsed_numbers("5,10:13") == [5, 10, 11, 12]
    for wrong in ("", "a", "-1", "1:2:3", "1,,2"):
        with pytest.raises(IgosError, match="Rows are numbers"):
            parsed_numbers(wrong)


def test_columns_of_images(masks: MaskFile) -> None:
    truth: Any = masks.image_column("ground_truth")
    assert truth.tolist() == [0, 0, 0, 2, 2, 2, 1]
