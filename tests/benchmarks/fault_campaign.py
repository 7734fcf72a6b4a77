"""Random faults on real sweeps: `python tests/benchmarks/fault_campaign.py --seed 0 --faults 100`.

Ends with exit code 0 if every sweep ended with the table of one that nothing happened to.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "integration")]

import faults  # noqa: E402

from tests.conftest import SWEEP  # noqa: E402


def main() -> None:
    """Run a campaign and print what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--kind", action="append", help="only these; may be repeated")
    arguments = parser.parse_args()
    kinds = faults.drawn(arguments.seed, arguments.faults)
    if arguments.kind:
        kinds = [arguments.kind[n % len(arguments.kind)] for n in range(arguments.faults)]
    times: dict[str, list[float]] = defaultdict(list)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "sweep.yaml"
        file.write_text(yaml.safe_dump(SWEEP))
        (folder / "undisturbed").mkdir()
        expected = faults.undisturbed(file, folder / "undisturbed")
        found = faults.campaign(file, folder, expected, arguments.seed, kinds)
        for number, (kind, seconds) in enumerate(found, start=1):
            times[kind].append(seconds)
            print(f"{number:4} of {len(kinds)}  {kind:15} {seconds:6.1f} s", flush=True)
    print(f"\n{'fault':15} {'times':>6} {'median s':>9}")
    for kind, seconds_of in sorted(times.items()):
        print(f"{kind:15} {len(seconds_of):6} {statistics.median(seconds_of):9.1f}")
    minutes = (time.monotonic() - start) / 60
    print(f"{len(kinds)} faults in {minutes:.1f} min: every table bit for bit the undisturbed one")


if __name__ == "__main__":
    main()
