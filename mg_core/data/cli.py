"""`mg-data`: get, make and inspect data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mg_core.cli import new_app, run
from mg_core.errors import InputError
from mg_core.progress import progress_bars

if TYPE_CHECKING:
    from mg_core.config import DataConfig

app = new_app("Get, make and inspect the data sets of guidance sweeps.")
generate = typer.Typer(no_args_is_help=True, help="Write a synthetic data set.")
app.add_typer(generate, name="generate")

Name = Annotated[str, typer.Argument(metavar="NAME", help="One of those of `mg-data list`.")]
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import", metavar="MODULE", help="Module that registers a reader of your own; repeatable."
    ),
]
Root = Annotated[Path | None, typer.Option("--root", metavar="DIR", help="Folder of the data set.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Option of the data set, as in a sweep file."),
]
Size = Annotated[int, typer.Option(help="Side of the images in pixels.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same bytes.")]
Target = Annotated[Path, typer.Argument(help="Missing or empty folder.", metavar="DIR")]
ImageSize = Annotated[int, typer.Option(help="Side of the trained images in pixels.")]


@app.command(name="list")
def list_names(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The one to be told about.")
    ] = None,
    imports: Imports = None,
) -> None:
    """List the data sets that can be read, or the options of one."""
    from mg_core.data import catalogue

    _import(imports)
    print("\n".join(catalogue.details(name) if name else catalogue.names()))


@app.command()
def prepare(
    name: Name,
    root: Root = None,
    download: Annotated[
        bool, typer.Option("--download", help="Get what is missing from the publishers.")
    ] = False,
    settings: Settings = None,
    imports: Imports = None,
    image_size: ImageSize = 224,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For decoded images; default $MG_CACHE.")
    ] = None,
) -> None:
    """Check what is there, say or get what is missing, and decode all images for training.

    With `--set` the data set is your own: it is only checked and decoded.
    """
    config = _config(name, settings, image_size, imports)
    if not settings:
        _get_parts(name, root, download)
    from mg_core.data import open_data
    from mg_core.data.reader import SPLITS

    with progress_bars("decoding") as progress:
        data = open_data(config, root, cache, progress)
        data.prepare()
        counts = {split: len(data.split(split)) for split in SPLITS}
    print(", ".join(f"{split} {count:,}" for split, count in counts.items()))
    print(f"decoded at {image_size} × {image_size} in {data.folder}")
    print(f"fingerprint {data.fingerprint}")


@app.command()
def verify(
    name: Name,
    root: Root = None,
    settings: Settings = None,
    imports: Imports = None,
    image_size: ImageSize = 224,
) -> None:
    """Read every file, count what is there, and list what is wrong; exit code 1 if anything is."""
    from mg_core.data import verification
    from mg_core.data.dataset import open_reader

    reader = open_reader(_config(name, settings, image_size, imports), root)
    with progress_bars("reading") as progress:
        found = verification.verify(reader, image_size, progress)
    print("\n".join(verification.report_lines(found, reader.classes, reader.group_names)))
    raise typer.Exit(1 if found.problems else 0)


@app.command()
def show(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Image to write, such as a.png.")],
    root: Root = None,
    settings: Settings = None,
    imports: Imports = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    count: Annotated[int, typer.Option(min=1, max=400, help="Images on the sheet.")] = 24,
    image_size: ImageSize = 224,
    dilation: Annotated[
        float, typer.Option(min=0, help="Share by which boxes grow on each side, as in training.")
    ] = 0.0,
    annotation: Annotated[
        str | None,
        typer.Option(help="What is drawn, as in a sweep file: mask, '{points: 5}', random_box, …"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the trial that it is drawn for.")] = 0,
    task: Annotated[str | None, typer.Option(help="Task of a data set that has several.")] = None,
) -> None:
    """Write a sheet of images with boxes, or another annotation, and masks as trained on."""
    from mg_core.data import open_data
    from mg_core.data.annotations import check_annotatable, check_annotation
    from mg_core.data.contact_sheet import contact_sheet
    from mg_core.yaml_text import parse_yaml

    if annotation is not None and dilation:
        raise InputError("give --dilation or --annotation, such as '{box: {dilate: 0.25}}'")
    config = _config(name, settings, image_size, imports)
    written = parse_yaml(annotation, "--annotation") if annotation is not None else "box"
    drawn = check_annotation({"box": {"dilate": dilation}} if dilation else written)
    with progress_bars("decoding") as progress:
        data = open_data(config, root, progress=progress)
        opened = data.split(split, task)
    for sentence in check_annotatable(opened, [drawn]):
        print(sentence)
    sheet = contact_sheet(opened, count, annotation=drawn, seed=seed)
    try:
        sheet.save(file)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {file}: {error}") from None
    print(f"wrote {file}")


@generate.command("shapes")
def generate_shapes(
    context: typer.Context,
    folder: Target,
    train: Annotated[int, typer.Option(help="Training images.")] = 1000,
    val: Annotated[int, typer.Option(help="Validation images.")] = 300,
    test: Annotated[int, typer.Option(help="Test images.")] = 300,
    size: Size = 64,
    classes: Annotated[int, typer.Option(help="Number of classes, 2 to 8.")] = 6,
    correlation: Annotated[
        float, typer.Option(help="Probability that the background follows an object's class.")
    ] = 0.9,
    seed: Seed = 0,
    object_size: Annotated[
        float | None,
        typer.Option(help="Longer side of objects, as a share of the image's; default 0.36."),
    ] = None,
    clutter: Annotated[
        int | None, typer.Option(help="Pieces behind each object that hide the texture.")
    ] = None,
    contrast: Annotated[
        float | None, typer.Option(help="Contrast behind the objects, from 1 to 4; default 1.")
    ] = None,
) -> None:
    """Write shapes over textures that mostly follow a shape's class, as a VOC devkit."""
    from mg_core.data.drawn.shapes import ShapesOptions, write_shapes

    _write(write_shapes, ShapesOptions, context)


@generate.command("waterbirds")
def generate_waterbirds(
    context: typer.Context,
    folder: Target,
    train: Annotated[int, typer.Option(help="Training images.")] = 800,
    val: Annotated[int, typer.Option(help="Validation images, half of them used.")] = 400,
    test: Annotated[int, typer.Option(help="Test images.")] = 400,
    size: Size = 64,
    clarity: Annotated[
        float, typer.Option(help="How far backgrounds tell land from water, from 0 to 1.")
    ] = 1.0,
    seed: Seed = 0,
) -> None:
    """Write drawn birds over land and water, in the layout of Waterbirds-100."""
    from mg_core.data.drawn.birds import BirdsOptions, write_birds

    _write(write_birds, BirdsOptions, context)


@generate.command("decoy")
def generate_decoy(
    context: typer.Context,
    folder: Target,
    train: Annotated[int, typer.Option(help="Training images.")] = 1000,
    val: Annotated[int, typer.Option(help="Validation images.")] = 300,
    test: Annotated[int, typer.Option(help="Test images.")] = 300,
    size: Size = 64,
    classes: Annotated[int, typer.Option(help="Number of classes, 2 to 8.")] = 6,
    correlation: Annotated[
        float, typer.Option(help="Probability that a training image's patch tells its label.")
    ] = 1.0,
    val_patches: Annotated[
        str, typer.Option(help="Whose patches validation has: those of train or test.")
    ] = "train",
    seed: Seed = 0,
) -> None:
    """Write shapes beside a grey patch that tells the label in training and lies in test."""
    from mg_core.data.drawn.decoy import DecoyOptions, write_decoy

    _write(write_decoy, DecoyOptions, context)


def main() -> None:
    """Run `mg-data`."""
    run(app)


def _write(write: Any, model: Any, context: typer.Context) -> None:
    """Write the set that the options of a command describe; they are named as in their model."""
    from mg_core.config import parse

    values = dict(context.params)
    folder = values.pop("folder")
    options = parse(model, values, f"mg-data generate {context.info_name}")
    with progress_bars("writing") as progress:
        is_new = write(folder, options, progress)
    n_images = options.train + options.val + options.test
    count = f"{n_images:,} images of {options.size} × {options.size} pixels"
    print(f"wrote {count} to {folder}" if is_new else f"{folder} holds these {count} already")


def _get_parts(name: str, root: Path | None, download: bool) -> None:
    """Get what is missing of an official data set, or say where it is to be had."""
    from mg_core.data.prepare import PARTS, describe, download_parts, missing_parts

    parts = PARTS.get(name)
    if parts is None:
        return
    if root is None:
        raise InputError(f"{name} needs a folder to lie in: give it with --root")
    missing = missing_parts(parts, root)
    if missing and not download:
        for part in missing:
            print(f"missing {describe(part, root)}")
        hint = "; --download gets what has an address" if any(part.url for part in missing) else ""
        raise InputError(f"{name} is not complete in {root}{hint}")
    with progress_bars() as progress:
        download_parts(parts, root, progress)


def _import(modules: list[str] | None) -> None:
    from mg_core.registry import import_variants

    import_variants(modules or [], "--import")


def _config(
    name: str, settings: list[str] | None, image_size: int, imports: list[str] | None
) -> DataConfig:
    from mg_core.data import data_config
    from mg_core.yaml_text import parse_yaml

    _import(imports)
    options: dict[str, Any] = {}
    for setting in settings or []:
        key, separator, value = setting.partition("=")
        if not separator:
            raise InputError(f"--set {setting!r} is no KEY=VALUE")
        try:
            options[key] = parse_yaml(value, f"--set {key}")
        except InputError:
            options[key] = value
    return data_config(name, image_size, options=options)
