"""What is known of the alignment of one pair, and the gate that decides about it.

Lengths are HR pixels in the pixel-edge convention: pixel ``i`` covers ``[i, i + 1)``.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import isfinite

Affine = tuple[tuple[float, float, float], tuple[float, float, float]]
"""A 2x3 matrix ``((a, b, tx), (c, d, ty))``: ``X = a x + b y + tx``, ``Y = c x + d y + ty``."""


class Verdict(StrEnum):
    """Whether a pair is good enough to learn from."""

    ACCEPT = "accept"
    REJECT = "reject"


class Method(StrEnum):
    """How the place of an LR patch is found."""

    SUBPIXEL = "subpixel"
    """Translation to about 0.02 HR px (default)."""
    NCC_INTEGER = "ncc-integer"
    """The paper's: bicubic enlargement, normalised cross-correlation, whole-pixel argmax."""
    AFFINE = "affine"
    """Translation, then an affine refinement: pairs from two scans."""


class Reason(StrEnum):
    """Why a pair was rejected: few fixed sentences, so that drops can be counted."""

    TEXTURE = "too little texture to match"
    PLACE = "the patches do not show the same place (band NCC too low)"
    OUTSIDE = "the match lies outside the search region"
    SEAM = "a seam of the stitching runs through the patch"
    SPREAD = "parts of the patch ask for different shifts"
    NO_CONVERGENCE = "the affine map did not converge"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Thresholds of acceptance.

    Attributes
    ----------
    min_ncc_band : float
        Least correlation of the band-passed patches after alignment. Good pairs measured
        0.84 or more, unrelated ones and those out of range 0.14 or less.
    max_spread_px : float
        Largest disagreement of the parts of a patch (`PairCertificate.spread`), HR px.
    max_edge_px : float
        How far beyond the search region the match may lie, HR px: half a pixel still rounds
        to a crop inside.
    min_texture : float
        Least structure of the LR patch, grey levels per LR px: the root of the smaller
        eigenvalue of its mean structure tensor. Below it there is nothing to match.
    """

    min_ncc_band: float = 0.80
    max_spread_px: float = 0.5
    max_edge_px: float = 0.5
    min_texture: float = 0.5


ONE_SLIDE = Gate()
"""For levels of one slide."""

TWO_SCANS = Gate(max_spread_px=1.0)
"""For two scans of one glass, after the affine refinement."""


@dataclass(frozen=True, kw_only=True)
class PairCertificate:
    """Where an LR patch lies in its HR search region, and how sure that is.

    Attributes
    ----------
    method : str
        ``"subpixel"``, ``"ncc-integer"`` or ``"affine"``.
    scale : float
        HR px per LR px of the crop: a whole number of every pair that is stored.
    dx, dy : float
        Top-left corner of the LR footprint in the search region, HR px, pixel edges: whole
        numbers mean exactly the crop ``hr_region[dy : dy + scale * h, dx : dx + scale * w]``.
        With the affine method the crop is the one whose centre lies where the map sends the
        centre of the LR patch.
    offset_x, offset_y : int
        The crop to take: `dx`, `dy` rounded and kept inside the region (`ncc-integer`: the
        argmax of the paper's method), HR px.
    residual_x, residual_y : float
        The rest, ``dx - offset_x`` and ``dy - offset_y``, HR px.
    ncc : float
        Normalised cross-correlation of the grey patches, -1 to 1; 0 where there is none. For
        `ncc-integer` the paper's value at the argmax, else on the LR grid.
    ncc_band : float
        The same of the band-passed patches on the LR grid (difference of Gaussians of 0.8 and
        4 LR px): the value that separates right from wrong.
    spread : float
        Largest difference, on either axis, between the shifts that the four quarters and the
        middle of the patch ask for, HR px. Affine: what is left after the map, or twice the
        middle's own shift where that is more. It follows the true error.
    error : float
        The true place lies within this many HR px with a probability of 95 %, calibrated on
        truth (`wsisr.registration.parts`); 1000 where no place was found.
    sharpness : float
        Fine detail of the LR against that of the box-averaged HR (ratio of band variances,
        each relative to its coarse structure): 1 = as sharp as an ideal pixel aperture,
        below 1 blurrier, above 1 sharpened or noisy.
    texture : float
        Structure of the LR patch, grey levels per LR px (see `Gate.min_texture`).
    affine : 2x3 nested tuple of float
        LR px -> HR px of the search region, pixel edges on both sides.
    reason : str
        Empty, or a `Reason`; the numbers behind it are in the other fields.
    """

    method: str
    scale: float
    dx: float
    dy: float
    offset_x: int
    offset_y: int
    residual_x: float
    residual_y: float
    ncc: float
    ncc_band: float
    spread: float
    error: float
    sharpness: float
    texture: float
    affine: Affine
    verdict: Verdict
    reason: str = ""

    def __post_init__(self) -> None:
        for name in FLOAT_COLUMNS:
            if not isfinite(getattr(self, name)):
                raise ValueError(f"{name} of a certificate must be finite")

    @property
    def accepted(self) -> bool:
        return self.verdict is Verdict.ACCEPT

    def columns(self) -> dict[str, int | float | str | Affine]:
        """One row for a table; names and order as in the store (design 4)."""
        row: dict[str, int | float | str | Affine] = {
            "offset_x": self.offset_x,
            "offset_y": self.offset_y,
        }
        for name in FLOAT_COLUMNS[2:]:
            row[name] = float(getattr(self, name))
        row["affine"] = self.affine
        row["verdict"] = str(self.verdict)
        row["reason"] = self.reason
        return row


FLOAT_COLUMNS = (
    "dx",
    "dy",
    "residual_x",
    "residual_y",
    "ncc",
    "ncc_band",
    "spread",
    "error",
    "sharpness",
    "texture",
)


def translation_affine(scale: float, dx: float, dy: float) -> Affine:
    """The map of a pure translation, LR px -> HR px of the region, pixel edges."""
    return ((float(scale), 0.0, float(dx)), (0.0, float(scale), float(dy)))
