"""Folder layouts that are read: those of VOC, COCO and Waterbirds-100, and those of one's own images."""
