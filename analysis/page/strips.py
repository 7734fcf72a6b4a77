"""Strips of heat maps that the front explorer shows of a checkpoint."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from PIL import Image

from analysis.heatmaps import SHOWN, HeatMap, Key
from analysis.plots.cells import key_of, records
from analysis.results import Results
from mg_core.attributions.overlay import outlined, overlay

MOST_STRIPS = 300
"""Checkpoints whose heat maps are in the page; on larger sweeps the best ones of each front."""
SIDE = 96
"""Pixels of one image in a strip."""
QUALITY = 72


def strips_of(results: Results, points: pd.DataFrame) -> tuple[dict[str, str], list[list[str]]]:
    """Draw the heat maps of the explorer's points and of their baselines.

    The strips come by key, and for each point the keys before and after guidance, "" for none.
    """
    heatmaps = results.heatmaps
    wanted: dict[str, Key] = {}
    keys: list[list[str]] = []
    shown = _most_telling(points, results.objectives)
    for number, row in enumerate(records(points)):
        own = []
        for epoch in (0, int(row["epoch"])):
            key = key_of(heatmaps, row, epoch) if number in shown or epoch == 0 else None
            own.append("-".join(map(str, key)) if key else "")
            if key:
                wanted[own[-1]] = key
        keys.append(own)
    with ThreadPoolExecutor() as pool:
        made = pool.map(lambda key: _strip(heatmaps.load(key)), wanted.values())
        return {name: strip for name, strip in zip(wanted, made, strict=True) if strip}, keys


def _most_telling(points: pd.DataFrame, objectives: tuple[str, ...]) -> set[int]:
    """Return the positions of the points whose heat maps are shown."""
    guided = points[~points["is_reference"]]
    if len(guided) <= MOST_STRIPS:
        return set(guided.index)
    best: set[int] = set()
    for metric in [f"val_{name}" for name in objectives if f"val_{name}" in guided]:
        ranked = guided.sort_values(metric, ascending=False, kind="stable")
        best |= set(ranked.drop_duplicates("front").index[: MOST_STRIPS // len(objectives)])
    return best


def _strip(maps: list[HeatMap]) -> str:
    """Draw maps side by side, as the address of an embedded picture."""
    if not maps:
        return ""
    strip = Image.new("RGB", ((SIDE + 2) * len(maps[:SHOWN]) - 2, SIDE), "white")
    for place, heat_map in enumerate(maps[:SHOWN]):
        strip.paste(_tile(heat_map), (place * (SIDE + 2), 0))
    buffer = io.BytesIO()
    strip.save(buffer, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _tile(heat_map: HeatMap) -> Image.Image:
    values, picture = heat_map.map, Image.fromarray(heat_map.picture)
    size = len(values)
    if size > SIDE:
        # Energy is averaged, not sampled: a thin bright line stays as bright as it is.
        small = Image.fromarray(np.maximum(values, 0)).resize((SIDE, SIDE), Image.Resampling.BOX)
        values = np.asarray(small)
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
    drawn = Image.fromarray(overlay(np.asarray(picture), values))
    tile = np.asarray(drawn.resize((SIDE, SIDE), Image.Resampling.NEAREST))
    return Image.fromarray(outlined(tile, heat_map.boxes * (SIDE / size)))
