"""What was chosen on a slide, as a picture."""

from wsisr.arrays import UInt8Array
from wsisr.drawing.overlays import INVALID, PEN, slide_overlay
from wsisr.selection.annotation_formats.geojson import COLOURS, OTHER_COLOUR
from wsisr.selection.annotations import Annotations
from wsisr.selection.regions import polygon_parts
from wsisr.selection.tissue_map import TissueMap

MAX_SIDE_PX = 2400


def overlay_picture(
    tissue: TissueMap,
    *,
    annotations: Annotations | None = None,
    max_side_px: int = MAX_SIDE_PX,
) -> UInt8Array:
    """Overview with the tissue's outline, pen, invalid areas and annotations.

    Parameters
    ----------
    tissue : TissueMap
        With its overview; without one the outline stands on white.
    max_side_px : int
        Larger overviews are reduced.

    Returns
    -------
    ndarray, shape (h, w, 3), uint8
    """
    rings = [
        (ring.coords, COLOURS.get(region.label, OTHER_COLOUR))
        for region in (annotations.regions if annotations else ())
        for part in polygon_parts(region.polygon)
        for ring in (part.exterior, *part.interiors)
    ]
    return slide_overlay(
        tissue.mask,
        overview=tissue.overview,
        veils=((tissue.pen, PEN), (tissue.invalid, INVALID)),
        rings=rings,
        px_per_mask_px=tissue.factor,
        max_side_px=max_side_px,
    )
