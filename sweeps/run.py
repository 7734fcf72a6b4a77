"""The script for `ray submit` and `ray job submit`, which run it on the head of a cluster.

It runs `mg-sweep run` with the same options on the cluster of this machine. Without a file it
runs the sweep of the Ray cluster file, which Ray keeps in `~/ray_bootstrap_config.yaml`. Relative
paths in a sweep start at the home folder: each job has a new working folder, and a store in it
would be lost.
"""

from __future__ import annotations

import os
import sys

from mg_core.paths import with_home
from sweeps.cli import main as mg_sweep
from sweeps.yaml_file import BOOTSTRAP


def main() -> None:
    """Run the named sweep, or by default that of the Ray cluster file."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0].startswith("-"):
        arguments.insert(0, str(BOOTSTRAP))
    file = with_home(arguments[0])
    if file.exists():
        arguments[0] = str(file.absolute())
    os.chdir(with_home("~"))
    sys.argv = ["mg-sweep", "run", *arguments, "--address", "auto"]
    mg_sweep()


if __name__ == "__main__":
    main()
