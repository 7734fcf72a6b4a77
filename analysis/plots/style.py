"""House style: legible at column width, in grey, and for the colour-blind.

Every loss has a marker of its own and a colour of its own lightness, so that no two losses differ
in hue alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any, cast

import matplotlib
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mg_core.columns import PAIR

Handle = Line2D | Patch

PLACE = ["model", *PAIR]
"""Columns that say whose attributions a panel or a figure shows."""

COLUMN_WIDTH = 3.25
"""Inches of one column of a two-column paper."""
TEXT_WIDTH = 6.875
"""Inches of both columns."""
DPI = 200

INK = "#222222"
BETTER = "#dcf0dc"
WORSE = "#dadada"

RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.4,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.handletextpad": 0.4,
    "legend.columnspacing": 1.4,
    "lines.linewidth": 0.9,
    "text.color": INK,
    "pdf.fonttype": 42,
    "savefig.dpi": DPI,
}


@dataclass(frozen=True)
class Mark:
    """How one loss, or one level of a setting, is drawn; the size of its marker is in points."""

    label: str
    marker: str
    colour: str
    size: float


LOSSES = {
    "energy": Mark("Energy", "o", "#d8372c", 4.6),
    "l1": Mark("$L_1$", "^", "#2ca05a", 5.2),
    "ppce": Mark("PPCE", "p", "#f4bd19", 5.8),
    "rrr": Mark("RRR*", "D", "#1b4090", 4.2),
    "energy_density": Mark("Energy density", "s", "#ee8434", 4.4),
    "soft_dice": Mark("Dice", "v", "#b4ecd8", 5.2),
    "soft_iou": Mark("Soft IoU", "<", "#08402f", 5.2),
    "gain": Mark("GAIN", ">", "#cde05c", 5.2),
    "kl": Mark("KL", "h", "#7a4a12", 5.4),
    "hint": Mark("HINT", "P", "#e58bb5", 5.4),
    "res": Mark("RES-G", "*", "#2f1142", 7.0),
    "rrr_original": Mark("RRR", "d", "#5b8fd6", 5.4),
}
"""The paper's four, in its order, then the others. From dark to light the four are RRR*, Energy,
L1, PPCE."""

OTHER_MARKS = (
    ("8", "#8a5aa8"), ("H", "#4fb3d9"), ("s", "#8c6d4f"), ("v", INK), ("P", "#4f6d7a"),
)  # fmt: skip
"""Marker and colour of losses that users register, in order of their names."""
LEVEL_MARKS = (
    ("o", "#f4bd19"), ("s", "#ee8434"), ("^", "#d8372c"), ("D", "#8e1f5c"), ("p", "#1b4090"),
    ("v", INK),
)  # fmt: skip
"""Marker and colour of the levels of a setting, from light to dark."""

MODELS = {"vanilla": "Vanilla", "xdnn": "X-DNN", "bcos": "B-cos"}
BACKBONES = {
    "resnet50": "ResNet-50",
    "resnet18": "ResNet-18",
    "densenet121": "DenseNet-121",
    "vit_s": "ViT-S",
    "tiny": "tiny",
}
ATTRIBUTIONS = {
    "ixg": "IxG",
    "intgrad": "IntGrad",
    "bcos": "B-cos",
    "gradcam": "GradCAM",
    "layercam": "LayerCAM",
    "gradcam_plus_plus": "GradCAM++",
    "attention": "Attention",
    "expected_gradients": "Expected gradients",
    "intgrad_steps": "IntGrad (32 steps)",
    "smoothgrad_ixg": "SmoothGrad IxG",
}
LAYERS = {"input": "Input", "mid1": "Mid1", "mid2": "Mid2", "mid3": "Mid3", "final": "Final"}


def marks(losses: Iterable[str]) -> dict[str, Mark]:
    """Return how each loss is drawn: this package's in their order, then users' by name."""
    names = set(losses)
    known = {name: mark for name, mark in LOSSES.items() if name in names}
    others = zip(sorted(names - set(known)), cycle(OTHER_MARKS), strict=False)
    return known | {name: Mark(label({}, name), *drawn, 4.6) for name, drawn in others}


def model_label(model: str) -> str:
    """Return a model's name as the paper prints it."""
    family, _, backbone = model.partition("_")
    if family not in MODELS:
        return model
    return f"{MODELS[family]} {BACKBONES.get(backbone, backbone)}".strip()


def place_label(place: Iterable[object]) -> str:
    """Return what captions call the values of `PLACE`."""
    model, attribution, layer = map(str, place)
    return f"{model_label(model)}, {attribution} at {layer}"


def label(known: Mapping[str, str], name: str) -> str:
    """Return what a figure calls a name: the paper's label, or the name with `$` as a character."""
    return known.get(name, name.replace("$", r"\$"))


def main_backbone(models: Iterable[str]) -> str:
    """Return the backbone that most families of models have; a tie goes to the paper's first."""
    found = [model.partition("_")[2] for model in models if model.partition("_")[0] in MODELS]
    return max(in_order(found, BACKBONES), key=found.count, default="")


def is_of(model: str, backbone: str) -> bool:
    """Say whether a model has a backbone; models that users register belong to every one."""
    family, _, own = model.partition("_")
    return family not in MODELS or own == backbone


def level_marks(labels: Sequence[str]) -> dict[str, Mark]:
    """Return marks of growing darkness for the levels of a setting, in order."""
    drawn = zip(labels, cycle(LEVEL_MARKS), strict=False)
    return {label: Mark(label, marker, colour, 4.6) for label, (marker, colour) in drawn}


def in_order(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Sort names: those known in their order, then the others alphabetically."""
    rank = {name: number for number, name in enumerate(known)}
    return sorted(set(names), key=lambda name: (rank.get(name, len(rank)), name))


def loss_handle(mark: Mark) -> Line2D:
    """Return a loss's line and marker for a legend."""
    face: dict[str, Any] = {"color": mark.colour, "marker": mark.marker, "markersize": mark.size}
    return Line2D([], [], **face, markeredgecolor=INK, markeredgewidth=0.4, label=mark.label)


def in_rows(rows: Sequence[Sequence[Handle]]) -> list[Handle]:
    """Order handles so that matplotlib, which fills a legend by column, shows these rows."""
    width = max(map(len, rows))
    padded = [
        [*row, *[Line2D([], [], linestyle="none", label=" ")] * (width - len(row))] for row in rows
    ]
    return [row[column] for column in range(width) for row in padded]


def hollow_handle() -> Line2D:
    """Return the legend's entry for what others published."""
    face: dict[str, Any] = {"marker": "o", "markersize": 4.6, "markerfacecolor": "white"}
    return Line2D([], [], **face, color=INK, linestyle="--", label="published by others")


def baseline_handle() -> Line2D:
    """Return the legend's white cross."""
    return Line2D([], [], **BASELINE, linestyle="none", label="Baseline")


BASELINE: dict[str, Any] = {
    "marker": "X",
    "markersize": 7.5,
    "markerfacecolor": "white",
    "markeredgecolor": INK,
    "markeredgewidth": 0.9,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Apply the house style to what is drawn and saved inside, and to nothing else."""
    with matplotlib.rc_context(cast("Any", RC)):
        yield
