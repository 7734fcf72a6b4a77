"""Folder layouts that are read: those of VOC, COCO and Waterbirds-100."""
