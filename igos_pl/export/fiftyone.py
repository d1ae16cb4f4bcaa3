"""FiftyOne: heat maps as PNG, a list of samples as JSON lines, and a script that makes a data set of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from igos_pl.data.explanation import Explanation
from igos_pl.data.overlay import SMALLEST_RANGE
from igos_pl.data.wording import counted
from igos_pl.export.folders import publishing_folder
from igos_pl.export.heatmaps import WHITE, named, write_grey
from igos_pl.figures.subjects import moved
from igos_pl.store.reader import Rows

# FiftyOne needs the range of grey values that the colours span.
_LOAD = '''\
"""Makes a FiftyOne data set of the heat maps in this folder: python load.py [NAME]"""

import itertools
import json
import sys
from pathlib import Path

import fiftyone as fo

HERE = Path(__file__).resolve().parent


def samples():
    """An image for each sample, with its predictions and a heat map for each of them."""
    with (HERE / "samples.jsonl").open(encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            sample = fo.Sample(filepath=line["filepath"], sample_id_in_run=line["sample_id"])
            targets = line["targets"]
            detected = all(target["box"] for target in targets)
            predictions = [prediction(target, detected) for target in targets]
            if detected:
                sample["predictions"] = fo.Detections(detections=predictions)
            else:
                sample["predictions"] = fo.Classifications(classifications=predictions)
            for target in targets:
                map_path = str(HERE / "heatmaps" / target["heatmap"])
                sample[target["field"]] = fo.Heatmap(map_path=map_path, range=[0, target["white"]])
            yield sample


def prediction(target, detected):
    """A predicted class, or a detected object, with its scores and the name of its heat map's field."""
    values = {"label": target["label"], "confidence": target["score"], "heatmap": target["field"]}
    values.update(deletion=target["deletion"], insertion=target["insertion"])
    return fo.Detection(bounding_box=target["box"], **values) if detected else fo.Classification(**values)


def load(name=None):
    """A new data set of all samples."""
    dataset = fo.Dataset(name)
    rest = samples()
    while some := list(itertools.islice(rest, 1000)):
        dataset.add_samples(some)
    return dataset


if __name__ == "__main__":
    made = load(*sys.argv[1:2])
    made.persistent = True
    print(f"{made.name}: {len(made)} samples; open it by: fiftyone app launch {made.name}")
'''


def write_fiftyone(rows: Rows, output: Path, advance: Callable[[int], None], images: Path | None) -> str:
    """Write heat maps, samples and the script.

    Args:
        rows: the explanations.
        output: a folder.
        advance: called with the number of explanations that were written.
        images: where the images are now; None if they are where they were.

    Returns:
        What was written, in words.
    """
    samples = 0
    with publishing_folder(output) as folder:
        (folder / "heatmaps").mkdir()
        (folder / "load.py").write_text(_LOAD, encoding="utf-8")
        with (folder / "samples.jsonl").open("w", encoding="utf-8") as file:
            for name, group in groupby(named(rows), key=lambda pair: str(pair[1].sample_id)):
                targets, path = [], ""
                for number, (stem, explanation) in enumerate(group, 1):
                    saliency = explanation.saliency_on_original()
                    write_grey(saliency, folder / "heatmaps" / f"{stem}.png")
                    field = "saliency" if number == 1 else f"saliency_{number}"
                    targets.append({**_target(explanation), "field": field, "heatmap": f"{stem}.png"})
                    largest = explanation.frame.largest_on_original(explanation.saliency)
                    # The colours span at least a tenth, so that a mask without content looks empty.
                    targets[-1]["white"] = round(WHITE * max(largest, SMALLEST_RANGE))
                    path = str(moved(explanation, images).image["path"])
                    advance(1)
                file.write(json.dumps({"sample_id": name, "filepath": path, "targets": targets}) + "\n")
                samples += 1
    return f"{counted(samples, 'sample')}: python {output}/load.py NAME makes a data set of them"


def _target(explanation: Explanation) -> dict[str, Any]:
    """A prediction; its box as x y width height, each as a share of the image."""
    box = np.asarray(explanation.box, np.float64)
    width, height = float(explanation.image["width"]), float(explanation.image["height"])
    x1, y1, x2, y2 = box / (width, height, width, height)
    known = not np.isnan(box).any()
    numbers = {name: float(explanation.values[name]) for name in ("score", "deletion", "insertion")}
    return {
        "label": str(explanation.label_name),
        "box": [x1, y1, x2 - x1, y2 - y1] if known else None,
        **{name: value if np.isfinite(value) else None for name, value in numbers.items()},
    }
