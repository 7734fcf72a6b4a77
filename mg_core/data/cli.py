"""`mg-data`: get, make and inspect data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mg_core.cli import new_app, run

if TYPE_CHECKING:
    from mg_core.config import DataConfig
    from mg_core.data.reader import Reader

app = new_app("Get, make and inspect the data sets of guidance sweeps.")
generate = typer.Typer(no_args_is_help=True, help="Write a synthetic data set.")
app.add_typer(generate, name="generate")

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="voc2007, coco2014, waterbirds100 or shapes.")
]
Root = Annotated[Path | None, typer.Option("--root", metavar="DIR", help="Folder of the data set.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Option of the data set, as in a sweep file."),
]
ImageSize = Annotated[int, typer.Option(help="Side of the trained images in pixels.")]


@app.command()
def prepare(
    name: Name,
    root: Root = None,
    download: Annotated[
        bool, typer.Option("--download", help="Get what is missing from the publishers.")
    ] = False,
    settings: Settings = None,
    image_size: ImageSize = 224,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For decoded images; default $MG_CACHE.")
    ] = None,
) -> None:
    """Check what is there, say or get what is missing, and decode all images for training.

    A data set of one's own, with options of its own, is only checked and decoded.
    """
    config = _config(name, settings, image_size)
    if not settings:
        _get_parts(name, root, download)
    from mg_core.data import open_data
    from mg_core.data.progress import progress_bars
    from mg_core.data.reader import SPLITS

    with progress_bars("decoding") as progress:
        data = open_data(config, str(root) if root else None, str(cache) if cache else None,
                         progress)  # fmt: skip
        counts = {split: len(data.split(split)) for split in SPLITS}
    print(", ".join(f"{split} {count:,}" for split, count in counts.items()))
    print(f"decoded at {image_size} × {image_size} in {data.folder}")
    print(f"fingerprint {data.fingerprint}")


@app.command()
def verify(
    name: Name, root: Root = None, settings: Settings = None, image_size: ImageSize = 224
) -> None:
    """Read every file, count what is there, and list all that is wrong; exit code 1 if any is."""
    from mg_core.data.progress import progress_bars
    from mg_core.data.verification import report_lines
    from mg_core.data.verification import verify as verify_reader

    reader = _reader(_config(name, settings, image_size), root)
    with progress_bars("reading") as progress:
        found = verify_reader(reader, image_size, progress)
    print("\n".join(report_lines(found, reader.classes)))
    raise typer.Exit(1 if found.problems else 0)


@app.command()
def show(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Image to write, such as a.png.")],
    root: Root = None,
    settings: Settings = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    count: Annotated[int, typer.Option(min=1, max=400, help="Images on the sheet.")] = 24,
    image_size: ImageSize = 224,
    dilation: Annotated[float, typer.Option(min=0, help="Of the boxes, as in training.")] = 0.0,
    task: Annotated[str | None, typer.Option(help="For a data set that has several.")] = None,
) -> None:
    """Write a sheet of images with boxes and masks as trained on."""
    from mg_core.data import open_data
    from mg_core.data.contact_sheet import contact_sheet
    from mg_core.data.progress import progress_bars
    from mg_core.errors import InputError

    with progress_bars("decoding") as progress:
        config = _config(name, settings, image_size)
        data = open_data(config, str(root) if root else None, progress=progress)
        opened = data.split(split, task)
    sheet = contact_sheet(opened, count, dilation=dilation)
    try:
        sheet.save(file)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {file}: {error}") from None
    print(f"wrote {file}")


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
    object_size: Annotated[
        float | None, typer.Option(help="Longer side of objects, of the image's; default 0.36.")
    ] = None,
    clutter: Annotated[
        int | None, typer.Option(help="Pieces behind each object that hide the texture.")
    ] = None,
    contrast: Annotated[
        float | None, typer.Option(help="Of what is behind the objects, from 1 to 4; default 1.")
    ] = None,
) -> None:
    """Write shapes over textures that betray them, as a VOC devkit."""
    from mg_core.data.drawn.shapes import ShapesOptions, write_shapes

    values = {
        "train": train,
        "val": val,
        "test": test,
        "size": size,
        "classes": classes,
        "correlation": correlation,
        "seed": seed,
        "object_size": object_size,
        "clutter": clutter,
        "contrast": contrast,
    }
    _write(write_shapes, ShapesOptions, values, folder, "shapes")


@generate.command("waterbirds")
def generate_waterbirds(
    folder: Annotated[Path, typer.Argument(help="Missing or empty folder.", metavar="DIR")],
    train: Annotated[int, typer.Option(help="Training images.")] = 800,
    val: Annotated[int, typer.Option(help="Validation images, half of them used.")] = 400,
    test: Annotated[int, typer.Option(help="Test images.")] = 400,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 64,
    clarity: Annotated[
        float, typer.Option(help="How far backgrounds tell land from water, from 0 to 1.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
) -> None:
    """Write drawn birds over land and water, in the layout of Waterbirds-100."""
    from mg_core.data.drawn.birds import BirdsOptions, write_birds

    counts = {"train": train, "val": val, "test": test, "size": size, "seed": seed}
    _write(write_birds, BirdsOptions, {**counts, "clarity": clarity}, folder, "waterbirds")


def main() -> None:
    """Run `mg-data`."""
    run(app)


def _write(write: Any, model: Any, values: dict[str, Any], folder: Path, what: str) -> None:
    from mg_core.config import parse
    from mg_core.data.progress import progress_bars

    options = parse(model, values, f"mg-data generate {what}")
    with progress_bars("writing") as progress:
        is_new = write(folder, options, progress)
    n_images = options.train + options.val + options.test
    count = f"{n_images:,} images of {options.size} × {options.size} pixels"
    print(f"wrote {count} to {folder}" if is_new else f"{folder} holds these {count} already")


def _get_parts(name: str, root: Path | None, download: bool) -> None:
    """Get what is missing of an official data set, or say where it is to be had."""
    from mg_core.data.prepare import PARTS, describe, download_parts, missing_parts
    from mg_core.data.progress import progress_bars
    from mg_core.errors import InputError

    parts = PARTS.get(name, ())
    if not parts:
        return
    if root is None:
        raise InputError(f"{name} needs a folder to lie in: give it with --root")
    missing = missing_parts(parts, root)
    if missing and not download:
        for part in missing:
            print(f"missing {describe(part, root)}")
        is_to_be_had = any(part.url for part in missing)
        hint = "; --download gets what has an address" if is_to_be_had else ""
        raise InputError(f"{name} is not complete in {root}{hint}")
    with progress_bars("") as progress:
        download_parts(parts, root, progress)


def _config(name: str, settings: list[str] | None, image_size: int) -> DataConfig:
    import yaml

    from mg_core.config import DataConfig, parse
    from mg_core.data import DATASETS
    from mg_core.errors import InputError

    options: dict[str, Any] = {}
    for setting in settings or []:
        key, separator, value = setting.partition("=")
        if not separator:
            raise InputError(f"--set {setting!r} is no KEY=VALUE")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            options[key] = value
    variant = DATASETS[name]
    checked = parse(variant.Options, options, f"options of data set {name}")
    values = {
        "name": name,
        "image_size": image_size,
        "horizontal_flip": False,
        # As a sweep spells them, so that both find the same decoded images.
        "options": checked.model_dump(mode="json", exclude_none=True),
    }
    config: DataConfig = parse(DataConfig, values, "mg-data")
    return config


def _reader(config: DataConfig, root: Path | None) -> Reader:
    from mg_core.config import parse
    from mg_core.data import DATASETS
    from mg_core.data.cache import cache_folder

    variant = DATASETS[config.name]
    options = parse(variant.Options, config.options, f"options of data set {config.name}")
    folder = variant.locate(str(root) if root else None, options, cache_folder(None))
    return variant(folder, options)
