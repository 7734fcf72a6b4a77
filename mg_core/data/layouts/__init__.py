"""Folder layouts that are read: VOC, COCO, Waterbirds-100, and the formats of own images."""
