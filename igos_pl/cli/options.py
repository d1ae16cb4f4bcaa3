"""The options of the commands that show and export results. Importing them is quick."""

from __future__ import annotations

import argparse
from pathlib import Path

FIRST = 12  # explanations in a figure without any choice
_STYLES = "curves, pair, overlay, heatmap, contours, masked"


def figure_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``igos-pl figure``."""
    parser.add_argument("run", type=Path, metavar="RUN", help="output folder, or a masks.h5, or a segment")
    parser.add_argument(
        "--output", type=Path, default=Path("figure.pdf"), metavar="FILE",
        help=".pdf, .svg or .png [figure.pdf]",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    _choice(parser, f"the first {FIRST}")
    look = parser.add_argument_group("how they look")
    look.add_argument("--style", default="overlay", help=f"{_STYLES} [overlay]")
    look.add_argument(
        "--fraction", type=float, default=0.2, metavar="X", help="of the cells that masked shows [0.2]"
    )
    look.add_argument(
        "--scale", default="each",
        help="each: the colours of each mask end at its own largest saliency;"
        " shared: at the largest of the figure [each]",
    )  # fmt: skip
    look.add_argument("--columns", type=int, metavar="N", help="explanations in a row [as many as fit]")
    look.add_argument("--width", type=float, metavar="INCHES", help="of the figure, at most [7.2]")
    look.add_argument("--height", type=float, metavar="INCHES", help="of each picture [1.1 to 1.6]")
    look.add_argument("--dpi", type=float, default=300, help="resolution of the pictures [300]")
    _images(look)


def compare_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``igos-pl compare``."""
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="two or more results; differences are to the first"
    )
    parser.add_argument("--names", metavar="A,B", help="of the results [the names of their folders]")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a row for each shared explanation")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with the images side by side")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    _images(parser)


def export_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``igos-pl export``."""
    parser.add_argument("run", type=Path, metavar="RUN", help="output folder, or a masks.h5, or a segment")
    parser.add_argument(
        "--to", required=True, metavar="FORMAT", help="coco, numpy, zarr, png, virelay, fiftyone"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="PATH",
        help="a .json file for coco, a folder or an .npz file for numpy, a folder for the others",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    _choice(parser, "all")
    parser.add_argument(
        "--fraction", type=float, default=0.2, metavar="X", help="coco: cells of the segmentation [0.2]"
    )
    parser.add_argument(
        "--annotations", type=Path, metavar="FILE", help="coco: instances JSON with the ids of the images"
    )
    _images(parser)


def _images(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="where the images are now, if they have moved"
    )


def _choice(parser: argparse.ArgumentParser, default: str) -> None:
    """Options that choose explanations.

    Args:
        parser: gets them.
        default: what is chosen without them, in words.
    """
    group = parser.add_argument_group(f"which explanations [{default}]")
    group.add_argument("--rows", metavar="N", help="by number, counted from 0: 0,3,7 or 10:20")
    group.add_argument(
        "--where", action="append", default=[], metavar="CONDITION",
        help="only these: label_name=cat, 'insertion>0.8', 'difference<0.1' (insertion - deletion), or"
        " label!=ground_truth; may be repeated",
    )  # fmt: skip
    group.add_argument("--best", type=int, metavar="N", help="the largest insertion - deletion")
    group.add_argument("--worst", type=int, metavar="N", help="the smallest")
    group.add_argument("--random", type=int, metavar="N", help="of random images")
    group.add_argument("--seed", type=int, default=0, metavar="S", help="of the random choice [0]")
