"""What `igos_pl.findings.find` returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Finding:
    """A statement about one class, or about the whole run.

    Attributes:
        kind: ``corner``, ``edge``, ``border`` or ``off object``.
        statement: the finding in words, without the name of the class.
        meaning: what the reader should take from it, and check.
        certainty: how many images it rests on, shares with their reference, and the corrected p-value.
        class_name: the class; None for the whole run.
        rows: the rows of the result that show it, the clearest ones first.
        value: the share of the class's images that show it, in [0, 1].
    """

    kind: str
    statement: str
    meaning: str
    certainty: str
    class_name: str | None
    rows: list[int]
    value: float

    @property
    def subject(self) -> str:
        """What the finding is about: the class's name, or ``All classes``."""
        return "All classes" if self.class_name is None else self.class_name

    @property
    def title(self) -> str:
        """The finding in one sentence."""
        return f"{self.subject}: {self.statement}"


@dataclass(frozen=True)
class Cluster:
    """Masks of one class that are alike. A class has either several clusters or none.

    Attributes:
        class_name: the class.
        size: how many of the class's masks are in it. Of large classes, a sample is clustered; the notes say
            so.
        rows: the rows of the result, the most typical ones first. The first one is the example.
        mean_mask: ``(p, p)``, the mean saliency of its masks, each scaled to a sum of 1; high = important.
    """

    class_name: str
    size: int
    rows: list[int]
    mean_mask: NDArray[np.float32]


@dataclass(frozen=True)
class Confusion:
    """A wrong prediction whose result has explanations of the predicted and of the true class.

    Attributes:
        sample_id: the image.
        predicted_row: the row of the result that explains the predicted class.
        true_row: the row that explains the annotated class.
    """

    sample_id: str
    predicted_row: int
    true_row: int


@dataclass(frozen=True)
class Findings:
    """What the network looks at over a whole run.

    Attributes:
        findings: the ones that concern the largest share of a class's images first.
        clusters: by class, the largest first.
        confusions: the ones with the most confident wrong prediction first.
        notes: what was sampled or left out, and what cannot be said of this run.
        nothing: what it means if there are no findings; empty if nothing was explained.
    """

    findings: list[Finding]
    clusters: list[Cluster]
    confusions: list[Confusion]
    notes: list[str]
    nothing: str = ""
