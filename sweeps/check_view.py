"""What `mg-sweep check` shows."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from sweeps.check import Check
from sweeps.display import counted, duration, table

MEASURED = ("map", "losses", "exact to", "step", "epoch", "memory")


def check_view(found: Check) -> RenderableType:
    """Lay out a check: what each place showed and takes, problems, and what all of it takes."""
    parts: list[RenderableType] = [_places(found)]
    parts += [Text(f"cannot work: {problem}", style="red") for problem in found.problems]
    parts += [Text(line) for line in [*_layers(found), *_totals(found)]]
    return Group(*parts)


def _layers(found: Check) -> list[str]:
    return [
        f"layers of {model}: {', '.join(f'{name} {module}' for name, module in layers.items())}; "
        "the key layers names others"
        for model, layers in found.layers.items()
    ]


def _places(found: Check) -> RenderableType:
    rows = []
    for number, place in enumerate(found.places):
        rehearsal, measured = found.rehearsals.get(number), found.measured.get(number)
        size, losses, exact = "", "", ""
        if rehearsal is not None:
            size = " × ".join(map(str, rehearsal.map_size)) if rehearsal.map_size else "none"
            n_good = len(place.losses) - len(rehearsal.problems)
            losses = f"{n_good} of {len(place.losses)} work"
            if rehearsal.has_no_positive:
                losses = "no positive map yet"
            exact = f"{max(rehearsal.errors.values()):.0e}" if rehearsal.errors else ""
        times = ("", "", "")
        if measured is not None:
            times = (
                f"{measured.step_seconds:.3g} s",
                duration(measured.epoch_seconds),
                gigabytes(measured.memory_bytes),
            )
        rows.append((place.name, str(place.n_trials), size, losses, exact, *times))
    return table(None, ("trials of",), ("trials", *MEASURED), rows, len(rows))


def _totals(found: Check) -> list[str]:
    lines = [f"decoded data: {gigabytes(found.data_bytes)} in the cache"]
    if not found.measured:
        return lines
    least, most = found.store_bytes
    n = found.at_a_time
    devices = ", ".join(sorted({measured.device for measured in found.measured.values()}))
    lines += [
        f"store: {gigabytes(least)} if each trial keeps the weights of one epoch, "
        f"{gigabytes(most)} if of all",
        f"time: about {duration(found.sweep_seconds)} on {devices}{_cluster(found)} with "
        f"{counted(n, 'trial', 'trials')} at a time ({duration(found.trial_seconds)} one by one), "
        "besides the start of Ray",
    ]
    if found.crowding:
        lines.append(f"{found.on_a_device} trials side by side: {found.crowding}")
    if found.slowdown > 1:
        lines.append(
            f"{found.on_a_device} trials side by side on {_where(found)} take "
            f"{found.slowdown:.2f} times as long as one alone"
        )
    trials = counted(found.fitting, "trial fits", "trials fit")
    lines.append(f"{trials} side by side on {_where(found)}: resources: {_resources(found)}")
    if found.has_idle_gpu:
        lines.append("PyTorch sees a GPU here and the sweep asks for none: resources: auto uses it")
    return lines


def recalled_lines(found: Check) -> list[str]:
    """Return what a plan knows of what cannot work, of time and of disk."""
    lines = []
    if problems := found.problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        lines.append(f"mg-sweep check found that this cannot work: {problems[0]}{more}")
    if not found.measured:
        return lines
    least, most = found.store_bytes
    devices = ", ".join(sorted({measured.device for measured in found.measured.values()}))
    left = (
        f"what is left takes about {duration(found.sweep_seconds)} with {found.at_a_time} at a time"
        if found.seconds
        else "nothing is left"
    )
    sizes = " to ".join(dict.fromkeys([gigabytes(least), gigabytes(most)]))
    lines.append(f"as measured on {devices}: {left}, and all trials take {sizes} of the store")
    return lines


def automatic_line(found: Check) -> str:
    """Return what `resources: auto` reserves for a trial, and why."""
    trials = counted(found.fitting, "trial fits", "trials fit")
    return (
        f"resources: auto takes {_resources(found)}: the largest trial holds "
        f"{gigabytes(found.memory_bytes)}, and {trials} side by side on {_where(found)}"
    )


def _resources(found: Check) -> str:
    wanted = found.resources.model_dump(exclude_none=True, exclude_defaults=True)
    shown = ", ".join(f"{key}: {value:g}" for key, value in {"cpu": 1, **wanted}.items())
    return f"{{{shown}}}"


def _cluster(found: Check) -> str:
    if not found.host:
        return ""
    return f" (node {found.host}; {counted(len(found.nodes), 'node', 'nodes')} alike)"


def _where(found: Check) -> str:
    if found.machine.gpus:
        return "a GPU"
    return f"node {found.host}" if found.host else "this machine"


def gigabytes(number: int) -> str:
    """Return a size in words."""
    return f"{number / 1e9:.2f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"
