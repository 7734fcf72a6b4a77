"""What a machine has, and how many trials fit on it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from sweeps.spec import ResourceSpec

SPARE = 0.9
"""Share of a device's memory that trials may fill."""


@dataclass(frozen=True)
class Machine:
    """What a machine has.

    Attributes:
        cpus: CPUs that this process may use.
        memory: bytes of memory.
        gpus: bytes of memory of each GPU; empty where trials use none.
    """

    cpus: int
    memory: int
    gpus: tuple[int, ...] = ()

    @classmethod
    def this(cls, has_gpus: bool) -> Machine:
        """Return this machine, with its GPUs where trials use them."""
        gpus: tuple[int, ...] = ()
        if has_gpus:
            import torch

            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
            gpus = tuple(torch.cuda.get_device_properties(n).total_memory for n in range(count))
        affinity = getattr(os, "sched_getaffinity", None)
        cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(cpus, memory, gpus)

    def fitting(self, memory: int, threads: int) -> int:
        """Return how many trials fit side by side on a GPU, or on the CPUs of a machine without."""
        share = self.cpus // threads // max(1, len(self.gpus))
        by_memory = int(SPARE * (min(self.gpus) if self.gpus else self.memory) // max(1, memory))
        return max(1, min(share, by_memory))

    def resources(self, memory: int, threads: int) -> ResourceSpec:
        """Return what a trial should reserve, so that as many as fit run side by side."""
        n = self.fitting(memory, threads)
        if self.gpus:
            # Rounded down, since n shares must fit into one GPU.
            return ResourceSpec(cpu=threads, gpu=int(1000 / n) / 1000)
        return ResourceSpec(cpu=threads, memory_gb=round(memory / 1e9 / SPARE + 0.05, 1))

    def room(self, wanted: ResourceSpec) -> int:
        """Return how many trials with these resources run at a time."""
        counts = [self.cpus / wanted.cpu]
        counts += [len(self.gpus) / wanted.gpu] if wanted.gpu and self.gpus else []
        counts += [self.memory / 1e9 / wanted.memory_gb] if wanted.memory_gb else []
        return max(1, int(min(counts)))
