"""The help of ``igos-pl predict``, written out so that it needs no imports and fits on a screen."""

PREDICT_HELP = """\
usage: igos-pl predict [--preset NAME] [-c FILE.yaml ...] [--KEY VALUE ...]

Explain every image of a data set. Settings come from YAML files (-c, later ones win), from a preset, which
wins over them, and from the command line (--KEY VALUE), which wins over all. Running the same command again
goes on where it stopped. Defaults are in brackets.

what is explained
  --data CLASS                    [ImageFolderDataModule], ImageNetDataModule, COCODataModule
  --data.root FOLDER              the images
  --data.ground_truth FILE        ImageNet's official labels, for a flat folder of its images
  --data.labels FILE              lines "path label", for any folder
  --data.annotations FILE         COCO's instances JSON
  --data.resize MODE              [squash], as published, or crop
  --data.batch_size N             images that are optimised together [8]
  --data.num_workers N            processes that read images [2]
  --data.limit N                  the first N images only
  --data.shard I/N                every N-th image from the I-th on (from 0), for job arrays

by which network
  --model.network CLASS           [EfficientNetLite0Classifier], TorchvisionClassifier, Classifier
  --model.network.name NAME       of TorchvisionClassifier: vgg19, resnet50, ...
  --model.network.weights W       a .pth file, or a weights enum of torchvision (IMAGENET1K_V1)
  --model.network.targets T       [predicted], ground_truth, or a list of labels like 281,282 in brackets
  --model.network.top_k N         how many predicted classes [1]
  for your own module: Classifier
  --model.network.module CLASS    its import path; it maps images to logits
  --model.network.input_size N    side of its input in pixels [224]
  --model.network.mean NUMBERS    of images from 0 to 1, for each channel; likewise std
  --model.network.class_names L   in label order, or imagenet
  --model.network.output KIND     [softmax] or sigmoid
  for detectors: TorchvisionRCNNDetector, TorchvisionDenseDetector, YOLOv3SPPDetector
  --model.network.score_threshold X   detections from this score on (0.2)
  --model.network.categories NAMES    of these classes only, like person,dog in brackets
  --model.network.max_per_image N     the best N detections of an image (100)

how
  --preset NAME                   fast, igospp, published, published_coco, published_igos,
                                  published_igos_nag, published_nag; without one, all is as in fast
  --model.method METHOD           igos, [igos+], igos++
  --model.optimizer CLASS         NAG, LineSearch, or an elementwise one of torch.optim [torch.optim.Adam]
  --model.optimizer.step_size X   how far a step moves the cell that it moves most (NAG 0.2, LineSearch 1)
  --model.optimizer.alpha X       the published raw factor of the gradient, instead
  --model.mask_size S             cells along the side of a mask [28]
  --model.iterations N            of the optimiser [20]
  --model.path_steps K            positions on the integration path [2]
  --model.path KIND               scaled, as published, or [threshold], by the order of the cells
  --model.average BOOL            the mean of the masks over the iterations instead of the last [true]
  --model.l1 X                    weight of the removed area [10.0]
  --model.l2 X                    weight of the total variation [80.0]
  --model.noise X                 on perturbed images [0.0]
  --model.baseline KIND           [blur], black, mean, noise
  --model.start.k K               diverse starts: split the target's box into K x K cells [1],
  --model.start.init_val X        lower the initial mask by X in a cell, 0.2 is usual [0.0],
  --model.start.cells CELLS       for each of these cells, like 0,3 in brackets; all by default
  --model.metrics BOOL            deletion and insertion curves [true]
  --model.seed N                  of everything random [63]
  --model.micro_batch_size N      perturbed images at once; chosen for the device by default

where and what is written
  --output FOLDER                 masks.h5, segments/, overlays/, config.yaml [runs/predict]
  --overlays.count N              pictures of the first N explanations [16]
  --writer.images_per_segment N   publish results each N images, or each minute [1024]
  --trainer.KEY VALUE             anything of Lightning's Trainer: devices, num_nodes, precision, ...

  --dry_run true                  explain one batch, write nothing, say how long and how large all will be
  --print_config                  print the settings as YAML and exit
  --help_all                      every setting there is, from the code itself (takes a few seconds)
"""
