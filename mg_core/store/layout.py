"""The keys of a result store: all file names are made here, and parsed here.

```
sweep.yaml                                    the resolved spec
data/<data key>/<fingerprint>                 empty; fingerprint of the data when first read
trials/<trial_id>.json                        the full configuration, written once by the driver
attempts/<trial_id>/<n>-<nonce>.json          one run of a trial: where, versions, how it ended
logs/<trial_id>/<n>-<nonce>.txt               the newest lines of its log
metrics/<trial_id>/<n>-<nonce>.parquet        rows of all epochs so far: the only commit point
checkpoints/<trial_id>/<n>-<nonce>/…          weights of non-dominated epochs, newest state
test/<trial_id>/<epoch>-<rows>.parquet        test rows of one non-dominated checkpoint
heatmaps/<trial_id>/<epoch>-<pair>.parquet    its maps of a few test images (by task)
tensorboard/<trial_id>/…                      event files, with `tracking: tensorboard`
shelf.json                                    trials that left the sweep, which stay in the store
code.json                                     versions of the user's code that may stand together
lock.json                                     the driver that is running
analysis/                                     tables, figures and report of `mg-analysis`
quarantine/<when>/…                           damaged or misplaced files, under their old keys
```

Every object has one writer. The highest attempt with a metrics file counts for a trial; weights
and states that this file does not name are garbage.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mg_core.config import EvaluationPair

SPEC = "sweep.yaml"
LOCK = "lock.json"
SHELF, CODE = "shelf.json", "code.json"
TRIALS, DATA, ANALYSIS = "trials", "data", "analysis"
ATTEMPTS, LOGS, METRICS, CHECKPOINTS = "attempts", "logs", "metrics", "checkpoints"
TEST, HEATMAPS, TENSORBOARD = "test", "heatmaps", "tensorboard"
TEMPORARY = ".mg-sweep-writing"
"""Folder of objects that are still being written."""
QUARANTINE = "quarantine"
"""Folder of files that were set aside; nothing reads or deletes them."""
RECORD = "written.json"
"""Digests of the files that `mg-analysis` wrote into a folder: others are the user's."""

RESULTS = (METRICS, TEST, HEATMAPS, CHECKPOINTS, ATTEMPTS, LOGS, TENSORBOARD)
"""Folders with a folder for each trial, in the order in which they are deleted. The metrics come
first: a trial without them has no results, even if the deletion is interrupted."""

FOLDERS = (*RESULTS, TRIALS, DATA, ANALYSIS, TEMPORARY)
"""All folders of a store but the quarantine, in the order in which they are deleted."""

_ID, _RUN = "[0-9a-f]{16}", r"\d{4,}-[0-9a-f]{8}"
_OWN = re.compile(
    "|".join(
        [
            r"(sweep\.yaml|shelf\.json|code\.json|lock\.json|\.lock\.json\.lock)",
            rf"trials/{_ID}\.json|{ANALYSIS}/{re.escape(RECORD)}",
            rf"attempts/{_ID}/{_RUN}\.json|logs/{_ID}/{_RUN}\.txt|metrics/{_ID}/{_RUN}\.parquet",
            rf"checkpoints/{_ID}/{_RUN}/(epoch-\d{{4,}}\.safetensors|state-\d{{4,}}\.pt)",
            rf"test/{_ID}/\d{{4,}}-[0-9a-f]{{8}}\.parquet",
            rf"heatmaps/{_ID}/\d{{4,}}-[^/@]+@[^/@]+\.parquet",
            r"data/[0-9a-f]{16}/[0-9a-z-]{32,}",
            rf"tensorboard/{_ID}/(complete|events\.out\.tfevents\.[^/]+)",
            rf"{re.escape(TEMPORARY)}/[0-9a-f]{{16}}\.part",
        ]
    )
)
_PLACE = re.compile(
    rf"({'|'.join((*RESULTS, TRIALS, DATA, ANALYSIS, re.escape(TEMPORARY), QUARANTINE))})"
    rf"(/{_ID}(/{_RUN})?)?"
)
_ENDINGS = {METRICS: "parquet", ATTEMPTS: "json", LOGS: "txt"}
_ATTEMPT = re.compile(rf"(metrics|attempts|logs)/({_ID})/({_RUN})\.(parquet|json|txt)")
_HEATMAPS = re.compile(rf"heatmaps/({_ID})/(\d+)-([^/]+@[^/]+)\.parquet")
_TESTS = re.compile(rf"test/({_ID})/(\d+)-[0-9a-f]{{8}}\.parquet")


@dataclass(frozen=True, order=True)
class AttemptKey:
    """Identity of one run of a trial; a later run has a higher key."""

    number: int
    nonce: str

    def __str__(self) -> str:
        return f"{self.number:04d}-{self.nonce}"

    @classmethod
    def of(cls, name: str) -> AttemptKey:
        """Parse a file or folder name."""
        number, nonce = name.split(".")[0].split("-")
        return cls(int(number), nonce)


def trial_key(trial_id: str) -> str:
    """Return the key of a trial's configuration."""
    return f"{TRIALS}/{trial_id}.json"


def prefix(folder: str, trial_id: str | None = None) -> str:
    """Return the prefix of a trial's keys in one of `RESULTS`; of all trials' without an id."""
    return f"{folder}/{trial_id}" if trial_id else folder


def attempt_key(folder: str, trial_id: str, attempt: AttemptKey | str) -> str:
    """Return the key of an attempt's object in `attempts`, `logs` or `metrics`."""
    return f"{prefix(folder, trial_id)}/{attempt}.{_ENDINGS[folder]}"


def weights_key(trial_id: str, attempt: AttemptKey, epoch: int) -> str:
    """Return the key of the weights after an epoch of an attempt."""
    return f"{CHECKPOINTS}/{trial_id}/{attempt}/epoch-{epoch:04d}.safetensors"


def state_key(trial_id: str, attempt: AttemptKey, epoch: int) -> str:
    """Return the key of the state from which training resumes after an epoch."""
    return f"{CHECKPOINTS}/{trial_id}/{attempt}/state-{epoch:04d}.pt"


def store_and_key(place: str) -> tuple[str, str]:
    """Return the store and the key that the path or URI of a checkpoint is made of."""
    store, _, name = place.rpartition(f"/{CHECKPOINTS}/")
    return store, f"{CHECKPOINTS}/{name}"


def test_key(trial_id: str, epoch: int, pairs: Iterable[tuple[str | None, str | None]]) -> str:
    """Return the key of test rows, with a hash of their (attribution, layer) pairs.

    Two processes that test the same pairs write the same object; other pairs are other objects.
    """
    text = json.dumps(sorted(str(pair) for pair in pairs))
    return f"{TEST}/{trial_id}/{epoch:04d}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.parquet"


def heatmaps_name(pair: EvaluationPair, task: str | None) -> str:
    """Return the name of heat maps: their attribution and layer, and their task if there is one.

    A baseline has heat maps for every task, since each task asks about other classes.
    """
    return f"{pair}-{task}" if task else str(pair)


def heatmaps_key(trial_id: str, epoch: int, name: str) -> str:
    """Return the key of a checkpoint's heat maps, given their `heatmaps_name`."""
    return f"{HEATMAPS}/{trial_id}/{epoch:04d}-{name}.parquet"


def fingerprint_key(data_key: str, fingerprint: str) -> str:
    """Return the key that records the fingerprint of a data set."""
    return f"{DATA}/{data_key}/{fingerprint}"


def tracked_key(trial_id: str) -> str:
    """Return the key that says that all of a trial is in its TensorBoard files."""
    return f"{prefix(TENSORBOARD, trial_id)}/complete"


def quarantined_key(folder: str, key: str) -> str:
    """Return the key of a file that is set aside, in a folder below `QUARANTINE`."""
    return f"{QUARANTINE}/{folder}/{key}"


def attempts_in(keys: Iterable[str]) -> Iterator[tuple[str, AttemptKey]]:
    """Yield trial and attempt of each key; files of other programs (.nfs…) are skipped."""
    for key in keys:
        match = _ATTEMPT.fullmatch(key)
        if match:
            yield match[2], AttemptKey.of(match[3])


def highest_attempts(keys: Iterable[str]) -> dict[str, AttemptKey]:
    """Return the highest attempt of each trial, sorted by trial."""
    highest: dict[str, AttemptKey] = {}
    for trial, attempt in attempts_in(keys):
        highest[trial] = max(attempt, highest.get(trial, attempt))
    return dict(sorted(highest.items()))


def heatmaps_in(keys: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    """Yield trial, epoch and name of heat maps."""
    for key in keys:
        match = _HEATMAPS.fullmatch(key)
        if match:
            yield match[1], int(match[2]), match[3]


def tests_in(keys: Iterable[str]) -> list[str]:
    """Return the keys of test rows."""
    return [key for key in keys if _TESTS.fullmatch(key)]


def without_hidden(keys: Iterable[str]) -> list[str]:
    """Return the keys that do not begin in a dot, as those of other programs often do."""
    return [key for key in keys if not key.rpartition("/")[2].startswith(".")]


def is_own(key: str) -> bool:
    """Say whether this layout can have made a key; all other files are left alone."""
    return _OWN.fullmatch(key) is not None


def is_place(key: str) -> bool:
    """Say whether a key is that of an object of the store, or of a folder for such objects."""
    return is_own(key) or _PLACE.fullmatch(key) is not None


def owner_of(key: str) -> tuple[str, int | AttemptKey]:
    """Return the trial and the attempt or epoch that a key says its object belongs to."""
    _, trial_id, name, *_ = key.split("/")
    number = name.split(".")[0]
    is_attempt = re.fullmatch(_RUN, number) and not key.startswith((f"{TEST}/", f"{HEATMAPS}/"))
    return trial_id, AttemptKey.of(number) if is_attempt else int(number.split("-")[0])


def pairs_key(key: str, pairs: Sequence[tuple[str | None, str | None]], task: str | None) -> str:
    """Return the key that test rows or heat maps of some pairs have, in the place of `key`."""
    trial_id, epoch = owner_of(key)
    assert isinstance(epoch, int)
    if key.startswith(f"{TEST}/"):
        return test_key(trial_id, epoch, pairs)
    attribution, layer = pairs[0]
    name = f"{attribution}@{layer}"
    return heatmaps_key(trial_id, epoch, f"{name}-{task}" if task else name)


def trial_of(key: str) -> str:
    """Return the trial that an object of `trials` or of a folder of `RESULTS` belongs to."""
    return key.split("/")[1].partition(".")[0]
