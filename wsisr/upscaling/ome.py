"""OME-XML (schema 2016-06) of an output, with its provenance.

Element order is the schema's. The whole text is ASCII, so that readers which expect that of a TIFF
description are content. Nothing in it depends on the time of day: the same run gives the same file.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
PROVENANCE = "wsisr.upscale/1"
SCHEMA = f"{NAMESPACE} {NAMESPACE}/ome.xsd"
NOTICE = "super-resolved by a neural network; not for diagnosis"
NOTICE_INTERPOLATED = "enlarged by interpolation; not for diagnosis"


@dataclass(frozen=True, kw_only=True)
class OmeFacts:
    """What the metadata says.

    Attributes
    ----------
    name : str
        Image name.
    magnification : float or None
        Nominal, of the output.
    notice : str
        One sentence; first thing in the description.
    channels : int
        1 (grey) or 3 (RGB).
    planes : tuple of str
        Names of channels that are a page each, as in a map; empty for a picture.
    type : str
        Of the samples.
    """

    name: str
    width_px: int
    height_px: int
    um_per_px: tuple[float, float] | None
    magnification: float | None
    notice: str
    provenance: Mapping[str, str]
    channels: int = 3
    planes: tuple[str, ...] = ()
    type: Literal["uint8", "float"] = "uint8"


def ome_xml(facts: OmeFacts) -> str:
    """The document."""
    ElementTree.register_namespace("", NAMESPACE)
    xsi = "{http://www.w3.org/2001/XMLSchema-instance}"

    def element(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
        return ElementTree.SubElement(parent, f"{{{NAMESPACE}}}{tag}", attributes)

    root = ElementTree.Element(f"{{{NAMESPACE}}}OME", {f"{xsi}schemaLocation": SCHEMA})
    identity = "\0".join(f"{k}={v}" for k, v in sorted(facts.provenance.items()))
    root.set("UUID", f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, PROVENANCE + identity)}")
    root.set("Creator", facts.provenance.get("wsisr", "wsisr"))
    if facts.magnification is not None:
        instrument = element(root, "Instrument", ID="Instrument:0")
        power = f"{facts.magnification:g}"
        element(instrument, "Objective", ID="Objective:0", NominalMagnification=power)
    image = element(root, "Image", ID="Image:0", Name=_clean(facts.name))
    description = element(image, "Description")
    lines = [facts.notice, *(f"{key}: {value}" for key, value in facts.provenance.items())]
    description.text = _clean("\n".join(lines))
    if facts.magnification is not None:
        element(image, "InstrumentRef", ID="Instrument:0")
        element(image, "ObjectiveSettings", ID="Objective:0")
    sizes = {"SizeX": str(facts.width_px), "SizeY": str(facts.height_px)}
    physical: dict[str, str] = {}
    if facts.um_per_px is not None:
        # The schema's default unit is the micrometre; leaving it out keeps the text ASCII.
        physical = {
            f"PhysicalSize{a}": f"{v:.9g}" for a, v in zip("XY", facts.um_per_px, strict=True)
        }
    pixels = element(
        image,
        "Pixels",
        ID="Pixels:0",
        DimensionOrder="XYCZT",
        Type=facts.type,
        SignificantBits="8" if facts.type == "uint8" else "32",
        Interleaved="true" if facts.channels > 1 else "false",
        BigEndian="false",
        SizeZ="1",
        SizeC=str(len(facts.planes) or facts.channels),
        SizeT="1",
        **sizes,
        **physical,
    )
    name = "RGB" if facts.channels > 1 else "Grey"
    samples = str(facts.channels)
    for number, channel in enumerate(facts.planes or (name,)):
        identifier = f"Channel:0:{number}"
        element(pixels, "Channel", ID=identifier, SamplesPerPixel=samples, Name=_clean(channel))
    element(pixels, "TiffData", IFD="0", PlaneCount=str(len(facts.planes) or 1))
    element(image, "AnnotationRef", ID="Annotation:0")
    annotations = element(root, "StructuredAnnotations")
    mapping = element(annotations, "MapAnnotation", ID="Annotation:0", Namespace=PROVENANCE)
    value = element(mapping, "Value")
    for key, text in {"notice": facts.notice, **facts.provenance}.items():
        element(value, "M", K=_clean(key)).text = _clean(text)
    body = ElementTree.tostring(root, encoding="us-ascii", xml_declaration=False).decode("ascii")
    return '<?xml version="1.0" encoding="UTF-8"?>' + body


def _clean(text: str) -> str:
    """Without characters that XML cannot hold (file names may have them)."""
    return re.sub("[^\t\n -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text)
