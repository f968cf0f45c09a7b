"""What an OME-XML header says of the images of a TIFF: sizes, roles, channels, planes.

The schema is OME 2016-06: an Image has Pixels, Pixels have Channels and TiffData, and TiffData say
which directory (IFD) holds which plane (z, channel, t).
"""

import re
from dataclasses import dataclass
from itertools import product
from typing import Any

from wsisr.slides.tiff_tags import parse_xml

NO_SLIDE = re.compile(r"(?<![a-z])(label|macro|thumbnail|overview|barcode)(?![a-z])")
"""Names of images that show the glass or its label, in lower case."""
RGB_NAMES = ({"red", "r"}, {"green", "g"}, {"blue", "b"})
RGB_COLOURS = (0xFF0000, 0x00FF00, 0x0000FF)
MAX_PLANES = 20_000
_UNITS = {"µm": 1.0, "um": 1.0, "μm": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}


@dataclass(frozen=True, kw_only=True)
class OmeChannel:
    """A channel: its name, its colour as 0xRRGGBB (None if not stated), samples a pixel."""

    name: str
    colour: int | None
    samples: int


@dataclass(frozen=True, kw_only=True)
class OmeImage:
    """One image of the file.

    Attributes
    ----------
    planes_z, times : int
        Focal planes and time points.
    ifds : dict
        (z, channel, t) -> number of the directory in this file; planes that lie in other files
        are left out.
    um_per_px : tuple of float or None
        x and y.
    """

    name: str
    width_px: int
    height_px: int
    planes_z: int
    times: int
    channels: tuple[OmeChannel, ...]
    ifds: dict[tuple[int, int, int], int]
    um_per_px: tuple[float, float] | None

    @property
    def is_slide(self) -> bool:
        """Whether its name calls it neither label nor overview."""
        return NO_SLIDE.search(self.name.lower()) is None

    def channel_list(self) -> str:
        """The channels in words."""
        return ", ".join(
            (channel.name or f"channel {number} without a name")
            + ("" if channel.colour is None else f" (#{channel.colour:06x})")
            for number, channel in enumerate(self.channels, 1)
        )


def ome_images(description: str) -> tuple[OmeImage, ...]:
    """The images of an OME-XML description in its order; none if it is no sound OME-XML."""
    root = parse_xml(description)
    if root is None or str(root.tag).rpartition("}")[2] != "OME":
        return ()
    found = []
    for element in root.findall("{*}Image"):
        pixels = element.find("{*}Pixels")
        if pixels is None:
            continue
        try:
            found.append(_image(element.get("Name", ""), pixels, root.get("UUID", "")))
        except (TypeError, ValueError):
            return ()
    return tuple(found)


def slide_image(images: tuple[OmeImage, ...]) -> OmeImage | None:
    """The image to read: the largest that is no label or overview, the first among equals."""
    slides = [image for image in images if image.is_slide]
    return max(slides, key=lambda image: image.width_px * image.height_px, default=None)


def rgb_order(image: OmeImage) -> tuple[int, int, int] | None:
    """Which of three channels are red, green and blue, by their names, else by their colours."""
    if len(image.channels) != 3 or any(channel.samples != 1 for channel in image.channels):
        return None
    names = [channel.name.strip().lower() for channel in image.channels]
    colours = [channel.colour for channel in image.channels]
    for fits in (
        [[i for i, name in enumerate(names) if name in wanted] for wanted in RGB_NAMES],
        [[i for i, colour in enumerate(colours) if colour == wanted] for wanted in RGB_COLOURS],
    ):
        if all(len(found) == 1 for found in fits):
            return fits[0][0], fits[1][0], fits[2][0]
    return None


def _image(name: str, pixels: Any, own_uuid: str) -> OmeImage:
    size_z, size_c, size_t = (int(pixels.get(f"Size{axis}", "1")) for axis in "ZCT")
    channels = tuple(
        OmeChannel(
            name=child.get("Name", ""),
            colour=_colour(child.get("Color")),
            samples=int(child.get("SamplesPerPixel", "1")),
        )
        for child in pixels.findall("{*}Channel")
    )
    if not channels:
        channels = (OmeChannel(name="", colour=None, samples=size_c),)
    counts = {"Z": size_z, "C": len(channels), "T": size_t}
    if size_z * len(channels) * size_t > MAX_PLANES:
        raise ValueError("too many planes")
    return OmeImage(
        name=name,
        width_px=int(pixels.get("SizeX")),
        height_px=int(pixels.get("SizeY")),
        planes_z=size_z,
        times=size_t,
        channels=channels,
        ifds=_ifds(pixels, counts, own_uuid),
        um_per_px=_um(pixels),
    )


def _ifds(pixels: Any, counts: dict[str, int], own_uuid: str) -> dict[tuple[int, int, int], int]:
    order = pixels.get("DimensionOrder", "XYZCT")[2:]
    if sorted(order) != ["C", "T", "Z"]:
        raise ValueError(f"dimension order {order}")
    slowest_first = order[::-1]
    planes = []
    for index in product(*(range(counts[axis]) for axis in slowest_first)):
        place = dict(zip(slowest_first, index, strict=True))
        planes.append((place["Z"], place["C"], place["T"]))
    number_of = {plane: number for number, plane in enumerate(planes)}
    entries = pixels.findall("{*}TiffData")
    if not entries:
        return number_of
    found: dict[tuple[int, int, int], int] = {}
    for entry in entries:
        if entry.findtext("{*}UUID", own_uuid).strip() != own_uuid:
            continue
        first = tuple(int(entry.get(f"First{axis}", "0")) for axis in "ZCT")
        if first not in number_of:
            raise ValueError(f"no plane {first}")
        start = number_of[first[0], first[1], first[2]]
        ifd = int(entry.get("IFD", "0"))
        count = int(entry.get("PlaneCount", "1" if "IFD" in entry.attrib else str(len(planes))))
        for number, plane in enumerate(planes[start : start + count]):
            found[plane] = ifd + number
    return found


def _um(pixels: Any) -> tuple[float, float] | None:
    values = []
    for axis in "XY":
        try:
            size = float(pixels.get(f"PhysicalSize{axis}", ""))
        except ValueError:
            return None
        unit = _UNITS.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        if size <= 0 or unit is None:
            return None
        values.append(size * unit)
    return values[0], values[1]


def _colour(text: str | None) -> int | None:
    """OME keeps colours as signed 32-bit RGBA."""
    try:
        return None if text is None else (int(text) & 0xFFFFFFFF) >> 8
    except ValueError:
        return None
