"""How much of an output of a trained model may be trusted: doubt, places, and a run's calibration.

Doubt of a place is how far the network's answers to its input, turned and mirrored, lie apart
(`Network` with `spread`). A calibration says up to which doubt places are trusted, so that the
bound of `wsisr.metrics.conformal` holds; it lies beside the run and belongs to its weights, its
scale and its kind of LR alone.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from wsisr.arrays import AnyArray, BoolArray, Float32Array, UInt8Array
from wsisr.errors import ConfigError, damage_is_clear
from wsisr.files import read_document, replace_file
from wsisr.geometry import Box
from wsisr.inference.engine import Engine
from wsisr.inference.images import super_resolve
from wsisr.inference.tiles import plan_tiles
from wsisr.metrics.correctness import optical_density

PLACE_PX = 16
"""Side of a place, LR px: of all that is said of outputs place by place."""
GLASS_OD = 0.05
"""Mean optical density of a place's LR below which it is glass, and not judged."""
TRUST_NAME = "trust.json"
FORMAT = "wsisr-trust"
SCORE = "standard deviation over the eight symmetries, grey levels, mean over a place"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was promised of a model, and on which grounds.

    Attributes
    ----------
    threshold : float
        Doubt up to which a place is trusted, grey levels.
    alpha : float
        Bound of the expected loss of the next patient.
    bound_od : float
        Optical density by which a place must be off, where it is most, to be wrong.
    patients, places : int
        That it was calibrated on.
    smallest_alpha : float
        What so many patients can promise at all.
    loss, trusted : float
        Means over them at the threshold.
    left_out_loss, left_out_trusted : float or None
        Means over patients that were left out one by one, at the threshold of the others; None:
        without one of them there are too few.
    um_per_px : float or None
        Of the LR; None: the data state none.
    split, data_digest : str
        Which pairs.
    smoothed_px : float
        Standard deviation of the Gaussian that errors were smoothed by, HR px.
    """

    threshold: float
    alpha: float
    bound_od: float
    patients: int
    places: int
    smallest_alpha: float
    loss: float
    trusted: float
    left_out_loss: float | None
    left_out_trusted: float | None
    model: str
    weights_sha256: str
    scale: float
    lr_origin: str
    um_per_px: float | None
    split: str
    data_digest: str
    smoothed_px: float

    def promise(self) -> str:
        """The bound, in a sentence."""
        return (
            f"expected share of places that are trusted and wrong (somewhere off by more than "
            f"{self.bound_od:g} optical density): at most {self.alpha:g}, over patients like the "
            f"{self.patients} it was calibrated on (same scanner, stain and model; unit: the "
            "patient)"
        )

    def write(self, run: Path) -> Path:
        """Put it beside a run; returns the file."""
        document = {"format": FORMAT, "format_version": 1, "score": SCORE, **asdict(self)}
        document["place_px"] = PLACE_PX
        path = run / TRUST_NAME
        replace_file(path, (json.dumps(document, indent=2) + "\n").encode())
        return path


def read_calibration(run: Path) -> Calibration:
    """The calibration of a run; ConfigError where there is none, or it cannot be read."""
    path = run / TRUST_NAME
    if not path.is_file():
        raise ConfigError(f"{run} is not calibrated; wsisr audit {run} does it.")
    found = read_document(path, "a calibration", FORMAT, 1)
    if (found.get("score"), found.get("place_px")) != (SCORE, PLACE_PX):
        raise ConfigError(f"{path} is of another score; calibrate again.")
    with damage_is_clear(path, ConfigError, "calibrate again"):
        return Calibration(**{field.name: found[field.name] for field in fields(Calibration)})


def doubt_of(spread: Engine, lr: UInt8Array, scale: float) -> Float32Array:
    """Doubt of every output px of an image, grey levels.

    Parameters
    ----------
    spread : Engine
        A network that gives the spread over its symmetries.
    lr : ndarray, shape (h, w, 3), uint8
    """
    pixels = super_resolve(spread, lr, scale, plan_tiles(spread.needs, scale))
    doubt: Float32Array = pixels.mean(axis=2)
    return doubt


def place_values(values: Float32Array, cells: Box, reduce: np.ufunc) -> AnyArray:
    """What a ufunc makes of the px of each place of a field.

    Parameters
    ----------
    values : ndarray, shape (h, w)
    cells : Box
        Its `width` and `height` count the places.
    """
    # Places are of real size in output px: their edges are rounded.
    rows = np.linspace(0, values.shape[0], cells.height + 1).round().astype(int)[:-1]
    columns = np.linspace(0, values.shape[1], cells.width + 1).round().astype(int)[:-1]
    found: AnyArray = reduce.reduceat(reduce.reduceat(values, rows, axis=0), columns, axis=1)
    return found


def place_means(values: Float32Array, cells: Box) -> Float32Array:
    """Means over the places of a field, of the px that are numbers; NaN where none is."""
    seen = ~np.isnan(values)
    count = place_values(seen.astype(np.float64), cells, np.add)
    total = place_values(np.where(seen, values, 0.0).astype(np.float64), cells, np.add)
    out = np.full(count.shape, np.nan)
    np.divide(total, count, out=out, where=count > 0)
    return out.astype(np.float32)


def is_tissue(lr: UInt8Array, cells: Box) -> BoolArray:
    """Which places of an LR field are not glass."""
    found: BoolArray = place_means(optical_density(lr).mean(axis=2), cells) > GLASS_OD
    return found
