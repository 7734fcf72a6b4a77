"""Tests of the checkpoints that validation selects."""
