"""Names and numbers of the 1000 ImageNet classes.

Three numberings are in use. The class index, 0 to 999, is the place of a network's output: the
classes sorted by WordNet id. The WordNet id, such as ``n02119789``, names the folder of a class.
The ILSVRC2012 id, 1 to 1000, is what the ground truth file of the ILSVRC2012 devkit holds.
"""

from functools import cache
from importlib.resources import files


@cache
def _rows() -> tuple[tuple[int, str, int, str], ...]:
    """Read the table: class index, WordNet id, ILSVRC2012 id and name of each class."""
    text = files("igos_pl.data").joinpath("imagenet_classes.tsv").read_text(encoding="utf-8")
    cells = (line.split("\t") for line in text.splitlines()[1:])
    return tuple((int(index), wnid, int(number), name) for index, wnid, number, name in cells)


@cache
def class_names() -> tuple[str, ...]:
    """Return the 1000 class names, all different, in the order of the class index."""
    return tuple(name for _, _, _, name in _rows())


@cache
def index_of_wordnet_id() -> dict[str, int]:
    """Map each of the 1000 WordNet ids (``n01440764`` ...) to its class index, 0 to 999.

    The dictionary is shared between calls: do not change it.
    """
    return {wnid: index for index, wnid, _, _ in _rows()}


@cache
def index_of_ilsvrc2012_id() -> dict[int, int]:
    """Map each id of the ILSVRC2012 devkit, 1 to 1000, to its class index, 0 to 999.

    The dictionary is shared between calls: do not change it.
    """
    return {number: index for index, _, number, _ in _rows()}
