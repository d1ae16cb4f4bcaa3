"""Finds labels by class names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from igos_pl.checks import suggestion
from igos_pl.data.imagenet import index_of_wordnet_id
from igos_pl.data.text import first_few
from igos_pl.errors import IgosError

_LARGEST = 2**31 - 1  # results hold labels as 32-bit integers


class ClassLabels:
    """Finds labels by class names, as people write them in folders, tables and data sets.

    Case does not matter, and ``_`` and ``-`` are the same as spaces. Any of the names in "tabby, tabby cat"
    finds the class if no other class has it. If several have it, they are told apart by case, as "cardigan"
    and the dog "Cardigan" of ImageNet. WordNet ids (``n02123045``) find the classes of networks with
    1000 classes, which are ImageNet's.

    Args:
        names: the network's class names in label order; empty if they are unknown.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._labels, self._several = _labels_by(_plain, self.names)
        self._exact, _ = _labels_by(_spaced, self.names)
        if len(self.names) == 1000:
            self._labels |= index_of_wordnet_id()

    def find(self, name: str) -> int | None:
        """The label of a class; None if the network has no such class, or several."""
        return self._exact.get(_spaced(name), self._labels.get(_plain(name)))

    def all_of(self, name: str) -> list[int]:
        """The labels of all classes that a name finds.

        Raises:
            IgosError: if the network has no such class. The message names a similar one.
        """
        if self.find(name) is None and (several := self._several.get(_plain(name))):
            return several
        return [self.of(name)]

    def of(self, name: str) -> int:
        """The label of a class.

        Raises:
            IgosError: if the network has no such class, or several. The message names a similar one, or their
                labels.
        """
        label = self.find(name)
        if label is None and (several := self._several.get(_plain(name))):
            labels = first_few([str(each) for each in several])
            raise IgosError(
                f"{len(several)} classes of the network have the name {name!r}: give the label ({labels})"
            )
        if label is None:
            raise IgosError(f"{name!r} is not a class of the network{self._advice(name)}")
        return label

    def label_in(self, text: str) -> int:
        """The label that a text gives: as a number, or as the name of a class.

        Raises:
            IgosError: if no label has this number, or see `of`.
        """
        if not text.removeprefix("-").isdecimal():
            return self.of(text)
        return checked_label(int(text[:20]))  # numbers with more digits are too large as well

    def _advice(self, name: str) -> str:
        if not self.names:
            return (
                ", whose class names are unknown: set class_names (--model.network.class_names), or give"
                " label numbers"
            )
        parts = (part.strip() for each in self.names for part in each.split(","))
        return f" ({suggestion(_plain(name), [part for part in parts if self.find(part) is not None])})"


def checked_label(label: int) -> int:
    """The label itself.

    Raises:
        IgosError: if it is negative, or too large for results.
    """
    if label < 0:
        raise IgosError(f"labels count from 0, but this is {label}")
    if label > _LARGEST:
        raise IgosError(f"the label {label} is too large; labels count from 0")
    return label


def _labels_by(
    key: Callable[[str], str], names: Sequence[str]
) -> tuple[dict[str, int], dict[str, list[int]]]:
    """The label of each name that one class has, and the labels of each name that several have."""
    whole, parts = defaultdict[str, set[int]](set), defaultdict[str, set[int]](set)
    for label, name in enumerate(names):
        whole[key(name)].add(label)
        for part in name.split(","):
            parts[key(part)].add(label)
    # The whole name of a class is its own, although another class may have it as a part.
    found = parts | {name: labels for name, labels in whole.items() if len(labels) == 1}
    one = {name: min(labels) for name, labels in found.items() if len(labels) == 1}
    return one, {name: sorted(labels) for name, labels in found.items() if len(labels) > 1}


def _spaced(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").split())


def _plain(name: str) -> str:
    return _spaced(name).casefold()
