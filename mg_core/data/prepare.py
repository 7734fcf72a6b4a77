"""Where the study's data sets come from, and what of them is missing in a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mg_core.download import extract, fetch
from mg_core.errors import InputError

DOWNLOADS = ".downloads"
"""Archives lie here until they are unpacked."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Part:
    """Files of a data set that come together.

    Attributes:
        files: files or folders below the data folder that are there once the part is.
        url: of its archive; none where the publisher has no plain address.
        md5: of the archive.
        only: members of the archive that are needed; all where none are named.
        page: where to get it by hand.
        below: folders below the data folder in which the files may lie instead.
    """

    files: tuple[str, ...]
    url: str | None
    md5: str | None = None
    only: tuple[str, ...] = ()
    page: str = ""
    below: tuple[str, ...] = (".",)

    @property
    def archive(self) -> str:
        """Name of its archive."""
        return (self.url or "").rpartition("/")[2]

    def absent(self, root: Path) -> list[str]:
        """Return the files that are not there."""
        return [
            name
            for name in self.files
            if not any((root / folder / name).exists() for folder in self.below)
        ]

    def is_missing(self, root: Path) -> bool:
        """Whether something of it is not there, or was not unpacked to its end."""
        is_begun = bool(self.url) and (root / DOWNLOADS / self.archive).exists()
        return is_begun or bool(self.absent(root))


VOC = "http://host.robots.ox.ac.uk/pascal/VOC/voc2007"
MAIN = "VOCdevkit/VOC2007/ImageSets/Main"
DEVKIT = (".", "..", "../..")
"""A data folder may be any of the devkit's."""
COCO = "http://images.cocodataset.org"
CUB = "CUB_200_2011"

PARTS: dict[str, tuple[Part, ...]] = {
    "voc2007": (
        Part(
            (f"{MAIN}/train.txt", f"{MAIN}/val.txt"),
            f"{VOC}/VOCtrainval_06-Nov-2007.tar",
            "c52e279531787c972589f7e41ab4ae64",
            below=DEVKIT,
        ),
        Part(
            (f"{MAIN}/test.txt",),
            f"{VOC}/VOCtest_06-Nov-2007.tar",
            "b6e924de25625d8de591ea690078ad9f",
            below=DEVKIT,
        ),
    ),
    "coco2014": (
        Part(
            ("annotations/instances_train2014.json", "annotations/instances_val2014.json"),
            f"{COCO}/annotations/annotations_trainval2014.zip",
            "0a379cfc70b0e71301e0f377548639bd",
        ),
        Part(("train2014",), f"{COCO}/zips/train2014.zip", "0da8c0bd3d6becc4dcb32757491aca88"),
        Part(("val2014",), f"{COCO}/zips/val2014.zip", "a3d79f5ed8d289b7a7554ce06a5782b3"),
    ),
    "waterbirds100": (
        Part(
            ("waterbird_1.0_forest2water2/metadata.csv",),
            None,
            page="https://github.com/spetryk/GALS (Waterbirds-100, on Google Drive)",
            below=(".", ".."),
        ),
        Part(
            (f"{CUB}/images.txt", f"{CUB}/bounding_boxes.txt"),
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            "97eceeb196236b17998738112f37df78",
            only=(f"{CUB}/images.txt", f"{CUB}/bounding_boxes.txt"),
            below=(".", ".."),
        ),
    ),
}
"""Data sets with official files; a synthetic one makes itself."""


def missing_parts(parts: Sequence[Part], root: Path) -> list[Part]:
    """Return the parts of which something is missing."""
    return [part for part in parts if part.is_missing(root)]


def describe(part: Part, root: Path) -> str:
    """Say what is missing of a part and where it comes from."""
    what = (
        ", ".join(str(root / name) for name in part.absent(root)) or f"the rest of {part.archive}"
    )
    return f"{what}: from {part.url or part.page}"


def download_parts(parts: Sequence[Part], root: Path, progress: Progress) -> None:
    """Download and unpack what is missing of some parts.

    An archive stays in `.downloads` until all of it is unpacked, so that whatever stops the
    process, the next one goes on.

    Args:
        parts: of the data set.
        root: data folder, made if need be.
        progress: called with what is being done, megabytes done and megabytes in all.

    Raises:
        InputError: a part has to be got by hand, or a download or archive is broken.
    """
    missing = missing_parts(parts, root)
    by_hand = [part for part in missing if part.url is None]
    for part in (part for part in missing if part.url is not None):
        assert part.url is not None
        archive = root / DOWNLOADS / part.archive
        if not archive.is_file():
            fetch(part.url, archive, part.md5, _in_megabytes(progress, f"loading {archive.name}"))
        reporter = _in_megabytes(progress, f"unpacking {archive.name}")
        extract(archive, root, part.only, reporter)
        archive.unlink()
    if (root / DOWNLOADS).is_dir() and not any((root / DOWNLOADS).iterdir()):
        (root / DOWNLOADS).rmdir()
    for part in missing_parts([part for part in missing if part.url], root):
        raise InputError(f"{part.url} does not hold all it should: {describe(part, root)}")
    if by_hand:
        raise InputError(f"to be got by hand: {describe(by_hand[0], root)}")


def _in_megabytes(progress: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done // 2**20, total // 2**20)
