"""``igos-pl demo``: real photos, a real network, pictures to look at."""

from __future__ import annotations

import shutil
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


def run_demo(output: Path) -> None:
    """Explain the photos with EfficientNet-Lite0 and iGOS++, and print what came out.

    Args:
        output: folder of the photos and the results. A second run goes on with the first.
    """
    from igos_pl.info import explanations_table
    from igos_pl.predict import predict
    from igos_pl.store import MaskFile, RunFolder

    photos = output / "photos"
    copy_photos(photos)
    predict(["--data.root", str(photos), "--output", str(output), "--trainer.devices", "1"])
    run = RunFolder(output)
    with MaskFile(run.merged) as masks:
        Console().print(explanations_table(masks, rows=len(masks)))
    print(f"masks: {run.merged}\noverlays: {run.path / 'overlays'}")
