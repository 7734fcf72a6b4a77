"""`python -m analysis.example NAME STORE…` records finished and tested stores as study NAME."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from analysis.example import record
from analysis.pipeline import read

if __name__ == "__main__":
    name, *stores = sys.argv[1:]
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    record(read(stores), Path(__file__).parent / name, commit)
