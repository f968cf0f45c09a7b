"""Small slides of every kind, written to order for the tests of `wsisr.slides`."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from wsisr.arrays import UInt8Array
from wsisr.slides.protocol import Slide

APERIO = "Aperio Image Library v11.2.1 \r\n{w}x{h} (256x256) {codec}|AppMag = 40|MPP = 0.2500"


def picture(width: int, height: int, seed: int = 0) -> UInt8Array:
    """A smooth picture with texture at every scale, so that a shift by one pixel shows."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    planes = []
    for channel in range(3):
        waves = (
            20 * np.sin(x / (5 + channel))
            + 20 * np.cos(y / (7 + channel))
            + 15 * np.sin((x + 2 * y) / 31)
        )
        planes.append(170 + waves + rng.normal(0, 6, (height, width)))
    return np.clip(np.stack(planes, axis=2), 0, 255).astype(np.uint8)


def whole(slide: Slide, level: int = 0) -> UInt8Array:
    """All of a level."""
    info = slide.info.levels[level]
    return slide.read_level(level, 0, 0, info.width_px, info.height_px)


def box_level(image: UInt8Array, factor: int) -> UInt8Array:
    """A level as scanners make it: block means, the rest of the last block dropped."""
    height, width = image.shape[0] // factor, image.shape[1] // factor
    blocks = image[: height * factor, : width * factor].astype(np.float64)
    blocks = blocks.reshape(height, factor, width, factor, 3)
    return np.floor(blocks.mean(axis=(1, 3)) + 0.5).astype(np.uint8)


def tiles_of(image: UInt8Array, size: int, missing: set[int]) -> Iterator[UInt8Array | None]:
    """Tiles for tifffile, None where never scanned (the first one must not be)."""
    number = 0
    for y in range(0, image.shape[0], size):
        for x in range(0, image.shape[1], size):
            tile = np.zeros((size, size, 3), np.uint8)
            part = image[y : y + size, x : x + size]
            tile[: part.shape[0], : part.shape[1]] = part
            yield None if number in missing else tile
            number += 1


def write_pyramid(
    path: Path,
    levels: list[UInt8Array],
    *,
    tile: int = 256,
    compression: str | None = "jpeg",
    quality: int | None = None,
    photometric: str = "rgb",
    subsampling: tuple[int, int] | None = None,
    description: str | None = None,
    software: str | None = None,
    um_per_px: float | None = None,
    predictor: bool = False,
    iccprofile: bytes | None = None,
    missing: set[int] | None = None,
) -> Path:
    """Write a tiled pyramidal TIFF; `missing` are tile numbers of level 0."""
    args: dict[str, object] = {}
    if quality is not None:
        args["level"] = quality
    if compression == "jpeg":
        # Told that data are RGB, tifffile stores them as YCbCr; told YCbCr, it believes it.
        args["outcolorspace"] = photometric
    with tifffile.TiffWriter(path) as tiff:
        for index, image in enumerate(levels):
            data = image if missing is None or index else tiles_of(image, tile, missing)
            resolution = None if um_per_px is None else (1e4 / (um_per_px * 2**index),) * 2
            tiff.write(
                data,
                shape=image.shape,
                dtype=np.uint8,
                tile=(tile, tile),
                photometric="rgb",
                compression=compression,
                compressionargs=args or None,
                predictor=predictor,
                subsampling=subsampling,
                description=description if index == 0 else None,
                software=software if index == 0 else None,
                iccprofile=iccprofile,
                subfiletype=1 if index else 0,
                resolution=resolution,
                resolutionunit=None if resolution is None else "CENTIMETER",
                metadata=None,
            )
    return path


def write_aperio(path: Path, levels: list[UInt8Array], compression: str = "jpeg") -> Path:
    """An Aperio-like SVS; JPEG as RGB without colour transform, as the real ones."""
    height, width = levels[0].shape[:2]
    codec = "JPEG/RGB Q=70" if compression == "jpeg" else "J2K/KDU Q=70"
    return write_pyramid(
        path,
        levels,
        compression=compression,
        quality=70 if compression == "jpeg" else None,
        description=APERIO.format(w=width, h=height, codec=codec),
    )


def write_dicom(
    path: Path,
    image: UInt8Array,
    *,
    tile: int = 128,
    um_per_px: float = 0.5,
    series: str = "1.2.826.0.1.3680043.8.498.1",
    sparse_order: list[int] | None = None,
    kind: str = "VOLUME",
    part: tuple[int, int] | None = None,
    further: Sequence[UInt8Array] = (),
    change: Callable[[Any], None] = lambda data: None,
) -> Path:
    """A DICOM whole-slide image with uncompressed-equal JPEG 2000 (reversible) frames.

    `sparse_order` writes TILED_SPARSE with only these tiles, in this order; `part` writes frames
    ``[first, last)`` of a concatenation; frames of `further` images follow as those of other
    planes do, and `change` has the last word on the header.
    """
    import imagecodecs
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless, generate_uid

    height, width = image.shape[:2]
    columns = -(-width // tile)
    frames = [
        imagecodecs.jpeg2k_encode(block, level=0, reversible=True, codecformat="j2k")
        for one in (image, *further)
        for block in tiles_of(one, tile, set())
    ]
    order = sparse_order if sparse_order is not None else list(range(len(frames)))
    if part is not None:
        order = order[part[0] : part[1]]
    data = Dataset()
    data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
    data.SOPInstanceUID = generate_uid()
    data.SeriesInstanceUID = series
    data.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.2"
    data.Modality = "SM"
    data.ImageType = ["DERIVED", "PRIMARY", kind, "NONE"]
    data.Rows = data.Columns = tile
    data.TotalPixelMatrixColumns, data.TotalPixelMatrixRows = width, height
    data.NumberOfFrames = len(order)
    data.SamplesPerPixel, data.PhotometricInterpretation = 3, "RGB"
    data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    measures = Dataset()
    measures.PixelSpacing = [um_per_px / 1000, um_per_px / 1000]
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    data.SharedFunctionalGroupsSequence = [shared]
    optics = Dataset()
    optics.ObjectiveLensPower = 20.0
    data.OpticalPathSequence = [optics]
    if sparse_order is None:
        data.DimensionOrganizationType = "TILED_FULL"
    else:
        data.DimensionOrganizationType = "TILED_SPARSE"
        groups = []
        for number in order:
            place, group = Dataset(), Dataset()
            at = number % (columns * -(-height // tile))
            place.ColumnPositionInTotalImagePixelMatrix = at % columns * tile + 1
            place.RowPositionInTotalImagePixelMatrix = at // columns * tile + 1
            group.PlanePositionSlideSequence = [place]
            groups.append(group)
        data.PerFrameFunctionalGroupsSequence = groups
    if part is not None:
        data.ConcatenationUID = series + ".9"
        data.ConcatenationFrameOffsetNumber = part[0]
    data.PixelData = encapsulate([frames[number] for number in order])
    data["PixelData"].is_undefined_length = True
    data["PixelData"].VR = "OB"
    change(data)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    meta.TransferSyntaxUID = JPEG2000Lossless
    data.file_meta = meta
    data.save_as(path, enforce_file_format=True)
    return path
