"""From a slide's levels and a manifest to the geometry of its patches: pure.

Decides what is read natively, what is made and from what, and refuses what would be inexact.
"""

from dataclasses import replace

from wsisr.building.manifest import Manifest
from wsisr.errors import MagnificationError, MppError
from wsisr.geometry import Layer, PatchGeometry, patch_geometry
from wsisr.magnification import downsample_factor, nominal_magnification, parse_magnification
from wsisr.slides.protocol import SlideInfo

UPSAMPLING_TOLERANCE = 1e-3
"""A slide this much coarser than a physical resolution still counts as having it."""


def plan_geometry(
    info: SlideInfo,
    manifest: Manifest,
    slide_id: str,
    *,
    barred: frozenset[int] = frozenset(),
) -> PatchGeometry:
    """Layers of every patch of a slide.

    Parameters
    ----------
    info : SlideInfo
        The opened slide.
    slide_id : str
        Name for messages.
    barred : frozenset of int
        Levels that give no LR.

    Raises
    ------
    MppError
        If the slide states no usable resolution.
    MagnificationError
        If HR would have to be upsampled, a scale is not exact, or a native level is required
        and missing; the message says what the slide has and what to ask for.
    """
    declared = None if manifest.images is None else manifest.images.magnification
    if info.mpp is None and declared is None:
        raise MppError(
            info.mpp_problem
            or f"{slide_id}: the file states no resolution. Give it with --mpp-override CSV "
            "(columns slide,mpp)."
        )
    hr_power = parse_magnification(manifest.hr)
    nominal = _nominal(info, manifest, declared, slide_id)
    if manifest.mpp is not None and info.mpp is not None:
        hr_factor = manifest.mpp / info.mpp.value
        if hr_factor < 1.0 - UPSAMPLING_TOLERANCE:
            raise MagnificationError(
                f"{slide_id} has {info.mpp.value:.4g} um/px, coarser than the {manifest.mpp:g} "
                "um/px asked for, and HR is never upsampled; ask for "
                f"--mpp {info.mpp.value:.4g} or more."
            )
        hr_factor = 1.0 if abs(hr_factor - 1.0) <= UPSAMPLING_TOLERANCE else hr_factor
    else:
        hr_factor = float(downsample_factor(nominal or 0, hr_power, slide_id))
    hr = _layer(info, manifest, manifest.hr, hr_factor, None, slide_id)
    layers = [hr]
    allowed = replace(info, levels=tuple(v for v in info.levels if v.index not in barred))
    for name in manifest.lr:
        scale = hr_power / parse_magnification(name)
        if manifest.mpp is None:
            downsample_factor(nominal or 0, parse_magnification(name), slide_id)
        layers.append(_layer(allowed, manifest, name, hr_factor * scale, hr, slide_id))
    return patch_geometry(tuple(layers), tuple(level.factor for level in info.levels))


def _nominal(
    info: SlideInfo, manifest: Manifest, declared: str | None, slide_id: str
) -> int | None:
    """What the slide's pixels are called: as the manifest declares its images, or by their size."""
    if declared is not None:
        return round(parse_magnification(declared))
    if manifest.mpp is not None or info.mpp is None:
        return None
    nominal = nominal_magnification(info.mpp.value)
    if nominal is None:
        raise MagnificationError(
            f"{slide_id} has {info.mpp.value:.4g} um/px, which is none of 80x, 40x, 20x, 10x "
            "and 5x (0.125 to 2 um/px, within 20 %); ask for a physical resolution with --mpp, "
            "or correct it with --mpp-override."
        )
    return nominal


def _layer(
    info: SlideInfo,
    manifest: Manifest,
    name: str,
    factor: float,
    hr: Layer | None,
    slide_id: str,
) -> Layer:
    """A stored level of just this factor if one may be used, else a reduction.

    HR may come from a stored level too (20x pairs of a 40x slide that stores 20x). A missing
    LR is made from the level that HR is read from: those pixels are read anyway, and another
    level between the two may be a recompression.
    """
    margin = manifest.margin_px if hr is None else 0
    size_px = manifest.size if hr is None else round(hr.size_px * hr.factor / factor)
    usable = [level for level in info.levels if level.factor is not None and level.exact]
    stored = next((level for level in usable if level.factor == factor), None)
    if hr is not None and manifest.native == "never":
        stored = None
    if stored is not None:
        return Layer(
            name=name,
            factor=factor,
            size_px=size_px,
            level=stored.index,
            reduction=1.0,
            margin_px=margin,
        )
    if hr is not None and manifest.native == "require":
        stored_factors = ", ".join(
            f"1/{level.factor}" if level.exact else f"1/{level.factor} (not exactly readable)"
            for level in info.levels
            if level.factor is not None
        )
        raise MagnificationError(
            f"{slide_id} does not store {name} (1/{factor:g}; it stores {stored_factors}), and the "
            f"manifest {manifest.name!r} forbids made levels (native: require); allow them with a "
            "manifest that says native: prefer."
        )
    base = hr.level if hr is not None else 0
    base_factor = 1 if hr is None else hr.factor / hr.reduction
    return Layer(
        name=name,
        factor=factor,
        size_px=size_px,
        level=base,
        reduction=factor / base_factor,
        margin_px=margin,
    )
