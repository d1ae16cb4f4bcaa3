"""``igos-pl demo``: pictures to look at, of a real network on real photos, or of a small detector."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from igos_pl.errors import IgosError

# Photographs that come inside Python packages.
PHOTOS = {
    "skimage": (
        "data/coffee.png",
        "data/chelsea.png",
        "data/astronaut.png",
        "data/rocket.jpg",
        "data/camera.png",
        "data/motorcycle_left.png",
    ),
    "sklearn": ("datasets/images/flower.jpg", "datasets/images/china.jpg"),
}

CHECKPOINTS = Path(__file__).parent / "checkpoints"

# Pictures that no training has seen: see `examples/train_shapes_detectors.py` for its seeds.
SHAPES_PICTURES, SHAPES_SEED = 12, 424242
SHAPES_INPUT, SHAPES_THRESHOLD = 224, 0.6


def copy_photos(folder: Path) -> None:
    """Copy the packaged photographs into a folder.

    Raises:
        IgosError: if a package is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package, names in PHOTOS.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise IgosError(
                f"The demo's photos are in {package}, which is missing: pip install 'igos_pl[demo]'"
            )
        for name in names:
            shutil.copy(Path(spec.origin).parent / name, folder)


def run_demo(
    output: Path,
    detector: bool = False,
    how: Sequence[str] = (),
    pictures: int = SHAPES_PICTURES,
    seed: int = SHAPES_SEED,
) -> None:
    """Explain photos with EfficientNet-Lite0, or shapes with a small Mask R-CNN, and print what came out.

    Args:
        output: folder of the pictures and the results. A second run goes on with the first.
        detector: explain detections on generated pictures instead of photos.
        how: the explainer's settings, as on the command line; the preset ``fast`` by default.
        pictures: how many pictures to generate for the detector.
        seed: of the generated pictures.

    Raises:
        IgosError: if the output is a file, or the run cannot be made.
    """
    from igos_pl.cli.choosing import check_output_folder
    from igos_pl.cli.info import print_explanations
    from igos_pl.cli.predict import predict
    from igos_pl.cli.presets import with_preset
    from igos_pl.store import MaskFile, RunFolder
    from igos_pl.store.files import cannot_write

    check_output_folder(str(output))
    try:
        what = _detector_settings(output, pictures, seed) if detector else _classifier_settings(output)
    except OSError as error:
        raise cannot_write(output, error) from error
    small = ("--data.batch_size", "2", "--trainer.devices", "1")  # so that progress shows
    predict(with_preset([*what, *small, *how, "--output", str(output)]))
    with MaskFile(RunFolder(output).merged) as masks:
        print_explanations(masks, len(masks), Console())


def _classifier_settings(output: Path) -> list[str]:
    photos = output / "photos"
    copy_photos(photos)
    return ["--data.root", str(photos)]


def _detector_settings(output: Path, pictures: int, seed: int) -> list[str]:
    from igos_pl.demo.shapes import write_shapes_dataset
    from igos_pl.demo.shapes_detectors import CATEGORIES

    annotations = write_shapes_dataset(output / "shapes", images=pictures, seed=seed)
    return [
        *("--data", "COCODataModule"),
        *("--data.root", str(annotations.parent / "images")),
        *("--data.annotations", str(annotations)),
        *("--model.network", "RCNNDetector"),
        *("--model.network.module", "igos_pl.demo.shapes_detectors.shapes_mask_rcnn"),
        *("--model.network.weights", str(CHECKPOINTS / "shapes_maskrcnn.pth")),
        *("--model.network.class_names", f"[{','.join(CATEGORIES)}]"),
        *("--model.network.input_size", str(SHAPES_INPUT)),
        *("--model.network.score_threshold", str(SHAPES_THRESHOLD)),
    ]
