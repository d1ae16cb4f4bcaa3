"""The benchmark of quality against passes: its photos, its judges, its results, tables and figure."""

from __future__ import annotations

import importlib
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import SIZE, pictures, tiny_classifier

from igos_pl.data import imagenet
from igos_pl.errors import IgosError
from igos_pl.evaluation.deletion_insertion import (
    area_under_curve,
    deletion_insertion_curves,
    removal_counts,
)
from igos_pl.solver.micro_batches import MicroBatches

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def found_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are scripts that import each other by name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def photos() -> ModuleType:
    return importlib.import_module("photos")


def figures(insertion: float, deletion: float = 0.0) -> Any:
    from comparison.results import Figures

    return Figures(deletion, insertion, evaluations=30, forwards=6, seconds=1.0)


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda path: path.stem)
def test_every_module_can_be_imported(path: Path) -> None:
    """Names that moved between the modules of the benchmarks would be noticed months later."""
    parts = path.relative_to(ROOT / "benchmarks").with_suffix("").parts
    importlib.import_module(".".join(parts))


def test_paired_difference() -> None:
    from comparison.tables import paired_difference

    reference = {name: figures(0.5) for name in "abcx"}
    other = {name: figures(0.5 + gain) for name, gain in zip("abcy", (1, 2, 6, 99), strict=True)}
    mean, error = paired_difference(other, reference)
    assert mean == pytest.approx(3)  # of 1, 2 and 6, whose standard deviation is sqrt(7)
    assert error == pytest.approx(math.sqrt(7 / 3))
    assert all(map(math.isnan, paired_difference({}, reference)))


def test_table_is_of_shared_cases() -> None:
    from comparison.figure import curves_of
    from comparison.tables import table

    found = {
        "igospp": {"a": figures(0.9, 0.1), "b": figures(0.5, 0.1)},
        "ig@30": {"a": figures(0.7, 0.2), "z": figures(1.0)},
        "rise@10": {},
    }
    lines = table(found).splitlines()
    assert len({len(line) for line in lines}) == 1
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0][-1] == "minus igospp"
    assert rows[2] == ["igospp", "2", "30", "6", "96", "1.0", "0.100", "0.700", "0.600", ""]
    assert rows[3] == ["ig@30", "1", "30", "6", "96", "1.0", "0.200", "0.700", "0.500", "-0.300 ± nan"]
    assert len(rows) == 4
    assert curves_of(found) == {"igospp": [(96, pytest.approx(0.8))], "ig": [(96, pytest.approx(0.5))]}


def test_figure(tmp_path: Path) -> None:
    from comparison.figure import draw, spread

    found = {name: {"a": figures(0.5)} for name in ("igospp@2", "igospp@4", "ig@30", "grad-cam")}
    draw(found, tmp_path / "figure.png", "own")
    assert Image.open(tmp_path / "figure.png").width > 500
    assert spread([0.5, 0.0, 0.52, 0.9], 0.1) == pytest.approx([0.46, 0.0, 0.56, 0.9])
    assert spread([0.5, 0.5, 0.42], 0.1) == pytest.approx([0.47333, 0.57333, 0.37333], abs=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        *("nothing", "ig", "ig@0", "ig@1x2", "grad-cam@3", "greedy", "igospp@", "igospp@1x2x3x4"),
        *("search@7x7", "search-slic"),
    ],
)
def test_names_of_methods(name: str) -> None:
    from comparison.methods import split_name

    if name == "igospp@":
        assert split_name(name) == ("igospp", ())
        return
    with pytest.raises(IgosError, match="method"):
        split_name(name)


def test_every_example_is_a_name() -> None:
    from comparison.methods import check_kind, label_of, split_name
    from peers.registry import PEERS

    for family, peer in PEERS.items():
        assert split_name(peer.example)[0] == family
        assert label_of(family) == peer.label
    with pytest.raises(IgosError, match="odam does not explain photos, but detections"):
        check_kind("odam", "photos")


def test_amounts_and_published_settings() -> None:
    from comparison.methods import explainer_of

    network = tiny_classifier(input_size=224)

    def settings(method: str) -> tuple[int, ...]:
        made = explainer_of(network, method)
        return made.iterations, made.path_steps, made.mask_size, made.l1

    assert settings("igospp@7x3") == (7, 3, 28, 1)
    assert settings("igospp@7x3x9") == (7, 3, 9, 1)
    assert settings("published@5") == (5, 20, 224, 10)
    assert settings("published_igos+@5") == (5, 20, 224, 10)
    assert explainer_of(network, "published_igos+").method == "iGOS+"


def samples_of(network: Any, number: int, size: int = SIZE) -> list[Any]:
    from comparison.samples import make_sample

    return [
        make_sample(network, f"photo{i}", Image.fromarray(image.permute(1, 2, 0).numpy()))
        for i, image in enumerate(pictures(number, size))
    ]


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from comparison import results as module

    network = tiny_classifier()
    samples = samples_of(network, 3)
    explained = []

    def counted(network: Any, method: str, sample: Any) -> Any:
        explained.append(sample.id)
        return actual(network, method, sample)

    actual = module.explain
    monkeypatch.setattr(module, "explain", counted)

    def go(method: str, number: int, judges: list[str], description: str = "settings") -> Any:
        results = module.Results(tmp_path, method, description)
        module.run(network, method, samples[:number], judges, results)
        return module.Results(tmp_path, method, description)

    first = go("rise@5", 2, ["own"]).figures(samples[0], 0, "own")
    assert (first.evaluations, first.forwards) == (0, 5)
    lines = tmp_path / "rise@5.jsonl"
    lines.write_text(lines.read_text()[:-9])  # killed while it wrote
    again = go("rise@5", 3, ["own"])
    assert explained == ["photo0", "photo1", "photo2"]  # the second's mask was there
    assert again.figures(samples[0], 0, "own") == first
    assert all(again.figures(sample, 0, "own") for sample in samples)
    assert len(lines.read_text().splitlines()) == 3
    go("rise@5", 3, ["own/mean", "smoothed"])
    assert len(explained) == 3
    go("rise@5", 1, ["own"], description="other settings")
    assert explained[3:] == ["photo0"]


def test_regions_are_kept_with_their_masks(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="scikit-image comes with the extra 'bench'")
    from comparison.results import Results, run

    network = tiny_classifier()
    samples = samples_of(network, 1)

    def go() -> Any:
        results = Results(tmp_path, "greedy-slic@5", "settings")
        run(network, "greedy-slic@5", samples, ["own"], results)
        return results.figures(samples[0], 0, "own")

    before = go()
    (tmp_path / "greedy-slic@5.jsonl").unlink()
    assert go() == before  # and so are the seconds: nothing was explained again


def test_ours_and_its_description() -> None:
    from comparison.methods import describe, explain

    network = tiny_classifier(input_size=32)
    (sample,) = samples_of(network, 1, 32)
    (found,) = explain(network, "igospp@2x3", sample)
    assert found.explanation.mask.shape == (28 * 28,)
    assert found.passes.evaluations == 4 * 2 * 3
    assert describe(network, "igospp@2x3") != describe(network, "igospp@2x4")


def test_the_search_in_cells_and_in_superpixels() -> None:
    pytest.importorskip("skimage", reason="scikit-image comes with the extra 'bench'")
    from comparison.methods import explain, explainer_of
    from peers.partitions import Grid, slic

    network = tiny_classifier(input_size=32)
    (sample,) = samples_of(network, 1, 32)
    assert explainer_of(network, "search").mask_size == 7
    (cells,) = explain(network, "search@3", sample)
    assert cells.explanation.partition == Grid(3, (32, 32))
    assert (cells.explanation.mask * 8).round().sort().values.tolist() == list(range(9))
    (pixels,) = explain(network, "search-slic@9", sample)
    expected = slic(sample.pixels, 9)
    assert torch.equal(pixels.explanation.partition.labels, expected.labels)
    places = pixels.explanation.mask * (len(expected) - 1)
    assert places.round().sort().values.tolist() == list(range(len(expected)))
    assert pixels.passes.evaluations > 0


def explanation_of(side: int, sample: Any) -> Any:
    from peers.explanation import Explanation
    from peers.partitions import Grid

    mask = torch.rand(side**2, generator=torch.Generator().manual_seed(0))
    return Explanation(Grid(side, sample.pixels.shape[1:]), mask)


@pytest.mark.parametrize("side", [6, 20])
def test_the_judge_agrees_with_the_product(side: int) -> None:
    from comparison.judges import judge, judge_named

    network = tiny_classifier()
    (sample,) = samples_of(network, 1)
    explanation = explanation_of(side, sample)
    problem = sample.problem(network, 0, "mean")
    counts = removal_counts(torch.tensor([side**2]), min(50, side**2))
    masks = explanation.mask.reshape(1, side, side)
    curves = deletion_insertion_curves(network, problem, masks, counts, MicroBatches(10))
    expected = float(area_under_curve(curves.deletion)), float(area_under_curve(curves.insertion))
    assert judge(network, sample, 0, explanation, judge_named("own/mean")) == pytest.approx(
        expected, abs=1e-3
    )


def test_judges() -> None:
    pytest.importorskip("skimage", reason="scikit-image comes with the extra 'bench'")
    from comparison.judges import as_judged, judge, judge_named

    network = tiny_classifier()
    (sample,) = samples_of(network, 1)
    explanation = explanation_of(20, sample)
    names = ("standard", "own/blur", "mean", "5", "5/black", "slic9", "slic9/noise", "smoothed")
    areas = {name: judge(network, sample, 0, explanation, judge_named(name)) for name in names}
    assert all(0 <= value <= 1 for pair in areas.values() for value in pair)
    assert areas["standard"] == areas["own/blur"]
    assert len(set(areas.values())) == len(names) - 1
    assert len(as_judged(explanation, "smoothed", sample).mask) == SIZE**2
    for name in ("none", "1", "slic", "28/grey", "/mean"):
        with pytest.raises(IgosError, match="no judge"):
            judge_named(name)


def test_curves_over_regions_go_by_area() -> None:
    from comparison.judges import curve_points
    from peers.explanation import Explanation
    from peers.partitions import Regions

    regions = Regions(torch.tensor([[0, 1, 1, 1], [2, 2, 2, 2]]))  # 1, 3 and 4 eighths
    explanation = Explanation(regions, torch.tensor([0.5, 0.1, 0.9]))
    counts, shares = curve_points(explanation, 1.0)
    assert counts.tolist() == [0, 1, 2, 3]
    assert shares.tolist() == pytest.approx([0, 3 / 8, 4 / 8, 1])
    counts, shares = curve_points(explanation, 0.4)  # three eighths come nearest to it
    assert counts.tolist() == [0, 1]
    assert shares.tolist() == pytest.approx([0, 1])


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import evaluations
    from comparison import samples
    from photos import Candidate, Photo, write

    picture = Image.fromarray(pictures(1)[0].permute(1, 2, 0).numpy())
    photo = Photo("a", "hen", 8, 0.75, "tuning", "source")
    write(tmp_path, [(photo, Candidate("a", picture, "hen", "source"))])
    monkeypatch.setitem(samples.NETWORKS, "lite0", tiny_classifier)
    monkeypatch.setattr(samples, "SURE", 0.0)
    where = [str(tmp_path), "--half", "tuning", "--results", str(tmp_path / "results")]
    figure = tmp_path / "figure.png"
    what = ["--methods", "rise@5,greedy@3", "--judges", "own,6/mean", "--figure", str(figure)]
    evaluations.main([*where, *what])
    told = capsys.readouterr().out
    assert "lite0 explains 1 photos of the tuning half" in told
    assert told.count("| greedy@3 ") == 2
    assert figure.stat().st_size > 1000
    with pytest.raises(IgosError, match="no judge"):
        evaluations.main([*where, "--judges", "nothing"])


@pytest.fixture
def throughput(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark of the time, for a tiny network."""
    pytest.importorskip("skimage", reason="the photos come with the extra 'demo'")
    module = importlib.import_module("throughput")
    monkeypatch.setattr(module, "network_named", lambda name: tiny_classifier(input_size=32))
    return module


NETWORK_PARTS = {
    "network: forward",
    "network: backward",
    "network: targets",
    "curves",
    "rows",
    "everything else",
}


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("breakdown --preset igospp --iterations 2", {*NETWORK_PARTS, "path, blending", "regulariser"}),
        ("breakdown --preset search", {*NETWORK_PARTS, "search"}),
        ("run --preset draft --images 2", {"explaining", "run: merging", "run: overlays", "run: publishing"}),
    ],
)
def test_parts_of_the_time(throughput: ModuleType, what: str, parts: set[str], capsys: Any) -> None:
    replaced = [getattr(owner, name) for owner, name, _ in throughput.PARTS + throughput.RUN_PARTS]
    throughput.main(what.split())
    told = capsys.readouterr().out
    rows = re.findall(r"^  (.+?) +([\d.]+) ms +([\d.]+) %$", told, re.MULTILINE)
    assert all(any(name.startswith(part) for name, _, _ in rows) for part in parts)
    assert sum(float(share) for _, _, share in rows) == pytest.approx(100, abs=0.1)
    total = re.search(r"images, ([\d.]+) s", told)
    assert total is not None
    assert sum(float(took) for _, took, _ in rows) == pytest.approx(1e3 * float(total[1]), abs=10)
    assert replaced == [getattr(owner, name) for owner, name, _ in throughput.PARTS + throughput.RUN_PARTS]


def test_ratio_to_the_bare_network(throughput: ModuleType, capsys: Any) -> None:
    throughput.main(["ratio", "--preset", "igospp", "--iterations", "2", "--repeats", "1"])
    told = capsys.readouterr().out
    settings = re.findall(r"^  (score\w*) +(channels_last|NCHW) +\d+ +[\d.]+ ms$", told, re.MULTILINE)
    assert len(set(settings)) == 4
    passes = re.search(r"passes for 1 images: (\d+) forward\+backward, (\d+) forward", told)
    assert passes is not None
    assert int(passes[1]) == 2 * 4 * 5  # iterations, terms, positions on the path
    found = re.search(r"ratio of the best: ([\d.]+), of the medians: ([\d.]+)", told)
    assert found is not None
    assert float(found[1]) > 0


def test_photos_are_made_of_stamps(photos: ModuleType) -> None:
    classes = photos.stamp_classes()
    assert set(classes.values()) <= set(imagenet.class_names())
    stamp = Image.new("RGBA", (100, 80))
    stamp.paste((255, 0, 0, 255), (10, 10, 70, 50))
    ground = Image.new("RGB", (photos.SIDE, photos.SIDE), "white")
    for seed in range(5):
        photo = photos.paste(stamp, ground, photos.random.Random(seed))
        share = np.all(np.asarray(photo) == (255, 0, 0), axis=2).mean()
        assert 0.27 < share < 0.61


def test_halves_of_photos(photos: ModuleType) -> None:
    def half(name: str, shows: str | None) -> str:
        candidate = photos.Candidate("id", Image.new("RGB", (1, 1)), shows, "source")
        return str(photos.half_of(candidate, name))

    assert half("anything", None) == "tuning"
    halves = [half(name, name) for name in imagenet.class_names()]
    assert 230 < halves.count("tuning") < 330


def test_table_of_photos(photos: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(IgosError, match="make the photos by"):
        photos.read_table(tmp_path, "test")
    chosen = [
        (photos.Photo(name, "hen", 8, 0.75, half, "source"), photos.Candidate(name, image, "hen", "source"))
        for name, half in (("a", "test"), ("b", "tuning"))
        for image in [Image.new("RGB", (4, 4))]
    ]
    photos.write(tmp_path, chosen)
    assert photos.read_table(tmp_path, "tuning") == [chosen[1][0]]
    assert len(photos.read_table(tmp_path, "all")) == 2
    assert (tmp_path / "a.png").is_file()


def test_stamps_that_are_missing(photos: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(IgosError, match="apt-get install tuxpaint-stamps-default"):
        next(photos.stamp_candidates(tmp_path / "none"))
