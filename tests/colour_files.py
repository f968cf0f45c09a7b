"""A matrix of files whose pixels are known: codec, colours, subsampling, planes, tiles, markers.

Every file carries the pixels that were given to its encoder; a reader shows them, within what the
codec loses, or refuses. Written by tifffile, pydicom and, where it is installed, libvips.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from zlib import crc32

import imagecodecs
import numpy as np
import tifffile
from skimage.data import immunohistochemistry

from wsisr.slides.colour import rgb_to_ycbcr

U8 = np.ndarray
TILE = 128
SIDE = 256
ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
LOSS = {"444": 4.0, "422": 6.0, "420": 7.0, "none": 0.0, "rounding": 1.0, "webp": 8.0}
"""Mean absolute error that the codec itself may cause, grey levels; false colours are 40 off."""


@dataclass(frozen=True, kw_only=True)
class ColourFile:
    """One file to write.

    Attributes
    ----------
    name : str
        What it is, with the suffix; unique.
    writer : str
    write : callable
        Path -> None.
    loss : float
        Mean absolute error allowed.
    grey : bool
        Whether the truth is one channel.
    refused : bool
        Whether wsisr refuses it by decision: DICOM slides of a single channel.
    """

    name: str
    writer: str
    write: Callable[[Path], None]
    loss: float
    grey: bool = False
    refused: bool = False

    def truth(self) -> U8:
        """What was encoded, (SIDE, SIDE, 3)."""
        image = picture()
        return np.repeat(image[..., 1:2], 3, axis=2) if self.grey else image


def picture() -> U8:
    """Stained tissue under a strip of bare glass."""
    image = np.ascontiguousarray(immunohistochemistry()[100 : 100 + SIDE, 60 : 60 + SIDE])
    image[: SIDE // 8] = 243
    return image


def all_files() -> list[ColourFile]:
    """The whole matrix, always in the same order."""
    files = [*_plain_tiffs(), *_jpeg_tiffs(), *_dicoms()]
    try:
        import pyvips  # noqa: F401
    except ImportError:
        return files
    return [*files, *_vips_tiffs()]


def jpeg_stream(image: U8, *, space: str, subsampling: str = "444", marker: str = "bare") -> bytes:
    """One stream with the marker that is named and no other.

    ``"bare"`` numbers its components 1, 2, 3; ``"ids"`` names them R, G, B; ``"zero"`` numbers
    them 0, 1, 2 as Aperio does.
    """
    grey = image.ndim == 2
    data = imagecodecs.jpeg8_encode(
        np.ascontiguousarray(image),
        level=92,
        colorspace=None if grey else "rgb",
        outcolorspace=None if grey else space,
        subsampling=None if grey else subsampling,
    )
    kept, at = data[:2], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] not in (0xE0, 0xEE):
            kept += data[at:end]
        at = end
    data = kept + data[at:]
    if grey:
        return data
    names = {"ids": b"RGB", "zero": b"\x00\x01\x02"}.get(marker, b"\x01\x02\x03")
    data = _renamed(data, names)
    inserted = {
        "jfif": JFIF,
        "adobe": ADOBE + (b"\x00" if space == "rgb" else b"\x01"),
        "both": JFIF + ADOBE + (b"\x00" if space == "rgb" else b"\x01"),
    }.get(marker, b"")
    return data[:2] + inserted + data[2:]


def _renamed(data: bytes, names: bytes) -> bytes:
    """The stream with its three components named otherwise."""
    out, at = bytearray(data), 2
    while at + 4 <= len(out):
        marker = out[at + 1]
        if marker in (0xC0, 0xC1, 0xC2):
            for i in range(3):
                out[at + 10 + 3 * i] = names[i]
        if marker == 0xDA:
            for i in range(3):
                out[at + 5 + 2 * i] = names[i]
            break
        at += 2 + int.from_bytes(out[at + 2 : at + 4], "big")
    return bytes(out)


def _tiles(image: U8, tiled: bool) -> list[U8]:
    if not tiled:
        return [image[y : y + 64] for y in range(0, SIDE, 64)]
    return [
        image[y : y + TILE, x : x + TILE]
        for y in range(0, SIDE, TILE)
        for x in range(0, SIDE, TILE)
    ]


def _layout(tiled: bool) -> dict[str, Any]:
    return {"tile": (TILE, TILE)} if tiled else {"rowsperstrip": 64}


def _name(*parts: object) -> str:
    return "-".join(str(part) for part in parts) + ".tif"


def _plain_tiffs() -> Iterator[ColourFile]:
    codecs: tuple[str | None, ...] = (
        None, "lzw", "deflate", "packbits", "zstd", "webp", "jpeg2000", "jpegxl", "jpeg",
    )  # fmt: skip
    for codec, tiled, colour, planar, predictor in product(
        codecs, (True, False), ("rgb", "ycbcr", "grey", "white0"), (1, 2), (False, True)
    ):
        grey = colour in ("grey", "white0")
        if (grey and planar == 2) or (predictor and codec not in ("lzw", "deflate", "zstd")):
            continue
        if codec in ("webp", "jpegxl") and (colour == "ycbcr" or planar == 2 or grey):
            continue
        if codec == "jpeg" and (colour == "white0" or (planar == 1 and colour == "ycbcr")):
            continue
        loss = "none" if colour != "ycbcr" else "rounding"
        if codec in ("jpeg", "webp"):
            loss = "420" if planar == 1 and colour == "rgb" and codec == "jpeg" else "webp"
        yield ColourFile(
            name=_name("tifffile", codec, colour, "tiles" if tiled else "strips", planar,
                       "predictor" if predictor else "plain"),
            writer="tifffile",
            write=_plain_writer(codec, colour, planar, tiled, predictor),
            loss=LOSS[loss],
            grey=grey,
        )  # fmt: skip


def _plain_writer(
    codec: str | None, colour: str, planar: int, tiled: bool, predictor: bool
) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        image = picture()
        data = {
            "rgb": image,
            "ycbcr": rgb_to_ycbcr(image),
            "grey": image[..., 1],
            "white0": 255 - image[..., 1],
        }[colour]
        if planar == 2:
            data = np.ascontiguousarray(np.moveaxis(data, 2, 0))
        args: dict[str, Any] = {}
        if codec == "jpeg":
            args = {"level": 92}
        elif codec == "jpeg2000":
            args = {"mct": colour == "rgb" and planar == 1, "reversible": True}
        elif codec == "jpegxl":
            args = {"lossless": True}
        elif codec == "webp":
            args = {"lossless": True, "level": 100}
        tifffile.imwrite(
            path,
            data,
            photometric={"grey": "minisblack", "white0": "miniswhite"}.get(colour, colour),
            planarconfig=None if data.ndim == 2 else ("separate" if planar == 2 else "contig"),
            subsampling=(1, 1) if colour == "ycbcr" else None,
            compression=codec,
            compressionargs=args or None,
            predictor=predictor,
            metadata=None,
            **_layout(tiled),
        )

    return write


def _jpeg_tiffs() -> Iterator[ColourFile]:
    """Streams of every make under either tag; what nothing in the file tells is left out."""
    for space, subsampling, marker, tag, tiled, tables in product(
        ("rgb", "ycbcr"),
        ("444", "422", "420"),
        ("bare", "jfif", "adobe", "both", "ids", "zero"),
        (2, 6),
        (True, False),
        (False, True),
    ):
        if space == "rgb" and subsampling != "444":
            continue
        if space == "ycbcr" and marker == "ids":
            continue
        if space == "rgb" and tag == 6 and marker in ("bare", "jfif", "zero"):
            continue  # tag and stream both say YCbCr: the file is wrong, not its reader
        yield ColourFile(
            name=_name("jpeg", space, subsampling, marker, f"tag{tag}",
                       "tiles" if tiled else "strips", "tables" if tables else "whole"),
            writer="tifffile",
            write=_jpeg_writer(space, subsampling, marker, tag, tiled, tables),
            loss=LOSS[subsampling],
        )  # fmt: skip


def _jpeg_writer(
    space: str, subsampling: str, marker: str, tag: int, tiled: bool, tables: bool
) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        streams = [
            jpeg_stream(part, space=space, subsampling=subsampling, marker=marker)
            for part in _tiles(picture(), tiled)
        ]
        shared = None
        if tables:
            shared, streams = _split_tables(streams)
        extra = [] if shared is None else [(347, 7, len(shared), shared, True)]
        with tifffile.TiffWriter(path) as tiff:
            tiff.write(
                iter(streams),
                shape=(SIDE, SIDE, 3),
                dtype=np.uint8,
                photometric="rgb",
                compression="jpeg",
                extratags=extra,
                metadata=None,
                **_layout(tiled),
            )
        with tifffile.TiffFile(path, mode="r+") as tiff:
            tiff.pages[0].tags["PhotometricInterpretation"].overwrite(tag)

    return write


def _split_tables(streams: list[bytes]) -> tuple[bytes, list[bytes]]:
    """A stream of the tables that all share, and the streams without them."""
    tables, rest = b"", []
    for data in streams:
        kept, found, at = data[:2], b"", 2
        while data[at + 1] != 0xDA:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            if data[at + 1] in (0xDB, 0xC4):
                found += data[at:end]
            else:
                kept += data[at:end]
            at = end
        tables = found
        rest.append(kept + data[at:])
    return b"\xff\xd8" + tables + b"\xff\xd9", rest


def _vips_tiffs() -> Iterator[ColourFile]:
    for codec, tiled, quality, grey, pyramid in product(
        ("none", "jpeg", "deflate", "lzw", "packbits", "webp"),
        (True, False),
        (75, 95),
        (False, True),
        (False, True),
    ):
        if (codec != "jpeg" and quality == 75) or (codec == "webp" and (grey or not tiled)):
            continue
        if pyramid and not tiled:
            continue
        loss = "none" if codec not in ("jpeg", "webp") else "webp"
        yield ColourFile(
            name=_name("vips", codec, "tiles" if tiled else "strips", f"q{quality}",
                       "grey" if grey else "rgb", "pyramid" if pyramid else "flat"),
            writer="libvips",
            write=_vips_writer(codec, tiled, quality, grey, pyramid),
            loss=LOSS[loss],
            grey=grey,
        )  # fmt: skip


def _vips_writer(
    codec: str, tiled: bool, quality: int, grey: bool, pyramid: bool
) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        import pyvips

        image = picture()[..., 1:2] if grey else picture()
        data = pyvips.Image.new_from_array(np.ascontiguousarray(image))
        data = data.copy(interpretation="b-w" if grey else "srgb")
        data.tiffsave(
            str(path), compression=codec, tile=tiled, tile_width=TILE, tile_height=TILE,
            Q=quality, pyramid=pyramid,
        )  # fmt: skip

    return write


SYNTAXES = {
    "raw": "1.2.840.10008.1.2.1",
    "jpeg": "1.2.840.10008.1.2.4.50",
    "jpeg2000": "1.2.840.10008.1.2.4.90",
    "jpegls": "1.2.840.10008.1.2.4.80",
    "htj2k": "1.2.840.10008.1.2.4.201",
}


def _dicoms() -> Iterator[ColourFile]:
    cases: list[tuple[str, str, str, float]] = []
    for codec in ("raw", "jpegls", "jpeg2000", "htj2k"):
        cases += [(codec, "RGB", "", 0.0), (codec, "YBR_FULL", "", 1.0)]
        cases.append((codec, "MONOCHROME2", "", 0.0))
    cases += [("raw", "RGB", "planar", 0.0), ("raw", "YBR_FULL", "planar", 1.0)]
    cases += [("raw", "YBR_FULL_422", "", 3.0), ("jpeg2000", "YBR_RCT", "mct", 0.0)]
    cases += [("raw", "MONOCHROME1", "", 0.0)]
    for space, subsampling, marker, said in product(
        ("rgb", "ycbcr"),
        ("444", "422", "420"),
        ("bare", "jfif", "adobe"),
        ("RGB", "YBR_FULL", "YBR_FULL_422"),
    ):
        if space == "rgb" and (subsampling != "444" or (said != "RGB" and marker != "adobe")):
            continue
        cases.append(("jpeg", said, f"{space}.{subsampling}.{marker}", LOSS[subsampling]))
    for codec, said, how, loss in cases:
        yield ColourFile(
            name=f"dicom-{codec}-{said}-{how or 'plain'}.dcm",
            writer="pydicom",
            write=_dicom_writer(codec, said, how),
            loss=loss,
            grey=said.startswith("MONO"),
            refused=said.startswith("MONO"),
        )


def _frame(codec: str, said: str, how: str, tile: U8) -> bytes:
    tile = np.ascontiguousarray(tile)
    if codec == "jpeg":
        space, subsampling, marker = how.split(".")
        return jpeg_stream(tile, space=space, subsampling=subsampling, marker=marker)
    if said.startswith("MONO"):
        tile = np.ascontiguousarray(tile[..., 1])
        tile = 255 - tile if said == "MONOCHROME1" else tile
    elif said.startswith("YBR_FULL"):
        tile = rgb_to_ycbcr(tile)
    if said == "YBR_FULL_422":
        pairs = tile.reshape(-1, 2, 3).astype(np.uint16)
        chroma = (pairs[:, 0, 1:] + pairs[:, 1, 1:] + 1) // 2
        return np.concatenate([pairs[:, :, 0], chroma], axis=1).astype(np.uint8).tobytes()
    if codec == "raw":
        return (np.moveaxis(tile, 2, 0) if how == "planar" else tile).tobytes()
    if codec == "jpegls":
        return bytes(imagecodecs.jpegls_encode(tile))
    if codec == "htj2k":
        return bytes(imagecodecs.htj2k_encode(tile, reversible=True, rgb=said == "RGB"))
    return bytes(
        imagecodecs.jpeg2k_encode(tile, reversible=True, codecformat="j2k", mct=how == "mct")
    )


def _dicom_writer(codec: str, said: str, how: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.encaps import encapsulate

        data = Dataset()
        data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
        series = f"1.2.826.0.1.{crc32(f'{codec}{said}{how}'.encode())}"
        data.SOPInstanceUID, data.SeriesInstanceUID = f"{series}.1", series
        data.StudyInstanceUID, data.Modality = "1.2.826.0.1.3", "SM"
        data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        data.Rows = data.Columns = TILE
        data.TotalPixelMatrixColumns = data.TotalPixelMatrixRows = SIDE
        data.SamplesPerPixel = 1 if said.startswith("MONO") else 3
        data.PhotometricInterpretation = said
        data.PlanarConfiguration = int(how == "planar")
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit, data.PixelRepresentation = 7, 0
        data.DimensionOrganizationType = "TILED_FULL"
        data.TotalPixelMatrixFocalPlanes = data.NumberOfOpticalPaths = 1
        spacing, shared, optics = Dataset(), Dataset(), Dataset()
        spacing.PixelSpacing, spacing.SliceThickness = [0.00025, 0.00025], 0.001
        shared.PixelMeasuresSequence = [spacing]
        data.SharedFunctionalGroupsSequence = [shared]
        optics.OpticalPathIdentifier, optics.ObjectiveLensPower = "1", 40
        data.OpticalPathSequence = [optics]
        frames = [_frame(codec, said, how, tile) for tile in _tiles(picture(), True)]
        data.NumberOfFrames = len(frames)
        data.PixelData = b"".join(frames) if codec == "raw" else encapsulate(frames)
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = codec != "raw"
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = data.SOPClassUID
        meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        meta.TransferSyntaxUID = SYNTAXES[codec]
        data.file_meta = meta
        data.save_as(path, enforce_file_format=True)

    return write
