"""Sweeps with variants of a user's own; each module here could as well be in another package."""
