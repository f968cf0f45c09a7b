"""`--model auto`: the network that ships whose card fits the slide, or why none does."""

from pathlib import Path

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.errors import ConfigError
from wsisr.inference.shipped import AUTO, choose, serves, shipped
from wsisr.metrics.correctness import optical_density
from wsisr.selection.tissue import tissue_of
from wsisr.slides.opening import open_slide
from wsisr.slides.protocol import Slide
from wsisr.upscaling.job import UpscaleOptions
from wsisr.upscaling.source import plan_plane

LEAST_DENSITY = 0.12
LARGEST_BROWN_SHARE = 0.10
LEAST_GREEN_OVER_RED = 1.15
LEAST_TISSUE_PX = 50
_UNFIT = {"fluorescence": "it is dark where there is no tissue", "blank": "no tissue was found"}


def not_h_and_e(rgb: UInt8Array) -> str:
    """Why tissue does not look like haematoxylin and eosin; empty: it does.

    Eosin takes green light and haematoxylin red and green, so that of the two together the density
    in green exceeds that in red (1.4 to 3 times on slides of eight laboratories; 1.0 with
    haematoxylin alone). DAB takes more blue than green. Whether a section was frozen is not seen.

    Parameters
    ----------
    rgb : ndarray, shape (n, 3), uint8
        Tissue px of an overview.
    """
    density = optical_density(rgb[None])[0]
    stained = density[density.mean(axis=1) >= LEAST_DENSITY]
    if len(stained) < LEAST_TISSUE_PX:
        return "too little stained tissue was found to tell its stain"
    red, green, blue = stained.T
    brown = float((blue > green).mean())
    if brown > LARGEST_BROWN_SHARE:
        return f"{brown:.0%} of its tissue is brown or yellow, as with DAB"
    ratio = float(np.median(green) / max(float(np.median(red)), 1e-6))
    if ratio < LEAST_GREEN_OVER_RED:
        return f"no eosin is seen: tissue is {ratio:.2f} times as dense in green as in red"
    return ""


def fitting(source: Path, options: UpscaleOptions) -> tuple[str, float, str]:
    """Name of the shipped network for an input, its scale, and the sentence that says so.

    Raises
    ------
    ConfigError
        None fits: the resolution is unknown or outside of what they were trained for, or the stain
        is another one.
    """
    with open_slide(source, mpp=options.mpp) as slide:
        return _fitting(slide, options)


def _fitting(slide: Slide, options: UpscaleOptions) -> tuple[str, float, str]:
    info, name = slide.info, slide.info.path.name
    line = f"Name a network yourself: --model {' or '.join([*shipped(), 'bicubic'])}."
    if info.mpp is None:
        raise ConfigError(
            f"{name}: --model {AUTO} needs its resolution, which it does not state; give --mpp (um "
            f"per level-0 px). {line}"
        )
    plane = plan_plane(
        info, magnification=options.magnification, level_um_per_px=options.level_um_per_px
    )
    assert plane.um_per_px is not None
    um = (plane.um_per_px[0] * plane.um_per_px[1]) ** 0.5
    model, scale, why = choose(um, options.scale)
    if model is None:
        raise ConfigError(
            f"{name}: no network that ships fits an input of {um:.3g} um/px at x{scale:g} ({why}). "
            f"--from 10x begins at a coarser level. {line}"
        )
    stain = serves(model).stain
    tissue = tissue_of(slide)
    why = _UNFIT.get(tissue.kind, "")
    if not why and tissue.overview is not None:
        why = not_h_and_e(tissue.overview[tissue.mask])
    if why:
        raise ConfigError(
            f"{name}: the networks that ship were trained on {stain}, and this does not look like "
            f"it ({why}). {line}"
        )
    sentence = (
        f"--model {AUTO}: {model.name} at x{scale:g}, from {um:.3g} to {um / scale:.3g} um/px; it "
        f"looks like {stain}. Not seen: whether the section was frozen."
    )
    return model.name, scale, sentence
