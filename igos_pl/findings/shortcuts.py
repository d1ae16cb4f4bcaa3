"""Tests for each class whether its saliency lies in some place more often than that of the other classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from igos_pl.findings.places import CONCENTRATED, PLACES, Shares
from igos_pl.findings.reading import Units
from igos_pl.findings.results import Finding
from igos_pl.optional import imported

# A finding needs a corrected p-value below the level, this share of the class's images, and this many times
# the share of the other classes.
LEVEL = 0.05
LEAST_SHARE = 0.15
LEAST_RATIO = 2.0

# Classes with fewer images are not tested: nothing could be said of them.
FEWEST_IMAGES = 8

# The pattern of a mask that is concentrated in any of the places, and of one that misses its object.
_ANYWHERE, _OFF = "border", "off object"


@dataclass(frozen=True)
class _Test:
    """One pattern in one class, against the same pattern in all other classes.

    Attributes:
        pattern: a name of `PLACES`, `_ANYWHERE` or `_OFF`.
        label: the place of the class among the names.
        hits: images of the class that show the pattern.
        images: of the class.
        other_hits: images of the other classes that show it.
        others: images of the other classes.
    """

    pattern: str
    label: int
    hits: int
    images: int
    other_hits: int
    others: int

    @property
    def share(self) -> float:
        """Of the class's images."""
        return self.hits / self.images

    @property
    def other_share(self) -> float:
        """Of the other classes' images."""
        return self.other_hits / max(1, self.others)

    def is_large(self) -> bool:
        """Whether the difference is worth a finding."""
        return self.share >= LEAST_SHARE and self.share >= LEAST_RATIO * self.other_share


def shortcuts(units: Units, shares: Shares) -> list[Finding]:
    """The places where the saliency of some classes lies more often than that of the others.

    Every class and pattern is one test (Fisher's exact test, one-sided), corrected for their number by
    Benjamini and Hochberg.

    Args:
        units: the n explanations.
        shares: where their saliency lies.
    """
    seen = _patterns(shares)
    tests = [test for name, pattern in seen.items() for test in _tests(name, pattern, units)]
    found: dict[int, list[tuple[_Test, float]]] = {}
    for test, value in zip(tests, _corrected(tests), strict=True):
        if value < LEVEL and test.is_large():
            found.setdefault(test.label, []).append((test, value))
    findings = list(_missed(seen[_OFF], units))
    for label, passed in found.items():
        places = [one for one in passed if one[0].pattern in PLACES]
        anywhere = [one for one in passed if one[0].pattern == _ANYWHERE and not places]
        off = [one for one in passed if one[0].pattern == _OFF]
        own = units.classes == label
        for test, value in (*_different(places, seen, own), *anywhere, *off):
            rows = units.rows[_clearest(seen[test.pattern], own)].tolist()
            findings.append(_finding(test, value, len(tests), units.names[label], rows))
    return sorted(findings, key=lambda finding: -finding.value)


def nothing_found(units: Units, shares: Shares) -> str:
    """What it means if `shortcuts` finds nothing: whether any class was tested."""
    if any(_tests(name, pattern, units) for name, pattern in _patterns(shares).items()):
        return (
            "No class with enough images for a test has saliency off its objects, at the border or in one"
            " corner more often than other classes."
        )
    return (
        f"No class was tested: a test needs at least {FEWEST_IMAGES} images of the class and"
        f" {FEWEST_IMAGES} of the others."
    )


def _missed(pattern: _Pattern, units: Units) -> Iterator[Finding]:
    """The finding that the saliency of the whole run lies off the objects, if it does."""
    images = int(np.count_nonzero(pattern.known))
    rows = _clearest(pattern, pattern.known)
    if images < FEWEST_IMAGES:
        return
    low, high = _interval(len(rows), images)
    if low > 0.5:
        yield Finding(
            kind=_OFF,
            statement=f"{_TITLES[_OFF]} in {len(rows) / images:.0%} of the images",
            meaning=_MEANINGS[_OFF],
            certainty=f"{len(rows):,} of {images:,} images with boxes (95% interval {low:.0%} to {high:.0%})",
            class_name=None,
            rows=units.rows[rows].tolist(),
            value=len(rows) / images,
        )


def _clearest(pattern: _Pattern, among: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The places of the units that show a pattern, the clearest ones first."""
    places = np.flatnonzero(among & (pattern.strength > 0))
    return places[np.argsort(-pattern.strength[places], kind="stable")]


@dataclass(frozen=True)
class _Pattern:
    """A pattern that each unit shows or not.

    Attributes:
        known: ``(n,)`` whether it is known of the unit.
        strength: ``(n,)`` above 0 where the unit shows the pattern, larger where it is clearer.
    """

    known: NDArray[np.bool_]
    strength: NDArray[np.float32]


def _patterns(shares: Shares) -> dict[str, _Pattern]:
    known: NDArray[np.bool_] = np.isfinite(shares.places[:, 0])
    excess = np.nan_to_num(shares.places) - np.float32(CONCENTRATED)
    patterns = {name: _Pattern(known, excess[:, number]) for number, name in enumerate(PLACES)}
    patterns[_ANYWHERE] = _Pattern(known, excess.max(1))
    boxed: NDArray[np.bool_] = np.isfinite(shares.lift)
    patterns[_OFF] = _Pattern(boxed, 1 - np.nan_to_num(shares.lift, nan=1))
    return patterns


def _tests(name: str, pattern: _Pattern, units: Units) -> list[_Test]:
    """The tests of a pattern, for every class with enough images."""
    number = len(units.names)
    images = np.bincount(units.classes[pattern.known], minlength=number)
    hits = np.bincount(units.classes[pattern.known & (pattern.strength > 0)], minlength=number)
    others, other_hits = images.sum() - images, hits.sum() - hits
    return [
        _Test(name, label, *(int(column[label]) for column in (hits, images, other_hits, others)))
        for label in np.flatnonzero((images >= FEWEST_IMAGES) & (others >= FEWEST_IMAGES)).tolist()
    ]


def _corrected(tests: Sequence[_Test]) -> NDArray[np.float64]:
    """The p-values of all tests, corrected for their number."""
    stats = imported("scipy.stats", "report", "The search for findings")
    if not tests:
        return np.empty(0)
    hits, images, other_hits, others = np.array(
        [(test.hits, test.images, test.other_hits, test.others) for test in tests]
    ).T
    values = stats.hypergeom.sf(hits - 1, images + others, hits + other_hits, images)
    corrected: NDArray[np.float64] = stats.false_discovery_control(np.clip(values, 0, 1))
    return corrected


def _different(
    passed: Sequence[tuple[_Test, float]], seen: dict[str, _Pattern], own: NDArray[np.bool_]
) -> list[tuple[_Test, float]]:
    """The places of one class that show in different images; the one with the most images first.

    A mark that reaches from a corner along an edge is one finding, not three.
    """
    left, kept = own.copy(), []
    for test, value in sorted(passed, key=lambda one: (-one[0].hits, one[1])):
        shown = seen[test.pattern].strength > 0
        if np.count_nonzero(left & shown) >= LEAST_SHARE * test.images:
            kept.append((test, value))
            left &= ~shown
    return kept


def _finding(test: _Test, value: float, tests: int, name: str, rows: list[int]) -> Finding:
    kind = test.pattern if test.pattern not in PLACES else test.pattern.rpartition(" ")[2]
    low, high = _interval(test.hits, test.images)
    probability = f"p = {value:.1g}" if value >= _SMALLEST else f"p < {_SMALLEST:.0g}"
    what = _TITLES.get(kind, _PLACE).format(place=test.pattern)
    return Finding(
        kind=kind,
        statement=f"{what} in {test.share:.0%} of the images",
        meaning=_MEANINGS[kind],
        certainty=(
            f"{test.hits:,} of {test.images:,} images of the class (95% interval {low:.0%} to {high:.0%});"
            f" {test.other_share:.1%} of {test.others:,} images of the other classes; {probability}"
            f" (Fisher's exact test, corrected for {tests:,} tests)"
        ),
        class_name=name,
        rows=rows,
        value=test.share,
    )


_SMALLEST = 1e-300
_PLACE = "the saliency gathers in the {place}"
_TITLES = {
    _ANYWHERE: "the saliency gathers in a corner or at an edge",
    _OFF: "the saliency lies off the object",
}
_SHORTCUT = (
    " Often this is a shortcut: something that was in the pictures of this class by chance, such as a"
    " watermark, a caption, a logo or a frame. It can also be the object's usual surroundings. Look at the"
    " images; then cover the place and see whether the predictions change."
)
_MEANINGS = {
    "corner": f"The network uses one corner of the image for this class, and does not for others.{_SHORTCUT}",
    "edge": f"The network uses one edge of the image for this class, and does not for others.{_SHORTCUT}",
    _ANYWHERE: (
        "The network uses the border of the image for this class more than for others, in different places."
        f"{_SHORTCUT}"
    ),
    _OFF: (
        "The object's box holds less of the saliency than it would hold if the saliency were the same"
        " everywhere. The network recognises these objects by what surrounds them, or the masks are"
        " poor: look at their insertion and deletion."
    ),
}


def _interval(hits: int, images: int) -> tuple[float, float]:
    """Wilson's interval of a share, at 95% confidence."""
    stats = imported("scipy.stats", "report", "The search for findings")
    found = stats.binomtest(hits, images).proportion_ci(method="wilson")
    return float(found.low), float(found.high)
