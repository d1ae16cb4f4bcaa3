"""I-GOS, iGOS+ and iGOS++ as data: which masks, which terms, which regulariser; and the name of the search.

One evaluator (`igos_pl.solver.objective`) computes I-GOS, iGOS+ and iGOS++: a new method of this kind is one
more entry in `METHODS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from igos_pl.checks import check_choice


@dataclass(frozen=True)
class Term:
    """One integrated-gradient score of a perturbed image.

    Attributes:
        kind: ``deletion`` blends from the image to the baseline and wants a low score; ``insertion`` blends
            from the baseline to the image and wants a high one.
        masks: the numbers of the masks whose product perturbs the image.
    """

    kind: Literal["deletion", "insertion"]
    masks: tuple[int, ...]


@dataclass(frozen=True)
class Method:
    """A saliency method: its objective is a sum of terms and a regulariser of the masks' product.

    Attributes:
        name: as printed in the papers.
        masks: how many masks are optimised for each target; the explanation is their product.
        terms: the score terms.
        regularizer: which total variation smooths the product.
        score_gradient_scale: factor of the score terms' gradient in an update; not of the objective's value.
    """

    name: str
    masks: int
    terms: tuple[Term, ...]
    regularizer: Literal["tv", "bilateral_tv"]
    score_gradient_scale: float = 1.0


METHODS = {
    "igos": Method(
        name="I-GOS",  # Qi, Khorram, Fuxin, AAAI 2020
        masks=1,
        terms=(Term("deletion", (0,)),),
        regularizer="tv",
    ),
    "igos+": Method(
        name="iGOS+",  # Khorram, Lawson, Fuxin, CHIL 2021, the ablation with one mask
        masks=1,
        terms=(Term("deletion", (0,)), Term("insertion", (0,))),
        regularizer="bilateral_tv",
    ),
    "igos++": Method(
        name="iGOS++",  # Khorram, Lawson, Fuxin, CHIL 2021
        masks=2,
        terms=(
            Term("deletion", (0,)),
            Term("insertion", (1,)),
            Term("deletion", (0, 1)),
            Term("insertion", (0, 1)),
        ),
        regularizer="bilateral_tv",
        score_gradient_scale=0.5,
    ),
}


@dataclass(frozen=True)
class GreedySearch:
    """The search of `igos_pl.solver.search`, which has neither terms nor a regulariser.

    Attributes:
        name: as printed.
    """

    name: str


SEARCH = GreedySearch("search")


def method_named(name: str) -> Method | GreedySearch:
    """Look a method up by ``igos``, ``igos+``, ``igos++``, ``search`` or its printed name, in any case.

    Raises:
        IgosError: naming the known methods.
    """
    key = name.lower().replace("i-gos", "igos")
    known: dict[str, Method | GreedySearch] = {**METHODS, SEARCH.name: SEARCH}
    check_choice("method", key, known)
    return known[key]
