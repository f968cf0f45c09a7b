"""Slides in vendors' own layouts, written from what OpenSlide's documentation says of them.

Each is as small as the layout allows, has pixels that are known, and is read by OpenSlide.
"""

import io
import struct
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from wsisr.arrays import UInt8Array

SLIDE_ID = "0123456789ABCDEF0123456789ABCDEF"


def write_mirax(
    path: Path,
    image: UInt8Array,
    *,
    side: int = 128,
    overlap: int = 0,
    kind: str = "PNG",
    um_per_px: float = 0.25,
    levels: int = 1,
    missing: tuple[tuple[int, int], ...] = (),
) -> Path:
    """A MIRAX slide: camera images of `side` px that overlap, in one data file.

    Level `k` joins 2**k x 2**k images into one of the same side. Only whole images are written.
    `missing` are (row, column) of images that were not scanned.
    """
    step = side - overlap
    rows, columns = ((n - overlap) // step for n in image.shape[:2])
    rows, columns = rows >> levels - 1 << levels - 1, columns >> levels - 1 << levels - 1
    folder = path.with_suffix("")
    folder.mkdir(parents=True)
    Image.fromarray(np.ascontiguousarray(image[::8, ::8])).save(path, "JPEG")
    data, records = bytearray(), []
    for level in range(levels):
        joined = 1 << level
        entries = []
        for row in range(0, rows, joined):
            for column in range(0, columns, joined):
                if level == 0 and (row, column) in missing:
                    continue
                parts = [
                    [
                        image[y * step : y * step + side, x * step : x * step + side]
                        for x in range(column, column + joined)
                    ]
                    for y in range(row, row + joined)
                ]
                whole = np.vstack([np.hstack(line) for line in parts]).astype(np.float64)
                small = whole.reshape(side, joined, side, joined, 3).mean((1, 3)).round()
                stream = io.BytesIO()
                Image.fromarray(small.astype(np.uint8)).save(stream, kind, quality=95)
                entries.append((row * columns + column, len(data), stream.tell(), 0))
                data += stream.getvalue()
        records.append(entries)
    (folder / "Data0000.dat").write_bytes(data)
    (folder / "Index.dat").write_bytes(_mirax_index(records))
    (folder / "Slidedat.ini").write_text(
        _mirax_text(columns, rows, side, overlap, kind, um_per_px, levels)
    )
    return path


def _mirax_index(records: list[list[tuple[int, int, int, int]]]) -> bytes:
    """Version, id, two roots; a table of levels; of each level one page of images."""
    head = b"01.02" + SLIDE_ID.encode()
    table = len(head) + 8
    at = table + 4 * len(records)
    pointers, body = [], b""
    for entries in records:
        here = at + len(body)
        pointers.append(here)
        body += struct.pack("<4i", 0, here + 8, len(entries), 0)
        body += b"".join(struct.pack("<4i", *entry) for entry in entries)
    return head + struct.pack("<2i", table, 0) + struct.pack(f"<{len(pointers)}i", *pointers) + body


def _mirax_text(
    columns: int, rows: int, side: int, overlap: int, kind: str, um: float, levels: int
) -> str:
    zoom = [f"HIER_0_VAL_{k}_SECTION = LEVEL_{k}" for k in range(levels)]
    lines = [
        "[GENERAL]",
        "SLIDE_VERSION = 01.02",
        f"SLIDE_ID = {SLIDE_ID}",
        f"IMAGENUMBER_X = {columns}",
        f"IMAGENUMBER_Y = {rows}",
        "OBJECTIVE_MAGNIFICATION = 40",
        "[HIERARCHICAL]",
        "HIER_COUNT = 1",
        "NONHIER_COUNT = 0",
        "INDEXFILE = Index.dat",
        "HIER_0_NAME = Slide zoom level",
        f"HIER_0_COUNT = {levels}",
        *zoom,
        "[DATAFILE]",
        "FILE_COUNT = 1",
        "FILE_0 = Data0000.dat",
    ]
    for level in range(levels):
        lines += [
            f"[LEVEL_{level}]",
            f"OVERLAP_X = {overlap / 2**level}",
            f"OVERLAP_Y = {overlap / 2**level}",
            f"MICROMETER_PER_PIXEL_X = {um * 2**level}",
            f"MICROMETER_PER_PIXEL_Y = {um * 2**level}",
            f"IMAGE_FORMAT = {kind}",
            "IMAGE_FILL_COLOR_BGR = 16777215",
            f"DIGITIZER_WIDTH = {side}",
            f"DIGITIZER_HEIGHT = {side}",
            f"IMAGE_CONCAT_FACTOR = {min(level, 1)}",
        ]
    return "\n".join(lines) + "\n"


def write_scn(
    path: Path, areas: list[tuple[UInt8Array, int, int]], size_px: tuple[int, int]
) -> Path:
    """A Leica SCN: areas (pixels, x, y on the plane) of two levels each, and a macro of the glass.

    The plane has `size_px` (width, height) at 0.25 um; every area's sides are even.
    """
    nm = 250  # one pixel; the XML counts in nanometres
    plane = tuple(side * nm for side in size_px)
    pages = [np.full((128, 128, 3), 200, np.uint8)]
    images = [_scn_image((*plane, 0, 0), [(128, 128, 0)])]
    for pixels, x, y in areas:
        height, width = pixels.shape[:2]
        half = pixels.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3)).round()
        box = (width * nm, height * nm, x * nm, y * nm)
        number = len(pages)
        sizes = [(width, height, number), (width // 2, height // 2, number + 1)]
        images.append(_scn_image(box, sizes))
        pages += [pixels, half.astype(np.uint8)]
    text = (
        '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection sizeX="{plane[0]}" sizeY="{plane[1]}">{"".join(images)}</collection></scn>'
    )
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, page in enumerate(pages):
            tiff.write(
                page,
                tile=(128, 128),
                photometric="rgb",
                compression="deflate",
                description=text if number == 0 else None,
                metadata=None,
                resolution=(40_000, 40_000),
                resolutionunit="CENTIMETER",
            )
    return path


def _scn_image(box: tuple[int, int, int, int], sizes: list[tuple[int, int, int]]) -> str:
    dimensions = "".join(
        f'<dimension sizeX="{w}" sizeY="{h}" r="{r}" ifd="{ifd}"/>'
        for r, (w, h, ifd) in enumerate(sizes)
    )
    return (
        '<image><view sizeX="{}" sizeY="{}" offsetX="{}" offsetY="{}"/>'.format(*box)
        + f'<pixels sizeX="{sizes[0][0]}" sizeY="{sizes[0][1]}">{dimensions}</pixels>'
        "<scanSettings><objectiveSettings><objective>40</objective></objectiveSettings>"
        "<illuminationSettings><numericalAperture>0.75</numericalAperture>"
        "<illuminationSource>brightfield</illuminationSource></illuminationSettings>"
        "</scanSettings></image>"
    )


def write_ndpi(path: Path, planes: list[UInt8Array], offsets_nm: list[int]) -> Path:
    """A Hamamatsu NDPI of one level: one JPEG a focal plane, cut by restart markers.

    A TIFF whose pointers between directories have 8 bytes, with the upper halves of all values
    behind the entries.
    """
    out, pointer = bytearray(b"II*\0" + bytes(8)), 4
    for image, z in zip(planes, offsets_nm, strict=True):
        stream = io.BytesIO()
        Image.fromarray(image).save(
            stream, "JPEG", quality=95, subsampling=0, restart_marker_rows=1
        )
        at, (height, width) = len(out), image.shape[:2]
        out += stream.getvalue()
        values: dict[int, tuple[int, bytes]] = {
            256: (4, struct.pack("<I", width)),
            257: (4, struct.pack("<I", height)),
            258: (3, struct.pack("<3H", 8, 8, 8)),
            259: (3, struct.pack("<H", 7)),
            262: (3, struct.pack("<H", 6)),
            271: (2, b"Hamamatsu\0"),
            273: (4, struct.pack("<I", at)),
            277: (3, struct.pack("<H", 3)),
            278: (4, struct.pack("<I", height)),
            279: (4, struct.pack("<I", stream.tell())),
            282: (5, struct.pack("<2I", 40_000, 1)),
            283: (5, struct.pack("<2I", 40_000, 1)),
            296: (3, struct.pack("<H", 3)),
            65420: (4, struct.pack("<I", 1)),
            65421: (11, struct.pack("<f", 40.0)),
            65422: (9, struct.pack("<i", 0)),
            65423: (9, struct.pack("<i", 0)),
            65424: (9, struct.pack("<i", z)),
        }
        entries = b""
        for tag, (kind, raw) in values.items():
            count = len(raw) // {2: 1, 3: 2, 4: 4, 5: 8, 9: 4, 11: 4}[kind]
            if len(raw) > 4:
                place = struct.pack("<I", len(out))
                out += raw
                raw = place
            entries += struct.pack("<HHI", tag, kind, count) + raw.ljust(4, b"\0")
        struct.pack_into("<Q", out, pointer, len(out))
        out += struct.pack("<H", len(values)) + entries
        pointer = len(out)
        out += bytes(8 + 4 * len(values))
    path.write_bytes(out)
    return path
