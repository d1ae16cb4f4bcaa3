"""Where images come from; import this as ``igos_pl.datamodules``."""

from igos_pl.datamodules.coco import COCODataModule
from igos_pl.datamodules.folder import ImageFolderDataModule
from igos_pl.datamodules.imagenet import ImageNetDataModule

__all__ = ["COCODataModule", "ImageFolderDataModule", "ImageNetDataModule"]
