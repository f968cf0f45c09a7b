"""SR pictures that another program made from LR that `wsisr export` wrote.

They are matched to pairs by the key in their names (`wsisr.store.exporting.pair_records`), which
other programs keep and lengthen (``KEY_x4_SwinIR.png``). A set is complete or refused: scores of
those pictures alone that somebody has are scores of other images.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wsisr.errors import ConfigError, OutputError, SlideError
from wsisr.evaluation.columns import Sample, ScaleColumn
from wsisr.evaluation.groups import Place
from wsisr.evaluation.settings import scale_label
from wsisr.inference.trained import TrainedModel
from wsisr.slides.plain_images import read_facts, read_picture
from wsisr.store import PairStore
from wsisr.store.exporting.pair_records import Records

MODEL = "pictures"
"""Stands for the network of pictures that were made elsewhere."""
_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg", ".webp")
_LOSSY = (".jpg", ".jpeg", ".webp")
_KEY = re.compile(r"(.*_s\d+_r\d+_x-?\d+_y-?\d+)(?![0-9])")


@dataclass(frozen=True, kw_only=True)
class SrImages:
    """A complete set of SR pictures.

    Attributes
    ----------
    entry : TrainedModel
        What stands in the tables.
    array : str
        The stored LR that they were made from.
    files : mapping of (slide, row) to Path
    digest : str
        BLAKE2b of names and bytes.
    lossy : bool
        Whether some are files that lose detail.
    """

    entry: TrainedModel
    array: str
    files: Mapping[Place, Path]
    digest: str
    lossy: bool

    def read(self, samples: Sequence[Sample]) -> Tensor:
        """SR of samples, (N, 3, H, W), float64 in [0, 1].

        Raises
        ------
        OutputError
            A file is damaged.
        """
        images = []
        for sample in samples:
            try:
                pixels, _, _ = read_picture(self.files[sample.slide, sample.row])
            except SlideError as error:
                raise OutputError(str(error)) from None
            images.append(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).double() / 255.0


def find_sr_images(
    store: PairStore, columns: Sequence[ScaleColumn], wanted: Sequence[str]
) -> tuple[SrImages, ...]:
    """Every set that was asked for.

    Parameters
    ----------
    columns : sequence of ScaleColumn
        Of the evaluation; only stored LR can have been exported.
    wanted : sequence of str
        ``NAME=FOLDER``, or ``NAME@ARRAY=FOLDER`` where several LR arrays could be meant.

    Raises
    ------
    ConfigError
        A set is not complete, a picture has another size or belongs to no pair, or it is not clear
        what it was made from.
    """
    return tuple(_open(store, columns, text) for text in wanted)


def _open(store: PairStore, columns: Sequence[ScaleColumn], text: str) -> SrImages:
    label, sign, place = text.partition("=")
    name, _, asked = label.partition("@")
    folder = Path(place)
    if not (sign and name.strip() and place):
        raise ConfigError(f"--images {text}: write NAME=FOLDER, e.g. swinir=results/swinir")
    if not folder.is_dir():
        raise ConfigError(f"--images {text}: there is no folder {folder}")
    array = _array(columns, text, asked)
    mine = [column for column in columns if column.array == array]
    samples = {s: None for column in mine for s in column.samples}
    found = _by_key(store, folder)
    places = {s: (s.slide, s.row) for s in samples}
    missing = [places[s] for s in samples if places[s] not in found]
    if missing:
        raise ConfigError(
            f"--images {text}: {len(missing)} of {len(samples)} pictures are missing, the first of "
            f"slide {missing[0][0]}, row {missing[0][1]}; a set is scored complete or not at all"
        )
    files = {places[s]: found[places[s]] for s in samples}
    for sample in samples:
        _check_size(files[places[sample]], sample.hr_px)
    scale = mine[0].scale
    entry = TrainedModel(
        name=name.strip(),
        model=MODEL,
        preset="",
        scale=None,
        scale_range=(scale, scale),
        folder=folder,
        is_network=False,
    )
    lossy = any(path.suffix.lower() in _LOSSY for path in files.values())
    return SrImages(entry=entry, array=array, files=files, digest=_digest(files), lossy=lossy)


def _array(columns: Sequence[ScaleColumn], text: str, asked: str) -> str:
    stored = {column.array: column.scale for column in columns if column.array is not None}
    shown = ", ".join(f"{name} ({scale_label(scale)})" for name, scale in stored.items())
    if not stored:
        raise ConfigError(
            f"--images {text}: no column of this evaluation has LR that the store holds, and only "
            "that can be exported; see --scales and --lr-source"
        )
    if asked and asked not in stored:
        raise ConfigError(f"--images {text}: no column has the LR {asked}; there is {shown}")
    if not asked and len(stored) > 1:
        raise ConfigError(
            f"--images {text}: say which LR they were made from, NAME@ARRAY=FOLDER: {shown}"
        )
    return asked or next(iter(stored))


def _by_key(store: PairStore, folder: Path) -> dict[Place, Path]:
    """Pictures below a folder by the pair that their names say."""
    pairs = dict(_keys(store))
    found: dict[Place, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in _SUFFIXES or path.name.startswith("."):
            continue
        match = _KEY.match(path.stem)
        place = pairs.get(match.group(1)) if match else None
        if place is None:
            raise ConfigError(
                f"{path} is no picture of a pair of {store.path.name}: its name does not begin "
                "with a key that wsisr export gives; leave it out of the folder, or name it so"
            )
        if place in found:
            raise ConfigError(
                f"{found[place]} and {path} are both the picture of one pair; leave one of them"
            )
        found[place] = path
    if not found:
        raise ConfigError(f"{folder} holds no pictures ({', '.join(_SUFFIXES)})")
    return found


def _keys(store: PairStore) -> Iterator[tuple[str, Place]]:
    """Keys of all kept pairs, with and without the folders of slides' paths."""
    for split in store.split_names():
        rows = store.split(split)
        for index in np.unique(rows[:, 0]).tolist():
            slide = store.attributes["slides"][index]
            view = store.slides[slide]
            members = rows[rows[:, 0] == index, 1].tolist()
            for folders in (False, True):
                records = Records(view, index, split, folders)
                yield from ((records.key(row), (slide, row)) for row in members)


def _check_size(path: Path, side: int) -> None:
    try:
        facts = read_facts(path)
    except SlideError as error:
        raise ConfigError(str(error)) from None
    if (facts.width_px, facts.height_px) != (side, side):
        raise ConfigError(
            f"{path} has {facts.width_px} x {facts.height_px} px and its HR {side} x {side}; "
            "pictures are never resized into a score"
        )


def _digest(files: Mapping[Place, Path]) -> str:
    state = blake2b(digest_size=32)
    for (slide, row), path in sorted(files.items()):
        state.update(f"{slide} {row} {path.stat().st_size}\n".encode())
        state.update(path.read_bytes())
    return state.hexdigest()


def sr_image_notes(sets: Iterable[SrImages]) -> list[str]:
    """What a reader of the tables should know of them."""
    notes = []
    for made in sets:
        text = (
            f"{made.entry.name}: pictures that another program made from {made.array}; what it has "
            "seen in training is not recorded, so that a leak cannot be excluded."
        )
        notes.append(text + (" They were saved with loss." if made.lossy else ""))
    return notes
