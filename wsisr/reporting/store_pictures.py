"""Sections of a store's page that are looked at: slides and pairs."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsisr.files import replace_file
from wsisr.reporting.page import Html, figure, flicker, grid, join, paragraph
from wsisr.reporting.store_drawings import SlideScene, slide_map
from wsisr.reporting.store_facts import StoreFacts
from wsisr.reporting.store_pairs import (
    PairView,
    choose_gallery,
    read_pair,
)

FloatArray = NDArray[np.float64]
GALLERY_PAIRS = 12
MAX_SLIDES = 1000
THUMBNAIL_BYTES = 6e6
JPEG_BYTES_PER_PX = 0.5
"""Of stained tissue at the page's quality."""
MAX_BOXES = 120_000
"""Patches that all drawings of a page show together."""


def scene_of(facts: StoreFacts, slide_id: str, limit: int = 600) -> tuple[SlideScene, Any] | None:
    """A slide as it is drawn, and the table positions of the drawn patches.

    None where the slide's resolution is not known, so that mask and patches do not fit together.
    """
    view, attributes = facts.store.slides[slide_id], facts.attributes[slide_id]
    mpp = attributes.get("mpp")
    mask = view.tissue()
    if not mpp or not mask.size:
        return None
    rows = facts.rows_per_slide[slide_id]
    if len(rows) > limit:
        rows = np.sort(np.random.default_rng(0).choice(rows, limit, replace=False))
    hr = view.spec(view.arrays[0])
    tissue = attributes.get("tissue") or {}
    scene = SlideScene(
        tissue=mask,
        um_per_px=float(tissue.get("um_per_px") or 8.0),
        level0_um_per_px=float(mpp["value"]),
        origins=np.stack([facts.table["x"][rows], facts.table["y"][rows]], axis=1).astype(float),
        field_px=hr.factor * hr.size_px,
        kept=facts.kept[rows],
    )
    return scene, rows


def thumbnail_side_px(slides: int) -> int:
    """Longer side of a slide's picture, so that all of them fit into `THUMBNAIL_BYTES`."""
    return int(np.clip((THUMBNAIL_BYTES / (JPEG_BYTES_PER_PX * slides)) ** 0.5, 96, 720))


def slides(facts: StoreFacts) -> Html:
    """Every slide: what the build saw of it, or its mask, with the patches."""
    count = min(len(facts.store.slides), MAX_SLIDES)
    side = thumbnail_side_px(count)
    limit = min(600, MAX_BOXES // count)
    items, drawn, as_built = [], 0, False
    for slide_id, attributes in list(facts.attributes.items())[:MAX_SLIDES]:
        rows = facts.rows_per_slide[slide_id]
        kept = int(facts.kept[rows].sum())
        words = f"{slide_id}: {kept:,} of {len(rows):,} pairs kept, {attributes.get('split')}"
        if str(attributes["patient"]) != slide_id:
            words += f", patient {attributes['patient']}"
        picture = facts.folder / "slides" / f"{slide_id}.png"
        alt = f"Slide {slide_id} with its tissue and {len(rows)} patches"
        if picture.is_file():
            shown = reframed(facts, slide_id, picture)
            as_built = as_built or shown is None
            items.append(figure(picture if shown is None else shown, alt, words, max_side_px=side))
            continue
        scene = scene_of(facts, slide_id, limit)
        if scene is not None:
            drawn += 1
            items.append(figure(slide_map(scene[0], title=alt), alt, words))
    legend = "Blue: kept. Orange: read, but refused. " + (
        "Tissue is filled." if drawn == len(items) else "Green: outline of the tissue."
    )
    if as_built and facts.store.attributes.get("keep"):
        legend += " Frames are as built: wsisr keep has decided anew since, the numbers are of now."
    if drawn and any(len(rows) > limit for rows in facts.rows_per_slide.values()):
        legend += f" At most {limit} patches of a slide are drawn."
    if count < len(facts.store.slides):
        legend += f" The first {count:,} of {len(facts.store.slides):,} slides are shown."
    return join([paragraph(legend), grid(*items, width_px=250 if count <= 80 else 190)])


def reframed(facts: StoreFacts, slide_id: str, picture: Path) -> NDArray[np.uint8] | None:
    """After `wsisr keep`, the build's picture of a slide with the frames that hold now.

    The file is rewritten too, so that who opens it sees what the page shows. None where nothing
    was decided anew, or the store does not say how wide the picture is.
    """
    levels = facts.attributes[slide_id].get("levels") or [{}]
    if not facts.store.attributes.get("keep") or "width_px" not in levels[0]:
        return None
    # Slide libraries come with it, and pages of stores that nobody decided anew need none.
    from wsisr.selection.preview import frame_patches, png_bytes

    rows = facts.rows_per_slide[slide_id]
    view = facts.store.slides[slide_id]
    hr = view.spec(view.arrays[0])
    with Image.open(picture) as opened:
        before = np.asarray(opened.convert("RGB"))
    origins = np.stack([facts.table["x"][rows], facts.table["y"][rows]], axis=1)
    drawn = frame_patches(
        before, levels[0]["width_px"], origins, facts.kept[rows], hr.factor * hr.size_px
    )
    if not np.array_equal(before, drawn):
        # A report folder that may not be written to still gets its page elsewhere.
        with suppress(OSError):
            replace_file(picture, png_bytes(drawn))
    return drawn


def pairs(facts: StoreFacts) -> Html:
    """A gallery of pairs that change between LR and HR."""
    if len(facts.store.arrays) < 2:
        return paragraph("The store has one magnification, and so no pairs.")
    items = [
        pair_flicker(facts, read_pair(facts, position))
        for position in choose_gallery(facts, GALLERY_PAIRS)
    ]
    return join(
        [
            paragraph(
                "Click a pair, or press Space on it, to change between LR (enlarged by nearest "
                "neighbour) and HR; hold to peek. Nothing may jump. The middle of each patch is "
                "shown, drawn from the slides by a fixed seed; HR is compressed for this page."
            ),
            grid(*items, width_px=280),
        ]
    )


def pair_flicker(facts: StoreFacts, pair: PairView) -> Html:
    """A pair that changes between its magnifications, with its certificate in words."""
    names = list(pair.images)
    words = f"{pair.slide_id}, row {pair.row}"
    label = facts.labels[pair.position]
    if label:
        words += f", {label}"
    for residual in list(facts.residuals.values())[-1:]:
        if np.isfinite(residual[pair.position]).all():
            words += f"; residual {np.hypot(*residual[pair.position]):.3f} px"
    band = facts.column("ncc_band")
    if band is not None and np.isfinite(band[pair.position]):
        words += f", agreement {band[pair.position]:.3f}"
    shown = {f"LR {name}": image for name, image in list(pair.images.items())[:-1]}
    shown[f"HR {names[-1]}"] = pair.images[names[-1]]
    return flicker(shown, f"Pair of {words}", words, pixelated=list(shown)[:-1])
