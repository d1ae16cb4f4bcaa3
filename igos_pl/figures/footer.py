"""What stands below the pictures of a figure: the colour bar, and how the masks were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.ticker import PercentFormatter

from igos_pl.data.wording import has_regions, is_search, masks_in_words, preset_in_words
from igos_pl.figures.canvas import Canvas
from igos_pl.figures.layout import MARGIN, Place
from igos_pl.figures.lettering import SMALL, width_of, write
from igos_pl.figures.panels import STYLES, WITHOUT_COLORS, Look
from igos_pl.figures.subjects import baseline_of

_BAR = (1.5, 0.09)  # width and height of the colour bar
_BESIDE = _BAR[0] + 0.25  # where the text beside it begins
_LEAST_BESIDE = 1.6  # the room that text beside the colour bar needs; in narrower figures all is below it
_LINES = (0.16, 0.3, 0.46, 0.6, 0.74, 0.88)  # the centres of the lines of the footer, from its top
_BELOW = 0.08  # the last line

_BASELINES = {
    "blur": "blurred", "black": "black", "mean": "the image's mean colour", "noise": "noise",
}  # fmt: skip


@dataclass(frozen=True)
class Footer:
    """What stands below the pictures: the colour bar, and how the masks were made.

    Attributes:
        place: its place in inches, without the figure's margin.
        lines: texts with their colours: what the pictures show, and how the masks were made.
        first: the number of the first line. The lines 0 and 1 are beside the colour bar, others below it.
        look: its colours.
        style: of the figure.
        scale: of the colours.
    """

    place: Place
    lines: list[tuple[str, str]]
    first: int
    look: Look
    style: str
    scale: str

    @classmethod
    def of(cls, settings: Mapping[str, Any], look: Look, style: str, scale: str, place: Place) -> Footer:
        """The footer of a figure.

        Args:
            settings: of the run.
            look: the colours of the bar.
            style: see `igos_pl.draw`.
            scale: see `igos_pl.draw`.
            place: its upper left corner and its width.
        """
        note = ""
        if style in WITHOUT_COLORS:
            share = f"{look.fraction:.0%}"
            about = f"the most important {share} of the cells"
            if has_regions(settings):
                about = "the most important regions"
            note = f"the rest is {_BASELINES[baseline_of(settings)]}"
        else:
            about = "saliency" if scale == "shared" else "of the mask's largest saliency"
            if "overlay" in STYLES[style] and is_search(settings):
                note = "numbers: order of the search"
        beside = place.width - (0 if style in WITHOUT_COLORS else _BESIDE)
        first = 0 if beside >= _LEAST_BESIDE else 2
        rooms = (beside, beside, *(place.width,) * (len(_LINES) - 2))
        made = preset_in_words(settings), masks_in_words(settings)
        shown = _joined("; ", (about, note), rooms[first])
        lines = [(text, "black") for text in shown]
        lines += [(text, "dimgrey") for text in _joined(", ", made, rooms[first + len(lines)])]
        place = replace(place, height=_LINES[max(2, first + len(lines)) - 1] + _BELOW)
        return cls(place, lines, first, look, style, scale)

    def draw(self, canvas: Canvas) -> None:
        """Draw it."""
        place = self.place.moved(MARGIN, MARGIN)
        beside, room = place.x, place.width
        if self.style not in WITHOUT_COLORS:
            bar = canvas.axes(Place(beside + 0.07, place.y + 0.12, *_BAR))
            canvas.figure.colorbar(self.look.colors, cax=bar, orientation="horizontal")
            bar.tick_params(labelsize=6, length=2, pad=1)
            bar.locator_params(nbins=4)
            if self.scale == "each":
                bar.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            if self.style == "contours":
                bar.vlines(self.look.levels, 0, 1, colors="white", linewidth=0.5)
            beside, room = beside + _BESIDE, room - _BESIDE
        for number, (text, color) in enumerate(self.lines, self.first):
            if number == 2:  # below the colour bar, so that narrow figures have room for it
                beside, room = place.x, place.width
            write(canvas.figure, beside, place.y + _LINES[number], text, room, SMALL, color=color)


def _joined(joint: str, texts: tuple[str, str], room: float) -> list[str]:
    """Two texts in one line if they fit into the room, otherwise each in its own. Empty ones are left out."""
    known = list(filter(None, texts))
    line = joint.join(known)
    return [line] if line and width_of(line, SMALL) <= room else known
