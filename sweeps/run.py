"""What `ray submit` and `ray job submit` run on the head node of a cluster.

`mg-sweep run` on the cluster of this machine, with the same options. Without a file it runs the
sweep of the Ray cluster file, which Ray keeps in `~/ray_bootstrap_config.yaml` on the head.
Relative paths in a sweep count from the home folder: the folder that Ray unpacks a job into is
another one each time, and a store in it would be lost.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

BOOTSTRAP = "~/ray_bootstrap_config.yaml"


def main() -> None:
    """Run the sweep that is named, or that of the cluster that this node is the head of."""
    from sweeps.cli import main as mg_sweep

    arguments = sys.argv[1:]
    if not arguments or arguments[0].startswith("-"):
        arguments.insert(0, BOOTSTRAP)
    file = Path(arguments[0]).expanduser()
    if file.exists():
        arguments[0] = str(file.absolute())
    os.chdir(Path.home())
    sys.argv = ["mg-sweep", "run", *arguments, "--address", "auto"]
    mg_sweep()


if __name__ == "__main__":
    main()
