"""Epochs of a trial: training, evaluation, checkpoints."""
