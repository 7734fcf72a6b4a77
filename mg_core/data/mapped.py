"""Arrays on disk, read row by row with little memory."""

from __future__ import annotations

import mmap
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mg_core.data.parallel import in_parallel

RESIDENT_LIMIT = 64 * 2**20
"""Bytes of the file that may be resident in this process before its pages are dropped."""
SUMMED_AT_ONCE = 4 * 2**20
"""Bytes that one CPU reads before their pages are dropped."""
FAULT_AROUND = 64 * 2**10
"""Bytes that Linux maps around every page that is touched, so up to twice for a row."""


class MappedRows:
    """Rows of a raw uint8 file, as many as the first element of `shape`, read by index.

    Pages that were read stay in the system's page cache, which all trials of a node share. This
    process drops them once they add up to `RESIDENT_LIMIT`, so that its resident memory does not
    grow with the data set.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._row_shape = shape[1:]
        self._row_cost = self.row_bytes + 2 * FAULT_AROUND
        self._touched = 0
        if shape[0] == 0:
            # An empty file cannot be mapped.
            self._map = mmap.mmap(-1, 1)
            self._rows = np.zeros(shape, dtype=np.uint8)
            return
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._rows = np.frombuffer(self._map, dtype=np.uint8).reshape(shape)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return int(np.prod(self._row_shape))

    def have(self, sums: NDArray[np.uint32]) -> bool:
        """Tell whether every row has its CRC-32, (N,); all rows are read, on every CPU."""
        step = max(1, SUMMED_AT_ONCE // max(1, self.row_bytes))

        def has(start: int) -> bool:
            rows = self._rows[start : start + step]
            found = [zlib.crc32(row.data) for row in rows.reshape(len(rows), -1)]
            self._drop(start, start + step)
            return np.array_equal(found, sums[start : start + step])

        return all(in_parallel(has, range(0, len(self), step)))

    def _drop(self, start: int, stop: int) -> None:
        """Drop the pages of some rows from this process; they can be read again."""
        size = self._rows[:1].nbytes
        first = start * size - start * size % mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED"):  # Not every system has it.
            self._map.madvise(mmap.MADV_DONTNEED, first, min(stop, len(self)) * size - first)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Copy the rows of some indices, contiguous."""
        rows = np.empty((len(indices), *self._row_shape), dtype=np.uint8)
        step = max(1, RESIDENT_LIMIT // self._row_cost)
        for start in range(0, len(indices), step):
            part = indices[start : start + step]
            if self._touched + len(part) * self._row_cost > RESIDENT_LIMIT:
                self._touched = 0
                self._drop(0, len(self))
            rows[start : start + step] = self._rows[part]
            self._touched += len(part) * self._row_cost
        return rows
