"""Focal planes of one field: where each lies against the sharpest, with the certificate of a pair.

Planes of a z-stack are two scans at x1: the stage may have moved between them, and all but one
are out of focus.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsisr.arrays import UInt8Array
from wsisr.errors import RegistrationError
from wsisr.registration import correlation as corr
from wsisr.registration.certificate import PairCertificate
from wsisr.registration.focus import own_focus
from wsisr.registration.pair import register_pair

MARGIN_PX = 16
"""Cut off a plane on every side, so that it can be looked for in the other: the search range."""


@dataclass(frozen=True, kw_only=True)
class PlaneMatch:
    """One plane against the sharpest.

    Attributes
    ----------
    focus_share : float
        Fine detail over that of the sharpest plane.
    shift_x, shift_y : float
        Where the plane's content lies in the sharpest one, px; 0 of the sharpest itself.
    certificate : PairCertificate or None
        None of the sharpest. Planes far out of focus are rejected: they hold too little of what
        the sharpest shows to be placed by it.
    """

    index: int
    sharpest: bool
    focus_share: float
    shift_x: float
    shift_y: float
    certificate: PairCertificate | None

    def row(self) -> dict[str, Any]:
        """Plain values."""
        found = self.certificate
        return {
            "plane": self.index,
            "sharpest": self.sharpest,
            "focus_share": self.focus_share,
            "shift_x": self.shift_x,
            "shift_y": self.shift_y,
            "error": 0.0 if found is None else found.error,
            "ncc_band": 1.0 if found is None else found.ncc_band,
            "verdict": "accept" if found is None else str(found.verdict),
            "reason": "" if found is None else found.reason,
        }


def register_planes(planes: Sequence[UInt8Array]) -> tuple[PlaneMatch, ...]:
    """Register every plane to the sharpest.

    Parameters
    ----------
    planes : sequence of ndarray, shape (h, w, 3), uint8, RGB
        At least two of one size, `MARGIN_PX` and more larger than a patch on every side.

    Raises
    ------
    RegistrationError
        Fewer than two planes, or sizes that differ.
    """
    if len(planes) < 2 or len({plane.shape for plane in planes}) != 1:
        raise RegistrationError("A stack has at least two planes, all of one size.")
    height, width = planes[0].shape[:2]
    if min(height, width) < 4 * MARGIN_PX:
        raise RegistrationError(
            f"Planes need {4 * MARGIN_PX} px a side; these have {width} x {height}."
        )
    focus = [own_focus(corr.grey(plane)) for plane in planes]
    best = int(np.argmax(focus))
    matches = []
    for index, plane in enumerate(planes):
        share = focus[index] / focus[best] if focus[best] > 0 else 0.0
        found, x, y = None, 0.0, 0.0
        if index != best:
            inner = plane[MARGIN_PX : height - MARGIN_PX, MARGIN_PX : width - MARGIN_PX]
            found = register_pair(np.ascontiguousarray(inner), planes[best], 1, match_colours=False)
            x, y = found.dx - MARGIN_PX, found.dy - MARGIN_PX
        matches.append(
            PlaneMatch(
                index=index,
                sharpest=index == best,
                focus_share=share,
                shift_x=x,
                shift_y=y,
                certificate=found,
            )
        )
    return tuple(matches)
