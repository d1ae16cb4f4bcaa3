"""Chooses explanations of a result: by number, by conditions, the best, the worst, or at random."""

from __future__ import annotations

import hashlib
import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igos_pl.checks import check_at_least, suggestion
from igos_pl.data.wording import is_or_are
from igos_pl.errors import IgosError
from igos_pl.store.reader import ARRAYS, Rows
from igos_pl.store.schema import EXPLANATIONS

Numbers = NDArray[np.int64]

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "=": operator.eq, "!=": operator.ne,
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_CONDITION = re.compile(r"\s*(\w+)\s*(==|!=|<=|>=|=|<|>)\s*(.*?)\s*", re.DOTALL)

# Columns with one value for each row, those of the images too, and one that is computed.
_DIFFERENCE = "difference"
_OF_IMAGES = ("ground_truth", "path", "width", "height")
COLUMNS = (*(name for name in EXPLANATIONS if name not in ARRAYS), *_OF_IMAGES, _DIFFERENCE)


def where(rows: Rows, conditions: Sequence[str]) -> Numbers:
    """The places of the rows that fulfil all conditions.

    Args:
        rows: the explanations.
        conditions: such as ``label_name=cat``, ``insertion>0.8`` or ``label!=ground_truth``: a column; ``=``,
            ``!=``, ``<``, ``<=``, ``>`` or ``>=``; and a value, or another column. The column ``difference``
            is insertion - deletion. A number that is not known fulfils no condition: NaN, the ground truth of
            an image without a label, or the label of an explanation of no class.

    Raises:
        IgosError: if a condition cannot be understood, there is no such column or class, or a column has no
            known number.
    """
    chosen = np.ones(len(rows), bool)
    for condition in conditions:
        chosen &= _fulfilling(rows, condition)
    return np.flatnonzero(chosen)


def groups(
    rows: Rows,
    numbers: Sequence[int] | None = None,
    conditions: Sequence[str] = (),
    best: int | None = None,
    worst: int | None = None,
    at_random: int | None = None,
    seed: int = 0,
) -> dict[str, Numbers]:
    """The places of the best rows, the worst, and random ones, each once; of those that fulfil conditions.

    Args:
        rows: the explanations.
        numbers: only these rows, in this order. By default all.
        conditions: only rows that fulfil these, see `where`.
        best: so many rows with the largest insertion - deletion, the largest first.
        worst: so many with the smallest, the smallest first.
        at_random: so many of the others at random, see `random_order`.
        seed: of the random choice.

    Returns:
        The places of the rows that are ``best``, ``worst`` and ``random``. If there are too few rows for
        the best and the worst, each group gets half of them; if one needs fewer, the other gets the rest.
        Random rows are neither. If all three numbers are None, ``all`` that fulfil the conditions.

    Raises:
        IgosError: if a row does not exist, a condition is wrong, deletion and insertion were not computed, or
            all numbers that are given are 0.
    """
    wanted = {"best": best, "worst": worst, "at_random": at_random}
    asked = {name: count for name, count in wanted.items() if count is not None}
    for name, count in asked.items():
        check_at_least(name, count, 0)
    if asked and not any(asked.values()):
        options = " and ".join(f"{name} (--{name.removeprefix('at_')})" for name in asked)
        raise IgosError(
            f"{options} {is_or_are(len(asked))} 0, so nothing is chosen: give a larger number, or leave"
            f" {' and '.join(asked)} out to choose all"
        )
    found = np.arange(len(rows)) if numbers is None else _existing(rows, numbers)
    found = found[np.isin(found, where(rows, conditions))]
    if not asked:
        return {"all": found}
    best, worst, at_random = (asked.get(name, 0) for name in wanted)
    first = last = np.arange(0)
    if best or worst:
        quality = _difference(rows[found])
        known = np.flatnonzero(~np.isnan(quality))
        if len(found) and not len(known):
            raise IgosError(
                "The best and the worst explanations are not known: deletion and insertion were not computed"
            )
        order = known[np.argsort(-quality[known], kind="stable")]
        count = len(order)
        best = min(best, max(count - worst, count - count // 2))
        first, last = order[:best], order[best:][::-1][:worst]
    others = random_order(rows[found].column("sample_id").tolist(), seed)
    others = others[~np.isin(others, np.concatenate((first, last)))][:at_random]
    return {"best": found[first], "worst": found[last], "random": found[others]}


def random_order(ids: Sequence[str], seed: int) -> Numbers:
    """The places of some rows in a random order, in which every image comes once before any comes again.

    An image's place among others depends on its id and the seed alone.

    Args:
        ids: the image's id of each row.
        seed: another one gives another order.
    """
    seen: Counter[str] = Counter()
    lots = []
    for name in ids:
        lots.append(_digest(seed, name, seen[name]))
        seen[name] += 1
    rounds = np.zeros(len(ids), np.int64)
    drawn: Counter[str] = Counter()
    for place in sorted(range(len(ids)), key=lots.__getitem__):
        rounds[place] = drawn[ids[place]]
        drawn[ids[place]] += 1
    keys = [(turn, _digest(seed, name)) for turn, name in zip(rounds.tolist(), ids, strict=True)]
    return np.array(sorted(range(len(ids)), key=keys.__getitem__), np.int64)


def parsed_numbers(text: str) -> list[int]:
    """Numbers of rows from text: ``0,3,7`` or ``10:20``, or both.

    Raises:
        IgosError: if it is something else.
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?::\s*(\d+)\s*)?", part)
        if match is None:
            raise IgosError(f"Rows are numbers such as 0,3,7 or 10:20, not {text!r}")
        first, last = int(match[1]), int(match[2] or int(match[1]) + 1)
        numbers += range(first, last)
    return numbers


def _existing(rows: Rows, numbers: Sequence[int]) -> Numbers:
    wrong = [number for number in numbers if not 0 <= number < len(rows)]
    if wrong:
        raise IgosError(f"There is no row {wrong[0]}: there are {len(rows)}, counted from 0")
    return np.array(list(dict.fromkeys(numbers)), np.int64)


def _fulfilling(rows: Rows, condition: str) -> NDArray[np.bool_]:
    match = _CONDITION.fullmatch(condition)
    if match is None:
        raise IgosError(
            f"{condition!r} is not a condition. Conditions are such as label_name=cat or 'insertion>0.8'"
            " (quote < and >)"
        )
    name, sign, text = match.groups()
    values = _column(rows, name)
    if values.dtype.kind == "O":
        if sign not in ("=", "==", "!="):
            raise IgosError(f"{name} is text, which {sign} cannot compare: use = or !=")
        found = values == text
        if sign != "!=" and len(rows) and not found.any():
            raise IgosError(f"No explanation has {name} {text!r}: {suggestion(text, _counted(values))}")
        return np.asarray(~found if sign == "!=" else found, bool)
    other = _column(rows, text) if text in COLUMNS else _number(text, condition)
    for column, numbers in ((name, values), (text, other)):
        if column in COLUMNS and len(rows) and np.isnan(numbers).all():
            advice = ". Labels come from the data set, or from labels (--data.labels)"
            raise IgosError(
                f"{column} is not known for any explanation, so {condition} chooses none"
                f"{advice if column == 'ground_truth' else ''}"
            )
    known = ~(np.isnan(values) | np.isnan(other))
    return np.asarray(_OPERATORS[sign](values, other) & known, bool)


def _column(rows: Rows, name: str) -> NDArray[Any]:
    if name not in COLUMNS:
        raise IgosError(f"No column {name!r} to choose by: {suggestion(name, COLUMNS)}")
    if name == _DIFFERENCE:
        return _difference(rows)
    values = rows.column(name) if name in EXPLANATIONS else rows.image_column(name)
    if values.dtype.kind == "O":
        return values
    numbers = np.asarray(values, np.float64)
    return np.where(numbers < 0, np.nan, numbers) if name in ("label", "ground_truth") else numbers


def _difference(rows: Rows) -> NDArray[np.float64]:
    """Insertion - deletion."""
    insertion, deletion = (np.asarray(rows.column(name), np.float64) for name in ("insertion", "deletion"))
    return insertion - deletion


def _number(text: str, condition: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise IgosError(
            f"{text!r} in the condition {condition!r} is neither a number nor a column"
        ) from error


def _counted(values: NDArray[Any]) -> list[str]:
    """The texts that there are, the most frequent first."""
    return [text for text, _ in Counter(values.tolist()).most_common()]


def _digest(*parts: object) -> int:
    """A number that looks random and depends on the parts alone."""
    text = "\0".join(map(str, parts)).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
