"""The help of the commands that go through a data set. It is plain text, so that it needs no slow imports."""

PREDICT_HELP = """\
usage: igos-pl predict [--preset NAME] [-c FILE.yaml ...] [--KEY VALUE ...]

Explain every image of a data set. Settings come from YAML files (-c; later
files override earlier ones), from a preset (overrides the files) and from the
command line (--KEY VALUE; overrides both). Running the same command again
continues where it stopped. To start over, set --output to another folder, or
delete the old one. Defaults are in brackets.

data
  --data CLASS                  [ImageFolderDataModule], ImageNetDataModule,
                                COCODataModule, DatasetDataModule,
                                WebDatasetDataModule, LitDataDataModule
                                (docs/data.md)
  --data.root FOLDER            the images; for ImageFolderDataModule also a
                                file, or 'photos/*.jpg'
  --data.labels FILE            lines "path label", or a .csv; folders: each
                                folder is a class
  --data.ground_truth FILE      ImageNet's official labels file, if all images
                                are in one flat folder
  --data.annotations FILE       COCO's instances JSON
  --data.dataset CLASS          import path of any map-style data set; its
                                arguments follow likewise
  --data.urls FILES             WebDataset's tar files: 'shards/{000..099}.tar'
  --data.resize MODE            [network] (the network's own way), squash (the
                                whole image), crop (as in ImageNet's evaluation)
  --data.batch_size N           images that are optimised together [8]
  --data.num_workers N          processes that read images [2]
  --data.limit N                the first N images only
  --data.retry_unreadable BOOL  try unreadable and failed images of earlier runs
                                again [false]
  --data.shard I/N              every N-th image, starting at image I (from 0),
                                for job arrays

network
  --model.network CLASS         [EfficientNetLite0Classifier], Classifier,
                                TorchvisionClassifier, TimmClassifier,
                                HuggingFaceClassifier, ZeroShotClassifier,
                                OpenCLIPClassifier (docs/networks.md)
  --model.network.name NAME     of torchvision or timm: resnet50, ...; a folder
                                or hub name of Hugging Face
  --model.network.weights W     a file (.pth, .ckpt, .safetensors), or a weights
                                enum of torchvision (IMAGENET1K_V1)
  --model.network.targets T     [predicted], ground_truth, both, or a list of
                                labels and class names in square brackets
  --model.network.top_k N       how many predicted classes [1]

  for your own module: Classifier
  --model.network.module CLASS  its import path; it maps images to logits
  --model.network.input_size N  side of its input in pixels [224]
  --model.network.mean NUMBERS  mean per channel for images scaled to 0..1: a
                                list in square brackets
  --model.network.std NUMBERS   likewise, the standard deviation
  --model.network.class_names L class names in label order, or imagenet
  --model.network.output KIND   [softmax] or sigmoid

  for detectors: TorchvisionRCNNDetector, TorchvisionDenseDetector,
                 YOLOv3SPPDetector, HuggingFaceDetector, UltralyticsDetector
  --model.network.score_threshold X
                                only detections with at least this score (0.2)
  --model.network.categories NAMES
                                only these classes: a list of names in square
                                brackets
  --model.network.max_per_image N
                                the best N detections of an image (100)

  for segmentation: TorchvisionSegmenter, HuggingFaceSegmenter; categories as
                    above

method
  --preset NAME                 draft, fast, igospp, published,
                                published_coco, published_igos,
                                published_igos_nag, published_nag, search; the
                                defaults below are fast's
  --model.method METHOD         igos, [igos+], igos++, or search: a greedy
                                search for the order of few cells (mask_size 7)
                                or of regions, without an optimiser
  --model.optimizer CLASS       NAG, LineSearch, or an elementwise one of
                                torch.optim [torch.optim.Adam]
  --model.optimizer.step_size X largest change of a mask cell by a gradient step
                                (NAG 0.2, LineSearch 1)
  --model.optimizer.alpha X     instead of step_size: the factor of the raw
                                gradient, as published
  --model.mask_size S           cells along the side of a mask; by default 28,
                                or the side of a smaller input
  --model.iterations N          optimiser iterations [20]
  --model.path_steps K          positions on the integration path [2]
  --model.path KIND             scaled (as published) or [threshold] (removes
                                the lowest mask cells first)
  --model.levels N              round masks to steps of 1/N, so that rounding
                                errors do not grow; 0: never [32]
  --model.average BOOL          return the weighted mean of all iterations'
                                masks, not the last mask [true]
  --model.l1 X                  weight of the removed area [10.0]
  --model.l2 X                  weight of the total variation [80.0]
  --model.noise X               standard deviation of the noise on perturbed
                                images [0.0]
  --model.baseline KIND         [blur], black, mean, noise
  --model.start.k K             diverse starts: split the target's box into
                                K x K cells [1]
  --model.start.init_val X      lower the initial mask by X in one cell (usually
                                0.2) [0.0]
  --model.start.cells CELLS     start from these cells (a list in square
                                brackets); all by default
  --model.regions CLASS         masks over regions instead of single cells: Slic
                                (superpixels; needs scikit-image) or LabelMaps
  --model.regions.count N       Slic: about how many regions (50)
  --model.regions.root FOLDER   LabelMaps: a grey PNG or .npy for each image
  --model.metrics BOOL          deletion and insertion curves [true]
  --model.curves KIND           [adaptive]: 28 passes, where a curve bends;
                                full: all 102
  --model.seed N                random seed [63]
  --model.micro_batch_size N    perturbed images per forward pass; by default
                                chosen for the device

output
  --output FOLDER               masks.h5, segments/, overlays/, config.yaml
                                [runs/predict]
  --overlays.count N            pictures of the N explanations that are finished
                                first [16]
  --overlays.seed N             pictures of random images instead of the first
  --overlays.label_names NAMES  pictures of these classes only: a list in square
                                brackets
  --writer.images_per_segment N write results to disk after every N images, or
                                every minute [1024]
  --trainer.KEY VALUE           anything of Lightning's Trainer: devices,
                                num_nodes, precision, ...

  --dry_run                     explain one batch, write nothing, estimate time
                                and disk space of the run
  --print_config                print the settings as YAML and exit
  --help_all                    list every setting, from the code itself
                                (takes a few seconds)
"""

SANITY_HELP = """\
usage: igos-pl sanity [--preset NAME] [-c FILE.yaml ...] [--KEY VALUE ...]

Check that masks depend on the network's weights and on the class that they
explain. The command explains some images, and explains them again with random
weights in more and more layers of the network. It also compares each mask with
masks of another class, another seed and another image, and with edge detectors.
The network must be a classifier. docs/sanity.md says what the numbers mean and
what they do not mean.

  --images N                    images, evenly spread over the data [8]
  --steps N                     steps from one random layer to all [8]
  --output FOLDER               sanity.csv, sanity.json, sanity.png
                                [runs/sanity]

Method, network and data are set as for igos-pl predict; see its help. The
checks need pip install 'igos_pl[sanity]'.
"""

IMPORT_HELP = """\
usage: igos-pl import SALIENCY --data.root FOLDER --output RUN [--name METHOD]
                      [-c FILE.yaml ...] [--KEY VALUE ...]

Turn saliency maps that another program made into a result of igos_pl, with
deletion and insertion. The data, the network, the trainer and the writer are
set as for igos-pl predict. Running the same command again continues where it
stopped. docs/evaluation.md describes the files. Defaults are in brackets.

  SALIENCY                      a folder with a .npy, .npz or grey .png file for
                                each image; or an .npz or .h5 file with an entry
                                for each image. Entries have the images' names,
                                with or without their endings. High values mean
                                important
  --name METHOD                 the method that made the maps: grad-cam, ...
                                [imported]
  --output FOLDER               masks.h5, segments/, overlays/, config.yaml
  --model.mask_size S           cells along the side of a mask; at most the
                                resolution of the maps [28]
  --model.negative HOW          what negative values mean: zero, absolute, keep,
                                or [refuse] (an error)
  --model.covers WHAT           whether a map shows the network's [input] or the
                                whole image, where the input is cropped
  --model.baseline KIND         of the curves: [blur], black, mean, noise
  --model.metrics BOOL          deletion and insertion curves [true]
  --model.network.top_k N       the maps of an image belong to its N best
                                classes, in this order [1]
"""

EVALUATE_HELP = """\
usage: igos-pl evaluate RUN --metrics NAME,NAME,... [--cells N] [--samples N]
                        [--csv FILE] [-c FILE.yaml ...] [--KEY VALUE ...]

Judge the masks of a result, whether igos_pl optimised or imported them. The
network and the data come from RUN/config.yaml; --KEY VALUE overrides its
settings, which igos-pl predict --help lists. The values are in
RUN/evaluation.h5, and igos-pl info RUN --csv FILE writes them as further
columns. Running the same command again continues where it stopped.

  --metrics NAMES               metrics, separated by commas, some with a
                                baseline: deletion_insertion:black,road
  --metrics help                list all metrics
  --cells N                     judge all masks in N x N cells, so that methods
                                of different resolution are judged alike
  --samples N                   samples of each explanation for infidelity,
                                mufidelity and sensitivity
  --csv FILE                    also write the table of means as CSV
"""
