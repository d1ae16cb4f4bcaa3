"""The command line: ``igos-pl predict | status | merge | info | demo``.

Torch and Lightning are imported only by the commands that need them, so that all help is instant.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from igos_pl import __version__
from igos_pl.errors import IgosError

PREDICT_HELP = """\
usage: igos-pl predict [--preset NAME] [-c FILE.yaml ...] [--KEY VALUE ...]

Explain every image of a data set. Settings come from YAML files (-c, later ones win), from a preset, which
wins over them, and from the command line (--KEY VALUE), which wins over all. Running the same command again
goes on where it stopped.

what is explained
  --data CLASS                    ImageFolderDataModule (default), ImageNetDataModule, COCODataModule
  --data.root FOLDER              the images
  --data.ground_truth FILE        ImageNet's official labels, for a flat folder of its images
  --data.labels FILE              lines "path label", for any folder
  --data.annotations FILE         COCO's instances JSON
  --data.resize MODE              squash (default, as published) or crop
  --data.batch_size N             images that are optimised together (8)
  --data.num_workers N            processes that read images (2)
  --data.limit N                  the first N images only
  --data.shard I/N                every N-th image from the I-th on (from 0), for job arrays

by which network
  --model.network CLASS           EfficientNetLite0 (default), TorchvisionClassifier, Classifier
  --model.network.name NAME       of TorchvisionClassifier: vgg19, resnet50, ...
  --model.network.weights W       a .pth file, or a weights enum of torchvision (IMAGENET1K_V1)
  --model.network.targets T       predicted (default), ground_truth, or a list of labels [281,282]
  --model.network.top_k N         how many predicted classes (1)
  for detectors: TwoStageDetector, OneStageDetector, YOLOv3SPPDetector
  --model.network.score_threshold X   detections from this score on (0.2)
  --model.network.categories NAMES    of these classes only: [person,dog]
  --model.network.max_per_image N     the best N detections of an image (100)

how
  --preset NAME                   fast, published, published_nag, published_igos, published_igos_nag
  --model.method METHOD           igos, igos+, igos++ (default)
  --model.optimizer CLASS         NAG (default), LineSearch, or an elementwise one of torch.optim
  --model.optimizer.step_size X   how far a step moves the cell that it moves most (NAG 0.2, LineSearch 1)
  --model.optimizer.alpha X       the published raw factor of the gradient, instead
  --model.mask_size S             cells along the side of a mask (28)
  --model.iterations N            of the optimiser
  --model.path_steps K            positions on the integration path
  --model.path KIND               scaled (default, as published) or threshold, by the order of the cells
  --model.average BOOL            the mean of the masks over the iterations instead of the last (false)
  --model.l1 X, --model.l2 X      weights of the removed area and of the total variation
  --model.noise X                 on perturbed images; 0 for none
  --model.baseline KIND           blur (default), black, mean, noise
  --model.start.k K               diverse starts: split the target's box into K x K cells,
  --model.start.init_val X        lower the initial mask by X in a cell (0.2 is usual),
  --model.start.cells CELLS       for each of these cells, [0,3]; all by default
  --model.metrics BOOL            deletion and insertion curves (true)
  --model.seed N                  of everything random (63)
  --model.micro_batch_size N      perturbed images at once; chosen for the device by default

where and what is written
  --output FOLDER                 masks.h5, segments/, overlays/, config.yaml (default runs/predict)
  --overlays.count N              pictures of the first N explanations (16)
  --writer.images_per_segment N   publish results each N images (1024), or each minute
  --trainer.KEY VALUE             anything of Lightning's Trainer: devices, num_nodes, precision, ...

  --dry_run true                  explain one batch, write nothing, say how long and how large all will be
  --print_config                  print the settings as YAML and exit
  --help_all                      every setting there is, from the code itself (takes a few seconds)
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    Args:
        args: the words after the program's name; those of this process by default.
    """
    words = list(sys.argv[1:] if args is None else args)
    try:
        if words[:1] == ["predict"]:
            return _predict(words[1:])
        return _dispatch(words)
    except IgosError as error:
        print(f"igos-pl: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 141


def _predict(words: list[str]) -> int:
    if "-h" in words or "--help" in words:
        print(PREDICT_HELP, end="")
        return 0
    from igos_pl.signals import StopSignals

    with StopSignals() as signals:  # from here on: importing alone takes seconds
        from igos_pl.predict import predict

        return predict(["--help" if word == "--help_all" else word for word in words], signals)


def _dispatch(words: list[str]) -> int:
    options = _parser().parse_args(words)
    if options.command == "merge":
        from igos_pl.store import RunFolder, merge

        print(f"Merged into {merge(RunFolder(options.run), options.partial)}")
    elif options.command == "status":
        from igos_pl.status import print_status

        print_status(options.run)
    elif options.command == "info":
        from igos_pl.info import print_info

        print_info(options.file, options.rows)
    elif options.command == "demo":
        from igos_pl.demo.run import run_demo

        run_demo(
            options.output or Path("runs/demo-detector" if options.detector else "runs/demo"),
            options.detector,
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "igos-pl",
        description="Optimised saliency masks (I-GOS, iGOS+, iGOS++) for whole data sets.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"igos-pl {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("predict", help="explain every image of a data set", add_help=False)
    add = partial(commands.add_parser, allow_abbrev=False)
    merge = add("merge", help="copy a run's segments into its masks.h5")
    merge.add_argument("run", type=Path, help="output folder of a run")
    merge.add_argument("--partial", action="store_true", help="though images are missing")
    status = add("status", help="say how far a run is")
    status.add_argument("run", type=Path, help="output folder of a run")
    info = add("info", help="say what is in a result")
    info.add_argument("file", type=Path, help="a masks.h5, a segment, or the output folder of a run")
    info.add_argument("--rows", type=int, default=20, help="explanations to list (default 20)")
    demo = add("demo", help="explain some real photos with a real network")
    demo.add_argument("--detector", action="store_true", help="objects of generated pictures instead")
    demo.add_argument("--output", type=Path, help="default runs/demo, or runs/demo-detector")
    return parser
