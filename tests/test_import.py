"""``igos-pl import`` and ``igos-pl evaluate`` from end to end, with a tiny network."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import results
import tiny
import yaml
from PIL import Image

import igos_pl
from igos_pl.cli.help import EVALUATE_HELP, IMPORT_HELP
from igos_pl.cli.main import main
from igos_pl.cli.start_folder import paths_from_start, with_start_folder
from igos_pl.data.geometry import cell_means
from igos_pl.errors import IgosError, TargetError
from igos_pl.judging.metrics import METRICS
from igos_pl.judging.saliency_files import MapsInMemory, open_maps
from igos_pl.store import MaskFile
from igos_pl.store.evaluations import EVALUATION
from igos_pl.store.seals import check_seal

NAMES = ["a.png", "b/c.jpg", "d.png", "e.png"]

pytestmark = [pytest.mark.usefixtures("apart"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """A folder of maps in three formats; one of them has the image's whole name."""
    folder = tmp_path / "maps"
    (folder / "b").mkdir(parents=True)
    for number, name in enumerate(("a.npy", "b/c.jpg.npy", "d.png")):
        values = saliency(number)
        if name.endswith(".npy"):
            np.save(folder / name, values)
        else:
            Image.fromarray((values * 65535).round().astype(np.uint16)).save(folder / name)
    np.savez(folder / "e.npz", saliency(3))
    return folder


def saliency(number: int, size: int = 12) -> np.ndarray:
    return np.random.default_rng(number).random((size, size))


def network_words(photos: Path) -> list[str]:
    settings = {
        "data.root": photos,
        "data.num_workers": 0,
        "data.batch_size": 2,
        "model.network": "Classifier",
        "model.network.module": "tiny.TinyNet",
        "model.network.input_size": tiny.SIZE,
        "model.mask_size": 6,
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "overlays.count": 0,
    }
    return [f"--{key}={value}" for key, value in settings.items()]


def imported(maps: Path, photos: Path, *more: str) -> list[str]:
    return ["import", str(maps), "--name=grad-cam", *network_words(photos), "--output=run", *more]


def predicted(photos: Path, *more: str) -> list[str]:
    return ["predict", *network_words(photos), "--model.iterations=2", "--output=run", *more]


def test_import_from_end_to_end(maps: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(imported(maps, photos)) == 0
    said = capsys.readouterr()
    assert "4 explanations: grad-cam, masks of 6 x 6" in said.out
    assert "4 images to import" in said.err
    with MaskFile("run") as file:
        assert file.column("sample_id").tolist() == NAMES
        assert file.attributes["method"] == "grad-cam"
        assert np.isfinite(file.column("insertion")).all()
        for number, mask in enumerate(file.column("masks")):
            (cells,) = cell_means(saliency(number)[None], 6, (tiny.SIZE, tiny.SIZE))
            np.testing.assert_allclose(1 - mask, cells / cells.max(), atol=1e-4)
    assert main(["verify", "run"]) == 0
    assert main(["info", "run"]) == 0
    segments = list(Path("run/segments").iterdir())
    assert main(imported(maps, photos)) == 0
    assert list(Path("run/segments").iterdir()) == segments  # nothing was left to do
    np.save(maps / "a.npy", saliency(9))
    assert main(imported(maps, photos)) == 2
    assert "the first or the last saliency map has another content" in capsys.readouterr().err


def test_images_without_maps_and_bad_maps(
    maps: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (maps / "a.npy").unlink()
    np.save(maps / "e.npy", saliency(3))
    (maps / "e.npz").unlink()
    np.save(maps / "d.npy", np.full((12, 12), np.nan))
    (maps / "d.png").unlink()
    np.save(maps / "stranger.npy", saliency(1))
    assert main(imported(maps, photos)) == 0
    with MaskFile("run") as file:
        assert file.column("sample_id").tolist() == ["b/c.jpg", "e.png"]
        told = dict(zip(file.images["sample_id"].tolist(), file.images["message"].tolist(), strict=True))
    assert "has no saliency map of this image" in told["a.png"]
    assert "not finite" in told["d.png"]
    said = capsys.readouterr()
    assert "a.png: failed" in said.out


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: np.save(folder / "other.npy", saliency(0)), "No image has a saliency map"),
        (lambda folder: None, "has no saliency maps"),
        (
            lambda folder: np.save(folder / "a.npy", -saliency(0)),
            "Negative values, .* in the saliency of 1 of the 1 image checked ",
        ),
        (lambda folder: np.save(folder / "a.npy", saliency(0, 5)), "--model.mask_size 5"),
        (lambda folder: np.save(folder / "a.npy", np.ones((3, 12, 12))), "3 saliency maps"),
        (lambda folder: np.save(folder / "a.npy", np.ones(4)), r"\(h, w\)"),
        (lambda folder: np.save(folder / "a.npy", np.array(["x"])), "not numbers"),
        (lambda folder: (folder / "a.npy").write_bytes(b"no array"), "cannot be read"),
        (lambda folder: Image.new("RGB", (9, 9)).save(folder / "a.png"), "must be grey"),
        (lambda folder: Image.new("L", (9, 9)).save(folder / "a.png", "EPS"), "cannot identify image"),
    ],
)
def test_maps_that_are_refused(
    make: object, message: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    make(folder)  # type: ignore[operator]
    for name in NAMES[1:]:
        (photos / name).unlink()
    assert main(imported(folder, photos)) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not Path("run/masks.h5").exists()


def test_negative_maps_are_told_before_the_first_image(
    maps: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if the first image has none."""
    np.save(maps / "e.npy", -saliency(3))
    (maps / "e.npz").unlink()
    (maps / "d.png").write_bytes(b"damaged")  # this is recorded for the image, as always
    assert main(imported(maps, photos)) == 2
    message = r"of 1 of the 3 images checked \(down to -.*, in e.png\): set negative \(--model.negative"
    assert re.search(message, capsys.readouterr().err)
    assert not list(Path("run").glob("segments/*"))
    assert main(imported(maps, photos, "--model.negative=absolute")) == 0


def test_maps_in_files(tmp_path: Path) -> None:
    values = saliency(0)
    with h5py.File(tmp_path / "maps.h5", "w") as file:
        file["b/c.jpg"] = values
        file["several/7"] = values
        file["several/9"] = values * 2
        file["several/deeper/1"] = values
        file["again"] = file["b/c.jpg"]
        file["mixed/1"] = values
        file["mixed/2"] = file["away"] = h5py.ExternalLink("elsewhere.h5", "x")
    with h5py.File(tmp_path / "elsewhere.h5", "w") as file:
        file["x"] = values
    np.savez(tmp_path / "maps.npz", **{"a.png": values})
    opened = open_maps(tmp_path / "maps.h5")
    maps = opened.of("b/c.jpg")
    assert maps is not None
    np.testing.assert_array_equal(maps.values, values[None])
    several = opened.of("several.jpg")
    assert several is not None
    assert (several.labels, several.values.shape) == (["7", "9"], (2, 12, 12))
    again = opened.of("again.jpg")
    assert again is not None
    np.testing.assert_array_equal(again.values, maps.values)
    for name in ("away", "mixed"):
        with pytest.raises(TargetError, match="leads to another place"):
            opened.of(name)
    spare = ["again", "away", "mixed/1", "mixed/2", "several/deeper/1"]
    assert opened.check(["b/c.jpg", "several.jpg", "x.png"]) == (["x.png"], spare)
    archive = open_maps(tmp_path / "maps.npz")
    assert archive.of("a.png") is not None
    assert archive.of("b.png") is None
    with pytest.raises(IgosError, match="does not exist"):
        open_maps(tmp_path / "none")
    np.savez(tmp_path / "none.npz")
    with pytest.raises(IgosError, match="none.npz has no saliency maps"):
        open_maps(tmp_path / "none.npz")
    facts = [MapsInMemory({"a": values, "b": values * factor}).facts() for factor in (1, 2)]
    assert facts[0].pop("saliency.items") != facts[1].pop("saliency.items")
    assert facts[0] == facts[1]
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(IgosError, match="not a file of saliency maps that igos_pl can read"):
        open_maps(tmp_path / "x.txt")


def test_names_that_could_mean_two_things(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", saliency(0))
    with pytest.raises(IgosError, match="a could belong to a.jpg and to a.png"):
        open_maps(tmp_path).check(["a.jpg", "a.png"])
    np.savez(tmp_path / "a.npz", saliency(0))
    with pytest.raises(IgosError, match="are for the same image"):
        open_maps(tmp_path)


def test_names_are_compared_with_the_images_of_all_shards(
    maps: Path, photos: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(imported(maps, photos, "--data.shard=1/2")) == 0
    assert "without an image" not in caplog.text
    Image.new("RGB", (9, 9)).save(photos / "a.bmp")
    assert main(imported(maps, photos, "--data.shard=1/2", "--output=other")) == 2
    assert "a could belong to a.bmp and to a.png" in capsys.readouterr().err


def test_several_classes_of_an_image_by_their_labels(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "labelled"
    (folder / "b").mkdir(parents=True)
    for name in ("a", "b/c", "d", "e"):
        np.savez(folder / f"{name}.npz", **{"3": saliency(1), "0": saliency(2)})
    assert main(imported(folder, photos)) == 0
    with MaskFile("run") as file:
        assert file.column("label").tolist() == [3, 0] * 4
        assert file.column("target").tolist() == [0, 1] * 4
        scores = file.column("score")
        np.testing.assert_allclose(scores, file.column("deletion_curve")[:, 0], atol=1e-4)


METRICS_HERE = "deletion_insertion:black,lerf_morf"
COLUMNS = ["deletion_black", "insertion_black", "difference_black", "morf_mean", "lerf_mean",
           "lerf_morf_mean", "aopc_mean"]  # fmt: skip


def masks_bytes() -> bytes:
    return Path("run/masks.h5").read_bytes()


def test_evaluate_from_end_to_end(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(predicted(photos)) == 0
    before = masks_bytes()
    capsys.readouterr()
    assert main(["evaluate", "run", "--metrics", METRICS_HERE, "--csv", "means.csv"]) == 0
    said = capsys.readouterr()
    assert masks_bytes() == before
    check_seal(Path("run") / EVALUATION)
    with MaskFile("run") as file:
        assert set(file.evaluation) == set(COLUMNS)
        for values in file.evaluation.values():
            assert np.isfinite(values).all()
        figures = file.evaluation["difference_black"]
        flat = file.flat()
        np.testing.assert_array_equal(flat["difference_black"], figures)
        np.testing.assert_array_equal(file[1:3].flat()["aopc_mean"], file.evaluation["aopc_mean"][1:3])
        assert set(file.evaluation_settings) == {"deletion_insertion-black", "morf_lerf-mean"}
    with Path("means.csv").open() as means:
        rows = list(csv.DictReader(means))
    assert [row["figure"] for row in rows] == COLUMNS
    assert float(rows[2]["mean"]) == pytest.approx(figures.mean(), abs=1e-6)
    assert float(rows[2]["standard_error"]) == pytest.approx(figures.std(ddof=1) / 2, abs=1e-6)
    assert f"{figures.mean():.4f}" in said.out
    segments = sorted(Path("run/evaluation").rglob("*.h5"))
    assert main(["evaluate", "run", "--metrics", METRICS_HERE]) == 0
    assert sorted(Path("run/evaluation").rglob("*.h5")) == segments  # nothing was left to do
    assert main(["info", "run", "--csv", "rows.csv"]) == 0
    with Path("rows.csv").open() as file:
        assert {*COLUMNS} <= set(csv.DictReader(file).fieldnames or ())


def test_damaged_figures_are_found(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(predicted(photos)) == 0
    assert main(["evaluate", "run", "--metrics=morf"]) == 0
    assert main(["verify", "run"]) == 0
    path = Path("run") / EVALUATION
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    assert main(["verify", "run"]) == 1
    assert EVALUATION in capsys.readouterr().out
    assert main(["info", "run"]) == 2
    assert main(["evaluate", "run", "--metrics=morf"]) == 0  # makes the file again
    assert main(["verify", "run"]) == 0


def test_figures_equal_those_of_the_run_by_the_same_judge(photos: Path) -> None:
    assert main(predicted(photos, "--model.curves=full")) == 0
    assert main(["evaluate", "run", "--metrics=deletion_insertion:blur"]) == 0
    with MaskFile("run") as file:
        for name in ("deletion", "insertion"):
            np.testing.assert_allclose(file.evaluation[f"{name}_blur"], file.column(name), atol=1e-5)


def test_imported_masks_are_judged_alike(maps: Path, photos: Path) -> None:
    assert main(imported(maps, photos)) == 0
    assert main(["evaluate", "run", "--metrics=deletion_insertion:blur", "--cells=3"]) == 0
    assert main(["evaluate", "run", "--metrics=deletion_insertion:blur"]) == 0
    with MaskFile("run") as file:
        np.testing.assert_allclose(file.evaluation["deletion_blur"], file.column("deletion"), atol=1e-5)
        assert np.isfinite(file.evaluation["deletion_blur_cells3"]).all()


def test_evaluation_that_was_stopped_goes_on(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(predicted(photos)) == 0
    words = ["evaluate", "run", "--metrics=morf", "--data.batch_size=1", "--writer.images_per_segment=1"]

    with tiny.broken_at_the_third_image(monkeypatch), pytest.raises(RuntimeError, match="on fire"):
        main(words)
    published = set(Path("run/evaluation/morf_lerf-mean/segments").glob("*.h5"))
    assert published
    assert main(words) == 0
    assert published < set(Path("run/evaluation/morf_lerf-mean/segments").glob("*.h5"))
    with MaskFile("run") as file:
        assert np.isfinite(file.evaluation["morf_mean"]).all()


def test_later_images_are_judged_later(photos: Path) -> None:
    assert main(predicted(photos, "--data.limit=2")) == 0
    assert main(["evaluate", "run", "--metrics=morf"]) == 0
    assert main(predicted(photos)) == 0
    with MaskFile("run") as file:
        assert np.isnan(file.evaluation["morf_mean"]).tolist() == [False, False, True, True]
    assert main(["evaluate", "run", "--metrics=morf"]) == 0
    with MaskFile("run") as file:
        assert np.isfinite(file.evaluation["morf_mean"]).all()


def test_evaluate_from_another_folder(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(predicted(photos, "--data.root=photos/**/*.*")) == 0
    (photos / "away").mkdir()
    monkeypatch.chdir(photos / "away")
    assert main(["evaluate", "../../run", "--metrics=morf"]) == 0
    assert f"taken from {photos.parent}, where the run was started: data.root (" in capsys.readouterr().err
    with MaskFile("../../run") as file:
        assert np.isfinite(file.evaluation["morf_mean"]).all()
    config = Path("../../run/config.yaml")
    config.write_text(config.read_text().partition("\n")[2])  # as older versions wrote it
    assert main(["evaluate", "../../run", "--metrics=morf"]) == 2
    assert f"No image matches {Path.cwd()}/photos" in capsys.readouterr().err


def test_only_paths_that_are_in_the_first_folder_alone_are_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here/both", "start/both", "start/cat", "start/weights.pth", "start/my/model"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "start/0.tar").touch()
    network = {"weights": "weights.pth", "name": "my/model", "class_names": ["cat"], "top_k": 1}
    data = {"root": "both", "urls": ["{0..1}.tar", "gone.tar"], "labels": "folders", "annotations": None}
    settings = {"model": {"network": {"init_args": network}}, "data": {"init_args": data}}
    monkeypatch.chdir(tmp_path / "start")
    config = tmp_path / "config.yaml"
    config.write_text(with_start_folder(yaml.safe_dump(settings)))
    assert paths_from_start(config) == []
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", [*sys.path])
    start = tmp_path / "start"
    assert paths_from_start(config) == [
        f"--model.network.init_args.name={start}/my/model",
        f"--model.network.init_args.weights={start}/weights.pth",
        f'--data.init_args.urls=["{start}/{{0..1}}.tar", "gone.tar"]',
    ]


def test_figures_of_other_settings_are_not_joined(photos: Path) -> None:
    assert main(predicted(photos)) == 0
    assert main(["evaluate", "run", "--metrics=morf"]) == 0
    content = (Path("run") / EVALUATION).read_bytes()
    assert main(predicted(photos, "--output=other", "--model.iterations=1")) == 0
    (Path("other") / EVALUATION).write_bytes(content)
    with MaskFile("other") as file:
        assert file.evaluation == {}


def test_another_network_is_refused(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(predicted(photos)) == 0
    words = ["evaluate", "run", "--metrics=morf"]
    assert main([*words, "--model.network.module=tiny.TinyNet", "--model.network.module.seed=1"]) == 2
    assert "explained another network (network.weights_sha256" in capsys.readouterr().err


def test_sensitivity_explains_with_the_settings_of_the_run(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("captum")
    assert main(predicted(photos, "--model.network.top_k=2", "--trainer.precision=bf16-mixed")) == 0
    words = ["evaluate", "run", "--metrics=sensitivity", "--samples=2"]
    assert main([*words, "--model.iterations=1"]) == 2
    assert "made with other settings (iterations: there 2, now 1)" in capsys.readouterr().err
    assert main([*words, "--model.metrics=false", "--model.network.targets=[0]"]) == 0
    with MaskFile("run") as file:
        assert np.isfinite(file.evaluation["sensitivity_samples2"]).sum() == 8


def test_an_image_that_has_changed_is_not_judged(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(predicted(photos)) == 0
    Image.new("RGB", (40, 30), (250, 250, 0)).save(photos / "d.png")
    capsys.readouterr()
    assert main(["evaluate", "run", "--metrics=morf"]) == 1
    said = capsys.readouterr().out
    assert "1 image could not be judged" in said
    assert "d.png: the recorded score of" in said
    with MaskFile("run") as file:
        assert np.isnan(file.evaluation["morf_mean"]).tolist() == [False, False, True, False]


def open_files() -> int:
    return int(h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE))


def test_figures_are_unknown_if_no_image_can_be_read(photos: Path) -> None:
    data = igos_pl.ImageFolderDataModule(str(photos), num_workers=0)
    explainer = igos_pl.Explainer(tiny.tiny_classifier(), mask_size=6, iterations=1)
    tiny.quiet_trainer(Path("run")).predict(explainer, data, return_predictions=False)
    for name in NAMES:
        (photos / name).write_bytes(b"broken")
    before = open_files()
    found = igos_pl.evaluate("run", "morf", explainer.network, data)
    assert open_files() == before
    assert list(found) == ["morf_mean", "lerf_mean", "lerf_morf_mean", "aopc_mean"]
    for values in found.values():
        np.testing.assert_array_equal(values, np.full(4, np.nan))


def test_bad_words_are_named(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["evaluate", "--metrics=road"], "RUN and --metrics are needed"),
        (["evaluate", "nowhere", "--metrics=road"], "nowhere"),
        (["evaluate", "nowhere", "--metrics=raod"], "did you mean road"),
        (["evaluate", "run", "--metrics=road", "--cells=x"], "--cells"),
        (["evaluate", "run", "--metrics=road", "--csv=nowhere/x.csv"], "Cannot write nowhere"),
        (["import", "--output=run"], "SALIENCY is missing"),
        (["import", "nowhere", f"--data.root={photos}", "--output=run"], "nowhere does not exist"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "import maps", "evaluate run.h5 --metrics=road", "sanity"])
@pytest.mark.parametrize("setting", ["--data.bach_size=2", "--data.batch_size=two"])
def test_errors_point_to_the_command_that_was_run(
    photos: Path, maps: Path, command: str, setting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    results.write_result(Path("run.h5"), NAMES)
    name, *words = command.split()
    where = [] if name == "evaluate" else [f"--data.root={photos}", "--output=other"]
    assert main([name, *words, *where, setting]) == 2
    assert f"\n  igos-pl {name} --help says more\n" in capsys.readouterr().err


def test_help_lists_the_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--metrics", "help"]) == 0
    said = capsys.readouterr().out
    for metric in METRICS.values():
        assert f"{metric.name}: {metric.about}" in said
    for text, command in ((IMPORT_HELP, "import"), (EVALUATE_HELP, "evaluate")):
        assert main([command, "--help"]) == 0
        assert capsys.readouterr().out == text
        assert max(map(len, text.splitlines())) <= 80
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "igos_pl", "evaluate", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not re.search(r"\| +torch$", found.stderr, re.MULTILINE)


def test_regions_are_removed_as_in_the_run(photos: Path) -> None:
    pytest.importorskip("skimage")
    words = ["--model.regions=Slic", "--model.regions.count=5", "--model.curves=full"]
    assert main(predicted(photos, *words)) == 0
    assert main(["evaluate", "run", "--metrics=deletion_insertion:blur"]) == 0
    with MaskFile("run") as file:
        for name in ("deletion", "insertion"):
            np.testing.assert_allclose(file.evaluation[f"{name}_blur"], file.column(name), atol=1e-5)
