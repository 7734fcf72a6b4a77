"""Synthetic data sets: drawn images with boxes and masks, written once to a folder."""
