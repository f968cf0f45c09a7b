"""Folders of PNG files: plain ones that BasicSR reads, and a data set of Hugging Face.

``<split>/<array>/<key>.png``: the folders of two arrays are the pair of folders of BasicSR's
`PairedImageDataset`, with equal names in both. The table beside them has one ``*_file_name`` column
an array, which is how `datasets` makes pairs; without it the folders would become class labels.

References: huggingface/datasets, `folder_based_builder`; XPixelGroup/BasicSR, `data_util`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2

from wsisr.arrays import UInt8Array
from wsisr.errors import StoreError
from wsisr.store.exporting.pair_records import ExportedPair
from wsisr.store.exporting.tables import CsvTable, ParquetTable

HUB_SPLITS = {"val": "validation"}
"""Names that the Hub's patterns know."""


def png(image: UInt8Array) -> bytes:
    """Lossless PNG of an RGB patch."""
    good, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not good:
        raise StoreError("A patch could not be encoded as PNG.")
    return bytes(data.tobytes())


def roles(arrays: tuple[str, ...]) -> dict[str, str]:
    """Arrays by what they are in a pair: ``hr``, ``lr``, or ``lr_10x`` where there are several.

    >>> roles(("40x", "10x")), roles(("40x", "20x", "10x"))
    ({'40x': 'hr', '10x': 'lr'}, {'40x': 'hr', '20x': 'lr_20x', '10x': 'lr_10x'})
    """
    low = {name: f"lr_{name}" for name in arrays[1:]}
    return {arrays[0]: "hr", **(low if len(low) > 1 else dict.fromkeys(low, "lr"))}


def write_folders(
    pairs: Iterator[ExportedPair],
    fields: Mapping[str, type],
    arrays: tuple[str, ...],
    folder: Path,
    *,
    table: type[CsvTable | ParquetTable],
) -> None:
    """Pictures, and the table of their records beside them."""
    role = roles(arrays)
    columns = {f"{role[name]}_file_name": str for name in arrays} | dict(fields)
    for name in arrays:
        (folder / name).mkdir(parents=True, exist_ok=True)
    with table(folder / f"metadata.{table.suffix}", columns) as rows:
        for pair in pairs:
            names = {}
            for name, image in pair.images.items():
                names[f"{role[name]}_file_name"] = f"{name}/{pair.key}.png"
                (folder / name / f"{pair.key}.png").write_bytes(png(image))
            rows.add({**names, **pair.record})
