"""Command lines in processes that need not import PyTorch first, which takes most of a short run.

One process imports it once and forks for every command, before any thread has been started.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

ORIGIN = """
import json, os, sys
import analysis.cli, sweeps.cli  # noqa: F401
import pandas, pyarrow.parquet, torch, torchvision  # noqa: F401
import mg_core.training.trial, sweeps.library  # noqa: F401

for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        break
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
else:
    os._exit(0)  # The end of a command is left to the commands.

for number, name in enumerate([os.devnull, asked["stdout"], asked["stderr"]]):
    file = os.open(name, os.O_RDWR)
    os.dup2(file, number)
    os.close(file)
os.environ.clear()
os.environ.update(asked["environment"])
os.chdir(asked["folder"])
paths = filter(None, asked["environment"].get("PYTHONPATH", "").split(os.pathsep))
sys.path[1:1] = [path for path in paths if path not in sys.path]
sys.argv = [asked["program"], *asked["arguments"]]
{"mg-sweep": sweeps.cli, "mg-analysis": analysis.cli}[asked["program"]].main()
"""


class Warm:
    """A process that forks for each command line.

    What the interpreter or a library reads when it starts or is imported is as it was when this
    process started: give a command whose encoding, locale or threads matter one of its own.
    """

    @cached_property
    def _origin(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", ORIGIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self,
        program: str,
        arguments: Sequence[object],
        folder: Path,
        environment: Mapping[str, str],
    ) -> subprocess.CompletedProcess[str]:
        """Run `mg-sweep` or `mg-analysis` in a folder, as `subprocess.run` does."""
        command = [program, *map(str, arguments)]
        with tempfile.TemporaryDirectory() as outputs:
            files = [Path(outputs, name) for name in ("stdout", "stderr")]
            for file in files:
                file.touch()
            asked = {
                "program": program,
                "arguments": command[1:],
                "folder": str(folder),
                "environment": dict(environment),
                "stdout": str(files[0]),
                "stderr": str(files[1]),
            }
            print(json.dumps(asked), file=self._origin.stdin, flush=True)
            code = int(self._origin.stdout.readline())
            stdout, stderr = (file.read_text() for file in files)
        return subprocess.CompletedProcess(command, code, stdout, stderr)

    def close(self) -> None:
        """End the process, if a command has started it."""
        if "_origin" in vars(self):
            self._origin.communicate()
