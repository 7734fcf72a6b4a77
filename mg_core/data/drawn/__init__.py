"""Sets that are drawn: synthetic images with boxes and masks, written once to a folder."""
