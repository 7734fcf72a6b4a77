"""Where the study's data sets come from, and what of them is missing in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mg_core.data.archives import extract
from mg_core.data.reader import Progress
from mg_core.download import Progress as BytesProgress
from mg_core.download import fetch
from mg_core.errors import InputError

DOWNLOADS = ".downloads"
"""Archives lie here until they are unpacked."""


@dataclass(frozen=True)
class Part:
    """Files of a data set that one archive holds."""

    files: tuple[str, ...]  # files or folders below the data folder
    url: str | None  # of the archive; none if it has to be downloaded by hand
    checksum: str | None = None
    only: tuple[str, ...] = ()  # members of the archive that are needed; all if empty
    page: str = ""  # offers a part without an address
    below: tuple[str, ...] = (".",)  # folders, relative to the data folder, that may hold the files

    @property
    def archive(self) -> str:
        """File name of the archive."""
        return (self.url or "").rpartition("/")[2]

    def absent(self, root: Path) -> list[str]:
        """Return the files that are not there."""
        return [
            name
            for name in self.files
            if not any((root / folder / name).exists() for folder in self.below)
        ]


VOC = "http://host.robots.ox.ac.uk/pascal/VOC/voc2007"
MAIN = "VOCdevkit/VOC2007/ImageSets/Main"
DEVKIT = (".", "..", "../..")
"""The data folder may be the devkit's parent, VOCdevkit or VOC2007."""
COCO = "http://images.cocodataset.org"
CUB_LISTS = ("CUB_200_2011/images.txt", "CUB_200_2011/bounding_boxes.txt")

PARTS: dict[str, tuple[Part, ...]] = {
    "voc2007": (
        Part(
            (f"{MAIN}/train.txt", f"{MAIN}/val.txt"),
            f"{VOC}/VOCtrainval_06-Nov-2007.tar",
            "md5=c52e279531787c972589f7e41ab4ae64",
            below=DEVKIT,
        ),
        Part(
            (f"{MAIN}/test.txt",),
            f"{VOC}/VOCtest_06-Nov-2007.tar",
            "md5=b6e924de25625d8de591ea690078ad9f",
            below=DEVKIT,
        ),
    ),
    "coco2014": (
        Part(
            ("annotations/instances_train2014.json", "annotations/instances_val2014.json"),
            f"{COCO}/annotations/annotations_trainval2014.zip",
            "md5=0a379cfc70b0e71301e0f377548639bd",
        ),
        Part(("train2014",), f"{COCO}/zips/train2014.zip", "md5=0da8c0bd3d6becc4dcb32757491aca88"),
        Part(("val2014",), f"{COCO}/zips/val2014.zip", "md5=a3d79f5ed8d289b7a7554ce06a5782b3"),
    ),
    "waterbirds100": (
        Part(
            ("waterbird_1.0_forest2water2/metadata.csv",),
            None,
            page="https://github.com/spetryk/GALS (Waterbirds-100, on Google Drive)",
            below=(".", ".."),
        ),
        Part(
            CUB_LISTS,
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            "md5=97eceeb196236b17998738112f37df78",
            only=CUB_LISTS,
            below=(".", ".."),
        ),
    ),
}
"""The data sets that are downloaded; synthetic ones are generated."""


def missing_parts(parts: Sequence[Part], root: Path) -> list[Part]:
    """Return the parts of which a file is not there or the archive was not unpacked to its end."""
    return [
        part
        for part in parts
        if part.absent(root) or (part.url and (root / DOWNLOADS / part.archive).exists())
    ]


def describe(part: Part, root: Path) -> str:
    """Return which files of a part are missing and where they come from."""
    absent = ", ".join(str(root / name) for name in part.absent(root))
    return f"{absent or f'the rest of {part.archive}'}: from {part.url or part.page}"


def download_parts(parts: Sequence[Part], root: Path, progress: Progress) -> None:
    """Download and unpack the parts that are not complete, and show megabytes.

    An archive stays in `.downloads` until all of it is unpacked, so that the next process
    continues after an interruption.
    """
    missing = missing_parts(parts, root)
    for part in missing:
        if part.url:
            archive = root / DOWNLOADS / part.archive
            loading = _megabytes(progress, f"loading {part.archive}")
            fetch(part.url, archive, part.checksum, loading)
            extract(archive, root, part.only, _megabytes(progress, f"unpacking {part.archive}"))
            archive.unlink()
    if (root / DOWNLOADS).is_dir() and not any((root / DOWNLOADS).iterdir()):
        (root / DOWNLOADS).rmdir()
    for part in missing_parts([part for part in missing if part.url], root):
        raise InputError(f"{part.url} does not hold all its files, missing {describe(part, root)}")
    for part in missing:
        if part.url is None:
            raise InputError(f"download by hand {describe(part, root)}")


def _megabytes(progress: Progress, what: str) -> BytesProgress:
    return lambda done, total: progress(what, done // 2**20, total // 2**20)
