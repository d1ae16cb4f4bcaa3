"""Masks over regions: the partition, the optimisation, the curves, the sources, the files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import (
    FACTORIES,
    SIZE,
    objective_of,
    pictures,
    problem_of,
    quiet_trainer,
    tiny_classifier,
    write_pictures,
)
from torch import Tensor, nn

from igos_pl import MaskFile, explain
from igos_pl.cli.main import main
from igos_pl.data.annotations import GroundTruth
from igos_pl.data.batches import ImageBatch
from igos_pl.data.geometry import Frame
from igos_pl.data.records import ImageRecord
from igos_pl.data.regions import GivenLabelMaps, LabelMaps, RegionSource, Slic, segments_label_map
from igos_pl.datamodules import ImageFolderDataModule
from igos_pl.errors import IgosError, TargetError
from igos_pl.explainer import Explainer
from igos_pl.solver.optimize import optimize
from igos_pl.solver.order import array_ranks, most_important, ranks
from igos_pl.solver.regions import Regions

LABELS = torch.tensor([[[7, 7, 2], [7, 7, 2], [9, 9, 2]], [[0, 0, 0], [0, 0, 0], [1, 1, 1]]])
QUICK: dict[str, Any] = {"iterations": 2, "path_steps": 1, "mask_size": 8}


def test_regions_are_numbered_in_the_order_of_their_labels() -> None:
    regions = Regions.of(LABELS)
    assert regions.count == 3
    assert regions.index[0].tolist() == [[1, 1, 0], [1, 1, 0], [2, 2, 0]]
    assert regions.sizes().tolist() == [[3, 4, 2], [6, 3, 0]]
    assert regions.select(torch.tensor([1])).sizes().tolist() == [[6, 3, 0]]


def test_spreading_and_summing_are_adjoint() -> None:
    """The sum over a region's cells is the gradient of what is spread over them."""
    regions = Regions.of(LABELS)
    values = torch.rand(2, 2, 3, 1, generator=torch.Generator().manual_seed(0), requires_grad=True)
    cells = regions.spread(values)
    assert cells.shape == (2, 2, 3, 3)
    assert cells[0, 1, 0, 0] == cells[0, 1, 1, 1] == values[0, 1, 1, 0]
    weights = torch.rand(2, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((cells * weights).sum(), values)
    torch.testing.assert_close(regions.summed(weights), gradient)
    used = regions.sizes()[:, None, :, None] > 0
    torch.testing.assert_close(regions.means(cells.detach()), torch.where(used, values.detach(), 0.0))


def test_whole_regions_are_removed_in_order() -> None:
    regions = Regions.of(LABELS)
    values = torch.tensor([[0.5, 0.1, 0.9], [0.3, 0.3, 0.0]]).reshape(2, 1, 3, 1)
    masks = regions.spread(values).squeeze(1)
    place = ranks(masks, regions)
    # Four cells, then three, then two: removed where at least half of their cells are due.
    assert place[0].tolist() == [[1, 1, 5], [1, 1, 5], [7, 7, 5]]
    assert place[1].tolist() == [[2, 2, 2], [2, 2, 2], [7, 7, 7]], "ties go by number; no unused region"
    removed = [int((place[0] < count).sum()) for count in range(10)]
    assert removed == [0, 0, 4, 4, 4, 4, 7, 7, 9, 9]
    np.testing.assert_array_equal(array_ranks(masks.numpy(), LABELS.numpy()), place)
    for fraction, count in ((0.01, 4), (0.5, 4), (0.67, 7), (1, 9)):
        assert most_important(masks[0].numpy(), fraction, LABELS[0].numpy()).sum() == count


def test_single_cells_as_regions_change_nothing() -> None:
    masks = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    cells = Regions.of(torch.arange(16).reshape(1, 4, 4).expand(2, 4, 4))
    assert torch.equal(ranks(masks, cells), ranks(masks))
    np.testing.assert_array_equal(array_ranks(masks.numpy()), ranks(masks))
    assert [most_important(masks[0].numpy(), fraction).sum() for fraction in (0.01, 0.5, 1)] == [1, 8, 16]


@pytest.mark.parametrize("optimizer", FACTORIES)
@pytest.mark.parametrize("average", [False, True])
def test_optimised_masks_are_constant_within_regions(optimizer: str, average: bool) -> None:
    problem = problem_of([0, 1], [0, 1])
    labels = torch.arange(36).reshape(6, 6) // 6
    regions = Regions.of(torch.stack((labels, labels.T)))
    objective = objective_of(problem)
    values = nn.Parameter(torch.ones(2, 2, 6, 1))
    found = optimize(objective, values, FACTORIES[optimizer]([values]), 3, average, regions=regions).masks
    assert found.shape == (2, 6, 6)
    assert (found < 1).any()
    for row in range(2):
        for label in range(6):
            assert found[row][regions.index[row] == label].unique().numel() == 1
    # Regions of one cell each are the cells themselves.
    cells = Regions.of(torch.arange(36).reshape(1, 6, 6).expand(2, 6, 6))
    single = nn.Parameter(torch.ones(2, 2, 36, 1))
    alike = optimize(objective_of(problem), single, FACTORIES[optimizer]([single]), 3, average, regions=cells)
    plain = nn.Parameter(torch.ones(2, 2, 6, 6))
    expected = optimize(objective_of(problem), plain, FACTORIES[optimizer]([plain]), 3, average)
    torch.testing.assert_close(alike.masks, expected.masks)


def quarters(height: int, width: int) -> np.ndarray[Any, Any]:
    """Four regions, labelled 10 to 13."""
    down, along = np.arange(height)[:, None] * 2 // height, np.arange(width)[None] * 2 // width
    return np.asarray(10 + 2 * down + along, np.int64)


def test_explain_with_label_maps(tmp_path: Path) -> None:
    images = (pictures(2).float() / 255 - 0.5) / 0.25
    side = images.shape[-1]
    result = explain(tiny_classifier(), images, regions=quarters(side, side), normalized=True, **QUICK)
    assert result.regions.shape == (2, 8, 8)
    assert result.regions[0].tolist() == quarters(8, 8).tolist()
    saliency = result[0].region_saliency()
    assert sorted(saliency) == [10, 11, 12, 13]
    for label, value in saliency.items():
        assert (result[0].saliency[result.regions[0] == label] == np.float32(value)).all()
    assert result.deletion_measured.all(), "the first points have seen all five images"
    path = result.save(tmp_path / "x.h5")
    with MaskFile(path) as masks:
        np.testing.assert_array_equal(masks.column("regions"), result.regions)
        assert masks[1].region_saliency() == result[1].region_saliency()
        assert not {"regions", "masks"} & masks.flat().keys()


def test_curves_of_few_regions_take_few_passes() -> None:
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_classifier().module
            self.images = 0

        def forward(self, images: Tensor) -> Tensor:
            self.images += len(images)
            logits: Tensor = self.inner(images)
            return logits

    network = Counted()
    images = pictures(1).float() / 255
    side = images.shape[-1]
    explain(network, images, regions=quarters(side, side), metrics=True, curves="adaptive", **QUICK)
    whole = network.images
    network.images = 0
    explain(network, images, regions=quarters(side, side), metrics=False, **QUICK)
    assert whole - network.images <= 8 - 2, "the image, the baseline, and three images between them, twice"


def test_runs_without_regions_have_no_such_column(tmp_path: Path) -> None:
    result = explain(tiny_classifier(), pictures(1).float() / 255, metrics=False, **QUICK)
    with MaskFile(result.save(tmp_path / "x.h5")) as masks:
        with pytest.raises(IgosError, match="No column 'regions'; there are: masks,"):
            masks.column("regions")
        with pytest.raises(AttributeError, match="no column 'regions'"):
            masks[0].region_saliency()


def batch_of(width: int, height: int, names: tuple[str, ...] = ("a.jpg",)) -> ImageBatch:
    """Images of 16 x 16 pixels, squashed from originals of width x height."""
    frame = Frame.of(width, height, (16, 16), "squash")
    records = [ImageRecord(name, f"/photos/{name}", frame) for name in names]
    return ImageBatch(pictures(len(names), 16), records, [GroundTruth()] * len(names))


@pytest.mark.parametrize("suffix", [".png", ".npy", ".jpg.png"])
def test_label_maps_in_files(tmp_path: Path, suffix: str) -> None:
    labels = quarters(30, 60)
    (tmp_path / "birds").mkdir()
    path = tmp_path / "birds" / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, labels)
    else:
        Image.fromarray(labels.astype(np.uint8)).save(path)
    found, notes = LabelMaps(str(tmp_path)).label_maps(batch_of(60, 30, ("birds/a.jpg",)), 4)
    assert found.tolist() == [quarters(4, 4).tolist()]
    assert notes == [""]


def test_label_maps_belong_to_one_image(tmp_path: Path) -> None:
    source = LabelMaps(str(tmp_path))
    for name, size in (("a", (30, 60)), ("b.0001", (30, 60)), ("c", (60, 30)), ("c.png", (30, 60))):
        Image.fromarray(quarters(*size).astype(np.uint8)).save(tmp_path / f"{name}.png")
    for name in ("a.jpg", "b.0001", "b.0001.jpg", "c.png"):  # the whole name comes first
        source.label_maps(batch_of(60, 30, (name,)), 4)
    for name in ("a.0001", "b.0002"):  # not an ending of pictures
        with pytest.raises(TargetError, match=rf"it has no label map: there is no .*{name}\.png"):
            source.label_maps(batch_of(60, 30, (name,)), 4)
    source.check(["a.jpg", "a.0001", "a.0002", "b.jpg", "b.png", "c.jpg", "c.png"])
    with pytest.raises(IgosError, match=r"a\.png could be the label map of a\.jpg and of a\.png: name each"):
        source.check(["a.jpg", "c.png", "a.png"])


def test_shared_label_maps_are_refused_before_a_run_and_by_explain(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "photos", ["a.png", "a.jpg"])
    maps = tmp_path / "maps" / folder.relative_to("/")
    maps.mkdir(parents=True)
    Image.new("L", (24, 24)).save(maps / "a.png")
    settings = {"metrics": False, **QUICK}
    explainer = Explainer(tiny_classifier(), regions=LabelMaps(str(maps)), **settings)
    with pytest.raises(IgosError, match="could be the label map of"):
        quiet_trainer(tmp_path / "run").predict(explainer, ImageFolderDataModule(folder, num_workers=0))
    with pytest.raises(IgosError, match="could be the label map of"):
        explain(tiny_classifier(), sorted(folder.iterdir()), regions=LabelMaps(str(tmp_path / "maps")))


def test_palettes_are_labels(tmp_path: Path) -> None:
    picture = Image.fromarray(quarters(30, 60).astype(np.uint8))
    picture.putpalette(list(range(256)) * 3)
    picture.save(tmp_path / "a.png")
    found, _ = LabelMaps(str(tmp_path)).label_maps(batch_of(60, 30), 4)
    assert found.unique().tolist() == [10, 11, 12, 13]


def test_label_maps_that_do_not_fit(tmp_path: Path) -> None:
    source, batch = LabelMaps(str(tmp_path)), batch_of(60, 30)
    for content, message in (
        (None, r"a\.jpg: it has no label map: there is no .*a\.png, nor \.npy or \.tif"),
        (quarters(60, 30), "has 30 x 60 pixels, but the image has 60 x 30"),
        (quarters(30, 60) - 11, "has the label -1, but labels are 0 to"),
        (quarters(30, 60) + 2**31, r"has the label 2147483661"),
        (quarters(30, 60) / 2, "must be whole numbers"),
        (np.arange(1800).reshape(30, 60), "has 1800 regions, but a mask has only 4 x 4 = 16 cells"),
        (np.zeros((30, 60, 3), np.int64), "must be whole numbers of the shape"),
    ):
        if content is not None:
            np.save(tmp_path / "a.npy", content)
        with pytest.raises(TargetError, match=message):
            source.label_maps(batch, 4)
    Image.new("RGB", (60, 30)).save(tmp_path / "a.png")
    with pytest.raises(TargetError, match="has colours"):
        source.label_maps(batch, 4)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(TargetError, match="cannot be read as a label map"):
        source.label_maps(batch, 4)
    with pytest.raises(TargetError, match="leads out of"):
        source.label_maps(batch_of(60, 30, ("../a.jpg",)), 4)
    with pytest.raises(IgosError, match="is not a folder"):
        LabelMaps(str(tmp_path / "none"))


def test_small_regions_that_no_cell_hits_are_told() -> None:
    labels = quarters(30, 60)
    labels[14:16, 28] = 99
    _, notes = GivenLabelMaps({"a.jpg": labels}).label_maps(batch_of(60, 30), 4)
    assert notes[0].startswith("1 of 5 regions lie outside of the network's input or between the 4 x 4 cells")
    assert "only one region" not in notes[0]
    labels[:] = 1
    _, notes = GivenLabelMaps({"a.jpg": labels}).label_maps(batch_of(60, 30), 4)
    assert notes[0].startswith("the mask has only one region")


def test_an_image_without_a_label_map_fails_alone() -> None:
    frame = Frame.of(24, 24, (24, 24), "squash")
    records = [ImageRecord(name, name, frame) for name in "ab"]
    batch = ImageBatch(pictures(2), records, [GroundTruth()] * 2)
    explainer = Explainer(
        tiny_classifier(), regions=GivenLabelMaps({"a": quarters(24, 24)}), metrics=False, **QUICK
    )
    found = {record.sample_id: record for record in explainer.predict_step(batch).images}
    assert found["a"].status == "ok"
    assert (found["b"].status, found["b"].message) == ("failed", "it has no label map")


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ("grid", "must be slic, label maps, or a RegionSource$"),
        ("slik", "or a RegionSource; did you mean slic"),
        (np.zeros((3, 24, 24), np.int64), "3 label maps for 2 images"),
        (np.zeros((24, 24)), "must be whole numbers"),
        (np.zeros((20, 24), np.int64), "24 x 20 pixels, but the image has 24 x 24"),
    ],
)
def test_regions_of_explain_are_checked(regions: Any, message: str) -> None:
    with pytest.raises(IgosError, match=message):
        explain(tiny_classifier(), pictures(2).float() / 255, regions=regions, metrics=False, **QUICK)


def test_superpixels() -> None:
    pytest.importorskip("skimage")
    batch = batch_of(60, 30)
    source = Slic(count=9)
    found, notes = source.label_maps(batch, 16)
    assert 4 <= len(found.unique()) <= 16
    assert notes == [""]
    halves, _ = source.label_maps(ImageBatch(batch.images.float() / 255, batch.records, batch.truth), 16)
    assert (found == halves).float().mean() > 0.9, "bytes are scaled to [0, 1] in another precision"
    with pytest.raises(IgosError, match="regions.count is 20, but a mask has only 4 x 4 = 16 cells"):
        Slic(count=20).label_maps(batch, 4)
    with pytest.raises(IgosError, match="regions.count is 1, but must be at least 2"):
        Slic(count=1)
    with pytest.raises(IgosError, match="regions.compactness is 0"):
        Slic(compactness=0)
    with warnings.catch_warnings():  # more than fit between 8 x 8 cells
        warnings.simplefilter("ignore")
        result = explain(tiny_classifier(), pictures(1) / 255, regions="slic", metrics=False, **QUICK)
    assert result.attributes["regions"] == "Slic"
    assert result.attributes["regions.count"] == 50


def test_settings_tell_label_maps_apart() -> None:
    one, other = ({"a": quarters(8, 8) + number} for number in (0, 1))
    sources: list[RegionSource] = [GivenLabelMaps(maps) for maps in (one, dict(one), other)]
    first, same, different = (source.describe() for source in sources)
    assert first == same != different


def test_segments_of_a_detector() -> None:
    masks = np.zeros((3, 4, 4), bool)
    masks[0, :, :2] = masks[1, 0, 0] = masks[2, :2] = True
    assert segments_label_map(torch.from_numpy(masks)).tolist() == [
        [2, 3, 3, 3],
        [3, 3, 3, 3],
        [1, 1, 0, 0],
        [1, 1, 0, 0],
    ]
    with pytest.raises(IgosError, match="must have the shape"):
        segments_label_map(masks[0])


@pytest.mark.filterwarnings("ignore")
def test_regions_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image without a label map fails; the others are merged with their regions."""
    monkeypatch.chdir(tmp_path)
    names = ["a.png", "b/c.jpg", "d.png"]
    photos = write_pictures(tmp_path / "photos", names)
    for name in names[:2]:
        path = tmp_path / "labels" / Path(name).with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, quarters(30, 40))
    settings = {
        "data.root": photos,
        "data.num_workers": 0,
        "data.batch_size": 2,
        "model.network": "Classifier",
        "model.network.module": "tiny.TinyNet",
        "model.network.input_size": SIZE,
        "model.mask_size": 6,
        "model.iterations": 1,
        "model.path_steps": 1,
        "model.regions": "LabelMaps",
        "model.regions.root": "labels",
        "overlays.count": 0,
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "output": "run",
    }
    main(["predict", *(f"--{key}={value}" for key, value in settings.items())])
    said = capsys.readouterr().out
    assert ", masks over regions (LabelMaps), drawn in 6 x 6 cells\n" in said
    assert "d.png: failed: it has no label map: there is no labels/d.png" in said
    main(["report", "run"])
    page = Path("run/report/index.html").read_text()
    assert '<dd dir="auto">regions (LabelMaps), drawn in 6 x 6 cells' in page
    assert "Deletion removes the regions of the image" in page
    with MaskFile("run/masks.h5") as masks:
        assert masks.column("sample_id").tolist() == names[:2]
        assert masks.column("regions").tolist() == [quarters(6, 6).tolist()] * 2
        assert masks.attributes["regions"] == "LabelMaps"
        assert masks.attributes["regions.root"] == "labels"
        assert masks.images["status"].tolist() == ["ok", "ok", "failed"]
        assert masks.images["message"][2].startswith("it has no label map: there is no labels/d.png")
