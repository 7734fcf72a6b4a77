"""What `ray submit SWEEP.yaml sweeps/run.py` runs on the head node of a cluster.

The sweep of a Ray cluster file stands under its `metadata:` key, which Ray keeps in
`~/ray_bootstrap_config.yaml` on the head; so no argument is needed there. With arguments it is
`mg-sweep run` on the cluster of this machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")


def main() -> None:
    """Run the sweep of the cluster that this node is the head of."""
    from sweeps.cli import main as mg_sweep

    arguments = sys.argv[1:] or [str(BOOTSTRAP.expanduser())]
    sys.argv = ["mg-sweep", "run", *arguments, "--address", "auto"]
    mg_sweep()


if __name__ == "__main__":
    main()
