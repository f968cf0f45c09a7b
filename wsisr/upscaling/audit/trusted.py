"""The trust mask of an output, by the calibration of the very model that made it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsisr.arrays import Float32Array
from wsisr.degradation import parse_degradation
from wsisr.errors import ConfigError, DegradationError
from wsisr.geometry import Box
from wsisr.inference.engine import Engine
from wsisr.inference.loading import load_network
from wsisr.inference.trained import open_trained
from wsisr.inference.trust import Calibration, doubt_of, is_tissue, place_means, read_calibration
from wsisr.upscaling.audit.misfit import MARGIN_PX, Chosen, known_part
from wsisr.upscaling.audit.slides import AuditSlides

NEAR = 0.1
"""Share by which resolutions may differ."""


@dataclass(frozen=True)
class Trusting:
    """A calibrated run, for one output.

    Attributes
    ----------
    spread : Engine
        Its network, which gives the spread over symmetries.
    notes : tuple of str
        What was assumed.
    """

    calibration: Calibration
    spread: Engine
    notes: tuple[str, ...]

    @classmethod
    def of(cls, run: Path, pictures: AuditSlides, chosen: Chosen, device: str) -> "Trusting":
        """Open a run's calibration; ConfigError where it says nothing of this output: another
        model, scale, kind of LR or resolution, or it cannot be known."""
        calibration = read_calibration(run)
        trained = open_trained(run)
        faults, notes = [], []
        if trained.weights_sha256 != calibration.weights_sha256:
            faults.append("the run's weights have changed since it was calibrated")
        if pictures.origin.weights_sha256 != calibration.weights_sha256:
            made = pictures.origin.weights_sha256[:12] or "it does not say by which"
            faults.append(
                f"the output was made by other weights ({made}, not "
                f"{calibration.weights_sha256[:12]})"
            )
        if abs(pictures.scale - calibration.scale) > 1e-6:
            faults.append(f"it is x{pictures.scale:g}, not x{calibration.scale:g}")
        faults += _other_input(calibration, pictures, chosen)
        um = pictures.origin.plane.um_per_px
        if calibration.um_per_px is None or um is None:
            notes.append(
                "Whether the input has the resolution of the calibration is not known: one of "
                "them states none."
            )
        elif abs((um[0] * um[1]) ** 0.5 / calibration.um_per_px - 1) > NEAR:
            faults.append(
                f"the input has {(um[0] * um[1]) ** 0.5:.3g} um/px, not {calibration.um_per_px:.3g}"
            )
        if faults:
            raise ConfigError(
                f"The calibration of {run.name} promises nothing of this output: "
                f"{'; '.join(faults)}. Audit it without --trust, or calibrate what made it."
            )
        spread = load_network(trained, device=device, precision="float32", symmetries="spread")
        return cls(calibration, spread, tuple(notes))

    def places(self, pictures: AuditSlides, block: Box) -> tuple[Float32Array, Float32Array]:
        """Doubt of each place of a block, and 1 where it is trusted, 0 where not, NaN for glass."""
        grid = pictures.grid
        wide = grid.wider(block, max(MARGIN_PX, self.spread.needs.halo_px))
        lr = pictures.lr(wide)
        doubt = doubt_of(self.spread, lr, pictures.scale)
        cells = grid.cells(block)
        mean = place_means(doubt[grid.made(block).relative_to(grid.made(wide)).slices], cells)
        tissue = is_tissue(lr[block.relative_to(wide).slices], cells)
        trusted = np.where(tissue, mean <= self.calibration.threshold, np.nan)
        return mean, trusted.astype(np.float32)

    def sentences(self, trusted: Float32Array) -> list[str]:
        """For people."""
        judged = ~np.isnan(trusted)
        count, good = int(judged.sum()), int((trusted == 1).sum())
        if not count:
            return ["No place was judged by the calibration: all are glass."]
        c = self.calibration
        return [
            f"Trusted: {good} of {count} places that are not glass ({good / count:.1%}), doubt up "
            f"to {c.threshold:.3g} grey levels. The promise: {c.promise()}; calibration "
            f"{c.data_digest[:16]}, least possible alpha {c.smallest_alpha:.3f}.",
            *self.notes,
        ]


def _other_input(calibration: Calibration, pictures: AuditSlides, chosen: Chosen) -> list[str]:
    """In what the LR of the output is not that of the calibration."""
    kind, _, name = calibration.lr_origin.partition(":")
    if kind != "simulated":
        if pictures.origin.plane.origin == kind:
            return []
        return [f"its input is {pictures.origin.plane.origin}, not {kind}"]
    try:
        part = known_part(parse_degradation(name))
    except DegradationError as error:
        return [f"its degradation is not known here ({error})"]
    if part is None:
        return [
            f"LR of the calibration is {name}, drawn anew for each image: whether this input is "
            "like it cannot be told"
        ]
    if part.digest != chosen.degradation.digest:
        return [f"its input looks like {chosen.degradation.name}, not {name}"]
    return []
