"""What scanners write around the pixels: descriptions, tags, thumbnails, labels."""

from typing import TYPE_CHECKING

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.testing.writers import TiffPage, TiffWriter, TileCodec

if TYPE_CHECKING:
    from wsisr.testing.truth import SlideTruth


_STRIP = TileCodec(quality=80, ycbcr=True, subsampling="420")
THUMBNAIL_PX = 1024


def page_of_level(layout: str, index: int) -> int:
    """TIFF directory of a level; Aperio puts a thumbnail behind level 0."""
    return index + 1 if layout == "aperio" and index > 0 else index


def dress(
    truth: "SlideTruth", pages: list[TiffPage], icc: bytes | None, writer: TiffWriter
) -> list[TiffPage]:
    """Fill in the vendor's metadata and return all pages of the file in order."""
    if truth.layout == "philips":
        return _philips(truth, pages, icc, writer)
    if truth.layout == "aperio":
        return _aperio(truth, pages, icc, writer)
    for index, page in enumerate(pages):
        page.subfile_type = 0 if index == 0 else 1
        page.software = "wsisr synthetic slide"
        page.icc = icc
        if truth.stated_um_per_px is not None:
            page.um_per_px = truth.stated_um_per_px * truth.levels[index].factor
    return pages


def _philips(
    truth: "SlideTruth", pages: list[TiffPage], icc: bytes | None, writer: TiffWriter
) -> list[TiffPage]:
    for index, page in enumerate(pages):
        page.subfile_type = 0 if index == 0 else 1
        page.software = "Philips DP v1.0"
        page.make = "PHILIPS"
    pages[0].description = _philips_xml(truth)
    pages[0].icc = icc
    macro = _strip_page(writer, _overview(truth, 600))
    macro.description, macro.subfile_type = "Macro", 1
    label = _strip_page(writer, _label())
    label.description, label.subfile_type = "Label", 1
    return [*pages, macro, label]


def _philips_xml(truth: "SlideTruth") -> str:
    """The DICOM-like description; pixel spacings are in mm, quoted."""

    def attribute(name: str, group: str, element: str, kind: str, value: str) -> str:
        return (
            f'<Attribute Name="{name}" Group="{group}" Element="{element}" '
            f'PMSVR="{kind}">{value}</Attribute>'
        )

    def spacing(um: float) -> str:
        value = f'"{um / 1000:.9g}" "{um / 1000:.9g}"'
        return attribute("DICOM_PIXEL_SPACING", "0x0028", "0x0030", "IDoubleArray", value)

    um = truth.stated_um_per_px
    representations = []
    for level in truth.levels:
        parts = [] if um is None else [spacing(um * level.factor)]
        parts += [
            attribute(
                "PIIM_DP_PIXEL_DATA_REPRESENTATION_POSITION",
                "0x101D",
                "0x100B",
                "IDoubleArray",
                '"0" "0" "0"',
            ),
            attribute(
                "PIIM_PIXEL_DATA_REPRESENTATION_COLUMNS",
                "0x2001",
                "0x115E",
                "IUInt32",
                str(level.stored_width_px),
            ),
            attribute(
                "PIIM_PIXEL_DATA_REPRESENTATION_NUMBER",
                "0x1001",
                "0x8B02",
                "IUInt16",
                str(level.index),
            ),
            attribute(
                "PIIM_PIXEL_DATA_REPRESENTATION_ROWS",
                "0x2001",
                "0x115D",
                "IUInt32",
                str(level.stored_height_px),
            ),
        ]
        representations.append(
            f'<DataObject ObjectType="PixelDataRepresentation">{"".join(parts)}</DataObject>'
        )
    image = [
        attribute("PIM_DP_IMAGE_TYPE", "0x301D", "0x1004", "IString", "WSI"),
        "" if um is None else spacing(um),
        '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" Group="0x1001" '
        'Element="0x8B01" PMSVR="IDataObjectArray"><Array>'
        f"{''.join(representations)}</Array></Attribute>",
    ]
    return (
        '<?xml version="1.0" encoding="UTF-8" ?>\n<DataObject ObjectType="DPUfsImport">'
        + attribute("DICOM_MANUFACTURER", "0x0008", "0x0070", "IString", "PHILIPS")
        + '<Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" '
        'PMSVR="IDataObjectArray"><Array><DataObject ObjectType="DPScannedImage">'
        + "".join(image)
        + "</DataObject></Array></Attribute></DataObject>"
    )


def _aperio(
    truth: "SlideTruth", pages: list[TiffPage], icc: bytes | None, writer: TiffWriter
) -> list[TiffPage]:
    um = truth.stated_um_per_px
    full = f"{truth.width_px}x{truth.height_px}"
    colour = "YCC" if truth.ycbcr else "RGB"
    storage = {"jpeg": f"JPEG/{colour} Q={truth.quality}", "jpeg2000": "J2K/RGB Q=100"}
    how = storage.get(truth.codec, truth.codec.upper())
    power = 10.0 / truth.um_per_px
    nominal = min((5, 10, 20, 40, 80), key=lambda m: abs(m - power))
    properties = f"|AppMag = {nominal}|StripeWidth = 2040|ScanScope ID = SYNTHETIC"
    if um is not None:
        properties += f"|MPP = {um:.4f}"
    tile = truth.levels[0].tile_px
    head = "Aperio Image Library v12.0.16\r\n"
    for level, page in zip(truth.levels, pages, strict=True):
        reduced = f" -> {level.width_px}x{level.height_px}" if level.index else ""
        page.description = f"{head}{full} [0,0 {full}] ({tile}x{tile}){reduced} {how}{properties}"
        page.icc = icc
    overview = _overview(truth, THUMBNAIL_PX)
    thumbnail = _strip_page(writer, overview)
    size = f"{thumbnail.width_px}x{thumbnail.height_px}"
    thumbnail.description = f"{head}{full} -> {size} - {properties}"
    label = _strip_page(writer, _label())
    label.description = f"{head}label {label.width_px}x{label.height_px}"
    label.subfile_type = 1
    macro = _strip_page(writer, _overview(truth, 600))
    macro.description = f"{head}macro {macro.width_px}x{macro.height_px}"
    macro.subfile_type = 9
    return [pages[0], thumbnail, *pages[1:], label, macro]


def _strip_page(writer: TiffWriter, rgb: UInt8Array) -> TiffPage:
    height, width = rgb.shape[:2]
    page = TiffPage(width_px=width, height_px=height, tile_px=0, codec=_STRIP)
    writer.write_tile(page, 0, 0, rgb)
    return page


def _overview(truth: "SlideTruth", longest_px: int) -> UInt8Array:
    """A small flat drawing of the slide: outlines filled with one colour, no texture."""
    step = max(truth.width_px, truth.height_px) / longest_px
    mask = truth.tissue_mask(step * truth.um_per_px)
    rgb = np.empty((*mask.shape, 3), np.uint8)
    rgb[:] = truth.scene.background_rgb
    rgb[mask] = (10, 20, 90) if truth.scene.kind == "fluorescence" else (208, 140, 182)
    return rgb


def _label() -> UInt8Array:
    """A paper label with a bar pattern."""
    rgb = np.full((200, 200, 3), 250, np.uint8)
    bars = np.random.default_rng(0).random(40) < 0.5
    rgb[60:140, :, :] = np.where(np.repeat(bars, 5), 20, 250).astype(np.uint8)[None, :, None]
    return rgb
