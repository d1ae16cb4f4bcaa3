"""Means and paired differences of the methods, as a Markdown table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean, stdev

from comparison.results import Figures

Found = Mapping[str, Mapping[str, Figures]]  # of each method, by the name of the case

_COLUMNS = ("method", "cases", "fwd+bwd", "fwd", "passes", "CPU s", "deletion", "insertion", "difference")


def paired_difference(found: Mapping[str, Figures], reference: Mapping[str, Figures]) -> tuple[float, float]:
    """Mean and standard error of a method's difference minus another's, on the cases that both have.

    Returns:
        NaN where there are too few cases: one for the mean, two for the error.
    """
    gains = [found[case].difference - reference[case].difference for case in found if case in reference]
    error = stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else math.nan
    return (fmean(gains) if gains else math.nan), error


def table(found: Found) -> str:
    """One line for each method, on the cases that it shares with the method named first.

    ``passes`` is the whole cost in forward passes; a forward and backward pass counts as three of them.
    ``CPU s`` is the process's time for one explanation, without the judge. The last column is the mean of the
    paired differences from the first method, and its standard error.
    """
    first = next(iter(found))
    reference = found[first]
    rows: list[tuple[str, ...]] = [(*_COLUMNS, f"minus {first}")]
    for method, figures in found.items():
        shared = [figures[case] for case in figures if case in reference]
        if not shared:
            continue
        gain, error = paired_difference(figures, reference)
        counts = ([f.evaluations for f in shared], [f.forwards for f in shared], [f.cost for f in shared])
        areas = ([f.deletion for f in shared], [f.insertion for f in shared], [f.difference for f in shared])
        rows.append(
            (
                method,
                str(len(shared)),
                *(f"{fmean(each):,.0f}" for each in counts),
                f"{fmean(f.seconds for f in shared):.1f}",
                *(f"{fmean(each):.3f}" for each in areas),
                "" if method == first else f"{gain:+.3f} ± {error:.3f}",
            )
        )
    return markdown(rows)


def markdown(rows: list[tuple[str, ...]]) -> str:
    """Rows as a table whose columns are aligned; the first row has the names."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ) + " |"
        for row in rows
    ]  # fmt: skip
    rule = "|" + "|".join("-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths))
    return "\n".join([lines[0], rule + "|", *lines[1:]])
