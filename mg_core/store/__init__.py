"""The result store: all files of a sweep.

`layout` makes all keys, `files` reads and writes whole objects, `result_store` reads and writes the
contents of a store, `attempt` is the only writer of a running trial, `ledger` derives the states of
trials, `garbage` removes unused files.
"""

from __future__ import annotations

from mg_core.store.result_store import ResultStore, reading

__all__ = ["ResultStore", "reading"]
