"""Where images come from; import this as ``igos_pl.datamodules``."""

from igos_pl.datamodules.coco import COCODataModule
from igos_pl.datamodules.dataset import DatasetDataModule
from igos_pl.datamodules.folder import ImageFolderDataModule
from igos_pl.datamodules.imagenet import ImageNetDataModule
from igos_pl.datamodules.litdata import LitDataDataModule
from igos_pl.datamodules.webdataset import WebDatasetDataModule

__all__ = [
    "COCODataModule",
    "DatasetDataModule",
    "ImageFolderDataModule",
    "ImageNetDataModule",
    "LitDataDataModule",
    "WebDatasetDataModule",
]
