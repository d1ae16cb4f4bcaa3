"""Other methods of the benchmarks: searches, random masks, gradients and activations."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SIZE, TinyNet, pictures, tiny_classifier
from torch import Tensor, nn

from igos_pl.data.annotations import GroundTruth
from igos_pl.data.targets import Targets, class_targets
from igos_pl.models import Classifier
from igos_pl.solver.baselines import make_baselines
from igos_pl.solver.objective import Problem

CORNER = SIZE // 3


@pytest.fixture(autouse=True)
def found_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are scripts that import each other by name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))


class OfPixels:
    """A network whose score is any function of which pixels of a 4 x 4 image are white."""

    def __init__(self, score: Any) -> None:
        self.function = score
        self.seen = 0

    def score(self, images: Tensor, targets: Targets) -> Tensor:
        self.seen += len(images)
        scores: Tensor = self.function(images[:, 0].flatten(1))
        return scores


def search_scores(network: OfPixels, labels: Tensor | None = None) -> Any:
    """The scores of subsets of a white picture's 16 cells, or regions; the baseline is black."""
    from peers.partitions import Grid, Regions
    from peers.scores import SubsetScores

    images = torch.ones(1, 3, 4, 4)
    targets = class_targets(torch.tensor([0]), torch.tensor([0]), torch.ones(1))
    problem = Problem(images, torch.zeros_like(images), targets, [0])
    return SubsetScores(network, problem, Grid(4, (4, 4)) if labels is None else Regions(labels))  # type: ignore[arg-type]


WEIGHTS = torch.randperm(16, generator=torch.Generator().manual_seed(3)) / 120


def linear(shown: Tensor) -> Tensor:
    return shown @ WEIGHTS


def named_search(name: str) -> Any:
    from peers.greedy import greedy
    from peers.phase_win import phase_win
    from peers.vx_code import vx_code

    return {"greedy": greedy, "phase_win": phase_win, "vx_code": vx_code}[name]


def order_of(explanation: Any) -> list[int]:
    order: list[int] = explanation.mask.argsort().tolist()
    return order


@pytest.mark.parametrize("search", ["greedy", "phase_win", "vx_code"])
def test_searches_find_the_exact_order_of_a_linear_network(search: str) -> None:
    network = OfPixels(linear)
    explanation = named_search(search)(search_scores(network))
    assert order_of(explanation) == WEIGHTS.argsort(descending=True).tolist()
    pairs = 16 * 15 // 2 - 15  # those that are tried in the first step, which saves the second one
    passes = {"greedy": 16 * 17, "vx_code": 16 * 17 + 2 * pairs}
    assert network.seen == passes[search] if search in passes else network.seen < 16 * 17


def test_searches_over_regions() -> None:
    from peers.greedy import greedy

    labels = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 2], [3, 3, 3, 2], [3, 3, 3, 2]])
    explanation = greedy(search_scores(OfPixels(linear), labels))
    worth = torch.zeros(4).index_add(0, labels.flatten(), WEIGHTS)
    assert explanation.mask.argsort().tolist() == worth.argsort(descending=True).tolist()


TOGETHER = torch.arange(16).reshape(4, 4) % 6


def together(shown: Tensor) -> Tensor:
    """Regions 1 and 4, or 2 and 5; region 3 alone is worth a little, and a bit more with 0."""
    of = torch.stack([shown[:, TOGETHER.flatten() == number].mean(1) for number in range(6)])
    return torch.stack((of[1] * of[4], of[2] * of[5], 0.1 * of[3] + 0.5 * of[0] * of[3])).amax(0)


def test_vx_code_finds_regions_that_count_only_together() -> None:
    found = order_of(named_search("vx_code")(search_scores(OfPixels(together), TOGETHER)))
    assert sorted(found[:2]) in ([1, 4], [2, 5])
    assert order_of(named_search("greedy")(search_scores(OfPixels(together), TOGETHER)))[0] == 3


def interacting(shown: Tensor) -> Tensor:
    """A score between 0 and 1 where a pixel's worth depends on what is shown beside it."""
    grown = 1 - (1 - 6 * WEIGHTS * shown).clamp_min(0).prod(1)
    return grown * (0.6 + 0.4 * shown[:, ::3].mean(1)) * (1 - 0.2 * shown[:, 7] * (1 - shown[:, 2]))


def test_phase_win_with_one_window_is_the_plain_search() -> None:
    from peers.phase_win import PhaseWinSettings, phase_win

    whole = PhaseWinSettings(window=1, prune=0, candidate=0, accept=1, slowing=float("inf"))
    networks = [OfPixels(interacting) for _ in range(3)]
    plain = named_search("greedy")(search_scores(networks[0]))
    assert order_of(phase_win(search_scores(networks[1]), whole)) == order_of(plain)
    assert networks[1].seen == networks[0].seen
    phase_win(search_scores(networks[2]))
    assert networks[2].seen < networks[0].seen


def test_phase_win_asks_about_bad_regions_once_more_at_the_end() -> None:
    from peers.phase_win import PhaseWinSettings, phase_win

    network = OfPixels(linear)
    found = phase_win(search_scores(network), PhaseWinSettings(prune=0.99, candidate=0.99))
    assert network.seen == 2 * (16 + 15 + 14)  # the second best is less than 99% of the best
    assert order_of(found) == WEIGHTS.argsort(descending=True).tolist()


def test_phase_win_ends_a_phase_where_the_worth_grows_more_slowly() -> None:
    from peers.phase_win import PhaseWinSettings, phase_win

    patient, hasty = OfPixels(interacting), OfPixels(interacting)
    phase_win(search_scores(patient), PhaseWinSettings(slowing=float("inf")))
    phase_win(search_scores(hasty))
    assert patient.seen < hasty.seen


def test_phase_win_draws_the_same_candidates_every_time() -> None:
    from peers.phase_win import PhaseWinSettings, phase_win

    narrow = {"window": 0.2, "candidate": 0.0, "slowing": float("inf")}
    exact = WEIGHTS.argsort(descending=True).tolist()
    assert order_of(phase_win(search_scores(OfPixels(linear)), PhaseWinSettings(**narrow, defer=0))) == exact
    drawn = [phase_win(search_scores(OfPixels(linear)), PhaseWinSettings(**narrow)) for _ in range(2)]
    assert order_of(drawn[0]) == order_of(drawn[1]) != exact


def test_hsic_is_the_trace_of_the_centred_kernels() -> None:
    from peers.random_masks import hsic_of

    generator = torch.Generator().manual_seed(0)
    inputs = (torch.rand(40, 3, generator=generator) < 0.5).double()
    outputs = inputs @ torch.tensor([1.0, 0.6, 0.0]).double()
    distances = (outputs[:, None] - outputs[None]).abs()
    bandwidth = distances[torch.ones(40, 40).triu(1).bool()].median()
    centre = torch.eye(40).double() - 1 / 40
    kernel = torch.exp(-((distances / bandwidth) ** 2) / 2)
    same = (inputs.T[:, :, None] == inputs.T[:, None]).double()
    expected = [torch.trace(each @ centre @ kernel @ centre) / 40**2 for each in same]
    torch.testing.assert_close(hsic_of(inputs, outputs), torch.stack(expected))
    assert hsic_of(inputs, outputs).argsort(descending=True).tolist() == [0, 1, 2]


class CornerNet(nn.Module):
    """Its first class is how bright the top left corner is; it sees nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.bn2 = nn.Conv2d(3, 2, 3, padding=1)
        self.bn2.weight.data.fill_(0.1)
        self.bn2.bias.data.zero_()  # type: ignore[union-attr]
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        bright = self.bn2(images).relu()[:, :, :CORNER, :CORNER].mean((1, 2, 3))
        return torch.stack((bright, torch.zeros_like(bright)), 1)


def corner_picture(network: Classifier) -> Any:
    """A white corner on a dark picture."""
    from peers.registry import Picture

    inputs = pictures(1) // 8
    inputs[:, :, :CORNER, :CORNER] = 255
    images = network.normalize(inputs)
    baselines = network.normalize(make_baselines("black", inputs, ["0"], seed=0))
    problem = Problem(images, baselines, network.propose(images, [GroundTruth()]).targets, [0])
    return Picture(network, problem, inputs[0])


# What each peer costs: forward and backward passes, and forward passes.
COSTS = {
    "greedy@4": (0, 16 * 17),
    "greedy-slic@9": None,
    "phasewin@4": None,
    "phasewin-slic@9": None,
    # Two steps over the pairs of 30 cells, as 2 of 36 cells are less than a tenth; then 32 cells, one by one.
    "vx-code@6": (0, 2 * (36 + 30 * 29 // 2 + 34 + 30 * 29 // 2 + 32 * 33 // 2)),
    "rise@300": (0, 300),
    "hsic@200": (0, 200),
    "ig@25": (25, 0),
    "gradient-shap@25": (25, 0),
    "occlusion@6": (0, 37),
    "grad-cam": (1, 0),
    "layer-cam": (1, 0),
}


def test_the_documentation_names_methods_that_there_are() -> None:
    from comparison.methods import split_name

    pages = Path(__file__).parents[1].glob("docs/*.md")
    lists = [
        found for page in pages for found in re.findall(r"--methods ((?:\\\n|[^\s`])+)", page.read_text())
    ]
    names = {name for found in lists for name in found.replace("\\\n", "").split(",")}
    assert len(names) > 20
    for name in names:
        split_name(name)


def test_all_peers_are_tested() -> None:
    from peers.registry import PEERS

    families = {name.partition("@")[0] for name in COSTS}
    assert families == {name for name, peer in PEERS.items() if "photos" in peer.kinds}


@pytest.mark.parametrize("name", COSTS)
def test_peers_find_the_corner_and_their_passes_are_counted(name: str) -> None:
    from comparison.methods import PEERS, split_name
    from comparison.passes import counted_passes

    if name in ("grad-cam", "layer-cam"):
        pytest.importorskip("pytorch_grad_cam", reason="grad-cam comes with the extra 'bench'")
    if name.startswith(("ig", "gradient", "occlusion")):
        pytest.importorskip("captum", reason="captum comes with the extra 'bench'")
    module = CornerNet()
    network = tiny_classifier(module)
    picture = corner_picture(network)
    before = picture.problem.images.clone()
    module.seen = 0
    family, amounts = split_name(name)
    with counted_passes(network) as passes:
        explanation = PEERS[family].explain(picture, *(amounts or (0,)))
    assert module.seen == passes.evaluations + passes.forwards
    if COSTS[name] is not None:
        assert (passes.evaluations, passes.forwards) == COSTS[name]
    mask = explanation.mask
    assert (mask.min(), mask.max()) == (0, 1)
    assert len(mask) == len(explanation.partition)
    assert not mask.requires_grad
    assert torch.equal(picture.problem.images, before)
    assert not picture.problem.images.requires_grad
    assert not module.bn2._forward_hooks
    pixels = explanation.partition.spread(mask[None])[0]
    assert pixels[:CORNER, :CORNER].mean() < pixels[CORNER + 2 :, CORNER + 2 :].mean() - 0.2


def test_gradient_shap_leaves_the_generators_alone() -> None:
    np = pytest.importorskip("numpy")
    pytest.importorskip("captum", reason="captum comes with the extra 'bench'")
    from peers.gradients import gradient_shap

    network = tiny_classifier(CornerNet())
    picture = corner_picture(network)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = np.random.rand(), torch.rand(1)
    np.random.seed(1)
    torch.manual_seed(1)
    masks = [gradient_shap(network, picture.problem, 5).mask for _ in range(2)]
    assert (np.random.rand(), torch.rand(1)) == expected
    assert torch.equal(*masks)


def test_layer_cam_is_positive_gradient_times_activation() -> None:
    pytest.importorskip("pytorch_grad_cam", reason="grad-cam comes with the extra 'bench'")
    from peers.activations import layer_cam
    from peers.explanation import of_pixels

    network = tiny_classifier(TinyNet())
    picture = corner_picture(network)
    image = picture.problem.images.clone().requires_grad_()
    module: Any = network.module
    features = module.second(module.first(image).tanh())
    logit = module.last(features.tanh().mean((2, 3)))[0, picture.problem.targets.label[0]]
    (gradient,) = torch.autograd.grad(logit, features)
    expected = (gradient.relu() * features).sum(1, keepdim=True).relu().detach()
    assert expected.max() > 0
    large = nn.functional.interpolate(expected, (SIZE, SIZE), mode="bilinear", align_corners=False)[0, 0]
    found = layer_cam(network, picture.problem, "second").mask
    torch.testing.assert_close(found, of_pixels(large).mask, atol=1e-4, rtol=0)


def test_partitions() -> None:
    from peers.explanation import Explanation
    from peers.partitions import Grid, Regions, slic

    labels = torch.tensor([[0, 0, 1], [2, 2, 1], [2, 2, 2]])
    regions = Regions(labels)
    assert regions.areas.tolist() == pytest.approx([2 / 9, 2 / 9, 5 / 9])
    values = torch.tensor([3.0, 1, 2])
    torch.testing.assert_close(regions.means(regions.spread(values[None])[0]), values)
    in_cells = Explanation(regions, values).values_in(Grid(3, (3, 3)))
    assert torch.equal(in_cells.reshape(3, 3), values[labels])
    grid = Explanation(Grid(2, (4, 4)), torch.rand(4))
    assert grid.values_in(Grid(2, (4, 4))) is grid.mask
    assert grid.values_in(Grid(4, (4, 4))).shape == (16,)
    found = slic(pictures(1, 48)[0], 12)
    assert 4 < len(found) < 25
    assert found.labels.unique().tolist() == list(range(len(found)))


def test_saliency_that_is_the_same_everywhere() -> None:
    from peers.explanation import of_cells

    assert (of_cells(torch.full((3, 3), 7.0), (9, 9)).mask == 1).all()


@pytest.fixture(scope="module")
def detection(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The small Mask R-CNN, and a picture in which it finds something."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    try:
        from comparison.samples import NETWORKS, read_shapes
    finally:
        sys.path.pop(0)
    network = NETWORKS["shapes"]()
    network.freeze()
    samples = read_shapes(network, tmp_path_factory.mktemp("shapes"), "tuning", 1)
    return network, replace(samples[0], targets=samples[0].targets.select(slice(0, 1)))


@pytest.mark.parametrize(
    ("name", "cost"),
    [("odam", (1, 0)), ("d-rise@100", (0, 100)), ("greedy@3", (0, 90)), ("vx-code@3", (0, 90 - 16 + 72))],
)
def test_detections(name: str, cost: tuple[int, int], detection: Any) -> None:
    from comparison.methods import explain

    network, sample = detection
    (found,) = explain(network, name, sample)
    assert (found.passes.evaluations, found.passes.forwards) == cost
    saliency = 1 - found.explanation.partition.spread(found.explanation.mask[None])[0]
    x1, y1, x2, y2 = sample.targets.box[0].round().int().tolist()
    assert saliency[y1:y2, x1:x2].mean() > saliency.mean() + 0.1


def test_the_box_is_judged_better_than_the_rest(detection: Any) -> None:
    from comparison.judges import judge, judge_named
    from peers.explanation import of_pixels

    network, sample = detection
    x1, y1, x2, y2 = sample.targets.box[0].round().int().tolist()
    inside = torch.zeros(sample.pixels.shape[1:])
    inside[y1:y2, x1:x2] = 1
    areas = [judge(network, sample, 0, of_pixels(each), judge_named("12")) for each in (inside, 1 - inside)]
    (deletion, insertion), (other_deletion, other_insertion) = areas
    assert insertion - deletion > other_insertion - other_deletion + 0.3


def test_similarity_of_detections() -> None:
    from peers.random_masks import similarity

    from igos_pl.models.detector import Detections

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 10]])
    found = Detections(boxes, torch.tensor([1, 1, 2]), torch.tensor([0.3, 0.9, 1.0]), torch.full((3,), -1))
    assert float(similarity(found, boxes[0], 1)) == pytest.approx(0.45)
    assert float(similarity(found.select(slice(0, 0)), boxes[0], 1)) == 0
