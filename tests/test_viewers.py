"""Exports in the real programs, each in an environment of its own.

The environments are made by pip in the folder that VIEWERS names, and are used again; by default in a
temporary one. Where pip cannot install them, the tests are skipped.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import results
import tiny
from PIL import Image

from igos_pl.cli.main import main
from igos_pl.store import MaskFile

pytestmark = pytest.mark.slow

ENVIRONMENTS = {"virelay": ["virelay==0.6.1", "pillow<11"], "fiftyone": ["fiftyone"]}
IDS = [f"{number:02}.png" for number in range(16)]


def python_of(name: str, folder: Path) -> str:
    """The interpreter of an environment, which is made if there is none."""
    python = folder / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
        command = [str(python), "-m", "pip", "install", "--quiet", *ENVIRONMENTS[name]]
        installed = subprocess.run(command, capture_output=True, text=True, check=False)
        if installed.returncode:
            python.unlink()
            pytest.skip(f"{name} cannot be installed: {installed.stderr[-300:]}")
    return str(python)


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(os.environ.get("VIEWERS") or tmp_path_factory.mktemp("viewers"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Sixteen explanations: of the first class, half are salient at the left, half at the right."""
    photos = tiny.write_pictures(tmp_path / "photos", IDS)
    masks = 1 - 0.05 * np.random.RandomState(0).rand(16, 8, 8).astype(np.float32)
    masks[:8:2, :, :4] -= 0.5
    masks[1:8:2, :, 4:] -= 0.5
    masks[8:, 2:6, 2:6] -= 0.7
    return results.write_result(
        tmp_path / "run.h5", IDS, folder=photos, masks=masks, label=[3] * 8 + [1] * 8,
        label_name=["cat"] * 8 + ["dog, <b>"] * 8,
    )  # fmt: skip


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.status == 200
        content: bytes = answer.read()
        return content


def test_virelay_shows_the_project(run: Path, tmp_path: Path, environments: Path) -> None:
    pytest.importorskip("sklearn")
    python = python_of("virelay", environments)
    assert main(["export", str(run), "--to", "virelay", "--output", str(tmp_path / "project")]) == 0
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [
        python,
        "-m",
        "virelay",
        "-H",
        "localhost",
        "-p",
        str(port),
        str(tmp_path / "project/project.yaml"),
    ]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    api = f"http://localhost:{port}/api/projects"
    try:
        for _ in range(600):
            try:
                projects = json.loads(fetched(api))
                break
            except OSError:
                assert server.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.2)
        assert len(projects) == 1
        project = json.loads(fetched(f"{api}/0"))
        (analysis,) = project["analysisMethods"]
        assert {category["humanReadableName"] for category in analysis["categories"]} == {"cat", "dog, <b>"}
        assert "kmeans-02" in json.dumps(analysis)
        sample = json.loads(fetched(f"{api}/0/dataset/9"))
        assert "dog, <b>" in json.dumps(sample)
        with Image.open(BytesIO(fetched(f"{api}/0/dataset/9/image"))) as image:
            assert image.size == (24, 24)
            shown = np.asarray(image.convert("RGB"), np.float64)
        with Image.open(tmp_path / "photos" / IDS[9]) as original:
            expected = np.asarray(
                original.convert("RGB").resize((24, 24), Image.Resampling.BILINEAR), np.float64
            )
        assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.97  # it is sent as JPEG
        assert abs(shown - expected).mean() < 15
        with Image.open(BytesIO(fetched(f"{api}/0/attributions/9/heatmap?colorMap=black-fire-red"))) as heat:
            values = np.asarray(heat.convert("L"), np.float64)
        assert values[8:16, 8:16].mean() > values[:4].mean() + 50  # the dog's saliency is in the middle
        url = f"{api}/0/analyses/Spectral?category=00003&clustering=kmeans-02&embedding=spectral"
        found = json.loads(fetched(url))
        assert len(found["embedding"]) == 8, found
        clusters = [one["cluster"] for one in found["embedding"]]
        assert len({*clusters[::2]}) == len({*clusters[1::2]}) == 1  # left and right
        assert clusters[0] != clusters[1]
    finally:
        server.terminate()
        server.wait(30)


_CHECK = """
import json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import fiftyone as fo
from load import load, samples

def content(some):
    found = []
    for sample in some:
        heat, label = sample["saliency"], sample["predictions"].classifications[0]
        values = np.asarray(heat.get_map())
        found.append([sample["sample_id_in_run"], sample.filepath, label.label, label.insertion, heat.range,
                      list(values.shape), float(values.max())])
    return found

found = content(samples())
try:
    dataset = load()
except fo.core.config.FiftyOneConfigError as error:  # its wheel has no MongoDB for this system
    print("NO DATABASE", error)
else:
    assert content(dataset) == found
    dataset.delete()
print("FOUND", json.dumps(found))
"""


def test_fiftyone_loads_the_heat_maps(run: Path, tmp_path: Path, environments: Path) -> None:
    python = python_of("fiftyone", environments)
    assert main(["export", str(run), "--to", "fiftyone", "--output", str(tmp_path / "fo")]) == 0
    own = {
        "HOME": str(tmp_path), "FIFTYONE_DATABASE_DIR": str(tmp_path / "db"), "FIFTYONE_DO_NOT_TRACK": "true",
    }  # fmt: skip
    done = subprocess.run(
        [python, "-c", _CHECK, str(tmp_path / "fo")],
        env={**os.environ, **own}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    if "NO DATABASE" in done.stdout:
        warnings.warn(
            "FiftyOne has no MongoDB here: only its samples were checked, no data set", stacklevel=1
        )
    found = json.loads(done.stdout.rpartition("FOUND ")[2])
    assert [row[0] for row in found] == IDS
    assert [row[2] for row in found] == ["cat"] * 8 + ["dog, <b>"] * 8
    with MaskFile(run) as masks:
        for (_, path, _, insertion, span, shape, most), explanation in zip(found, masks, strict=True):
            assert path == explanation.image["path"]
            assert insertion == pytest.approx(0.8)
            assert shape == [30, 40]
            largest = explanation.frame.largest_on_original(explanation.saliency)
            assert span == [0, round(65535 * largest)]
            assert most / 65535 == pytest.approx(explanation.saliency_on_original().max(), abs=1e-4)
