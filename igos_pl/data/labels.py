"""Finds labels by class names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from igos_pl.checks import suggestion
from igos_pl.data.imagenet import index_of_wordnet_id
from igos_pl.errors import IgosError


class ClassLabels:
    """Finds labels by class names, as people write them in folders, tables and data sets.

    Case does not matter, and ``_`` and ``-`` are the same as spaces. Any of the names in "tabby, tabby cat"
    finds the class if no other class has it. WordNet ids (``n02123045``) find the classes of networks with
    1000 classes, which are ImageNet's.

    Args:
        names: the network's class names in label order; empty if they are unknown.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        whole, parts = defaultdict[str, set[int]](set), defaultdict[str, set[int]](set)
        for label, name in enumerate(self.names):
            whole[_plain(name)].add(label)
            for part in name.split(","):
                parts[_plain(part)].add(label)
        self._labels = {
            **{name: min(labels) for name, labels in parts.items() if len(labels) == 1},
            **{name: min(labels) for name, labels in whole.items() if len(labels) == 1},
        }
        if len(self.names) == 1000:
            self._labels |= index_of_wordnet_id()

    def find(self, name: str) -> int | None:
        """The label of a class; None if the network has no such class, or several."""
        return self._labels.get(_plain(name))

    def of(self, name: str) -> int:
        """The label of a class.

        Raises:
            IgosError: if the network has no such class. The message names a similar one.
        """
        label = self.find(name)
        if label is None:
            raise IgosError(f"{name!r} is not a class of the network{self._advice(name)}")
        return label

    def _advice(self, name: str) -> str:
        if not self.names:
            return (
                ", whose class names are unknown: set class_names (--model.network.class_names), or give"
                " label numbers"
            )
        parts = (part.strip() for each in self.names for part in each.split(","))
        return f" ({suggestion(_plain(name), [part for part in parts if self.find(part) is not None])})"


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
