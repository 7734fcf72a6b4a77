"""Layouts that are read: folders as their publishers, or users, arrange them."""
