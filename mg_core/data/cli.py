"""`mg-data`: make and inspect data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mg_core.cli import new_app, run

app = new_app("Make and inspect the data sets of guidance sweeps.")
generate = typer.Typer(no_args_is_help=True, help="Write a synthetic data set.")
app.add_typer(generate, name="generate")


@generate.callback()
def _generate() -> None:
    """Write a synthetic data set."""


@generate.command("shapes")
def generate_shapes(
    folder: Annotated[Path, typer.Argument(help="Missing or empty folder.", metavar="DIR")],
    train: Annotated[int, typer.Option(help="Training images.")] = 1000,
    val: Annotated[int, typer.Option(help="Validation images.")] = 300,
    test: Annotated[int, typer.Option(help="Test images.")] = 300,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 64,
    classes: Annotated[int, typer.Option(help="Number of classes, 2 to 8.")] = 6,
    correlation: Annotated[
        float, typer.Option(help="Probability that the background follows an object's class.")
    ] = 0.9,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
) -> None:
    """Write shapes over textures that betray them, as a VOC devkit."""
    from mg_core.config import parse
    from mg_core.data.progress import progress_bars
    from mg_core.data.shapes import ShapesOptions, write_shapes

    values = {
        "train": train,
        "val": val,
        "test": test,
        "size": size,
        "classes": classes,
        "correlation": correlation,
        "seed": seed,
    }
    options = parse(ShapesOptions, values, "mg-data generate shapes")
    with progress_bars("writing") as progress:
        is_new = write_shapes(folder, options, progress)
    count = f"{train + val + test:,} images of {size} × {size} pixels"
    print(f"wrote {count} to {folder}" if is_new else f"{folder} holds these {count} already")


def main() -> None:
    """Run `mg-data`."""
    run(app)
