"""The result store: every file of a sweep, who writes it, and what it says of a trial.

`layout` names all keys, `files` reads and writes whole objects, `result_store` reads and writes
what a store holds, `attempt` is the one writer of a running trial, `ledger` says what state a
trial is in.
"""

from __future__ import annotations

from mg_core.store.result_store import ResultStore, reading

__all__ = ["ResultStore", "reading"]
