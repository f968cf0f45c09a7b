"""A run calibrated on validation pairs by patient: up to which doubt its places may be trusted.

The unit is the patient, whose places are not exchangeable with one another: patches of one slide
share scanner, stain and tissue. The loss of a patient is the share of all its places of tissue that
are trusted and wrong, which only grows with the threshold (`wsisr.metrics.conformal`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from scipy import ndimage

from wsisr.arrays import Float32Array, Float64Array, UInt8Array
from wsisr.errors import ConfigError, MagnificationError
from wsisr.evaluation.columns import (
    SIMULATED,
    ScaleColumn,
    chunks,
    plan_columns,
    read_pair,
    read_samples,
    same_origin,
    without_constant,
)
from wsisr.evaluation.settings import EvalSettings, scale_label
from wsisr.geometry import Box
from wsisr.inference.bicubic import to_grey
from wsisr.inference.images import super_resolve
from wsisr.inference.loading import load_network
from wsisr.inference.tiles import plan_tiles
from wsisr.inference.trained import TrainedModel, open_trained
from wsisr.inference.trust import (
    PLACE_PX,
    Calibration,
    doubt_of,
    is_tissue,
    place_means,
    place_values,
)
from wsisr.magnification import parse_magnification
from wsisr.metrics.conformal import TrustThreshold, patients_needed, trust_threshold
from wsisr.metrics.correctness import optical_density
from wsisr.metrics.images import MetricError
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.store import ArraySpec, PairStore, open_pairs

SMOOTHING_UM = 5.0
"""Full width at half height of the Gaussian that errors are smoothed by."""
BATCH_PX = 1 << 20
BORDER = 1
"""Places along the border of a patch, which lack the context that they have in a slide."""


@dataclass(frozen=True, kw_only=True)
class TrustRequest:
    """What is asked.

    Attributes
    ----------
    run : Path
        Folder of a training run.
    data : Path or None
        Pair store; the one it was trained on by default.
    split : str
        ``val``, or ``test``.
    bound_od : float
        Optical density by which a place must be off, where it is most, to be wrong.
    scale : float or None
        Of an arbitrary-scale model.
    lr_source : str
        A degradation, or ``native``; empty: what the model was trained on. The mask is good for
        outputs whose input is of that kind.
    limit : int or None
        Patches, spread evenly over the split.
    """

    run: Path
    data: Path | None = None
    split: str = "val"
    alpha: float = 0.1
    bound_od: float = 0.1
    scale: float | None = None
    lr_source: str = ""
    limit: int | None = None
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class TrustResult:
    """A calibration, where it lies, and what has to be said of it."""

    calibration: Calibration
    path: Path
    notes: tuple[str, ...]

    def text(self) -> str:
        """For the terminal."""
        c = self.calibration
        lines = [
            f"Trusted: places of doubt up to {c.threshold:.4g} grey levels, {c.trusted:.1%} of the "
            f"places of a patient (mean).",
            f"Promise: {c.promise()}.",
            f"alpha {c.alpha:g}, {c.patients} patients, {c.places:,} places of {PLACE_PX} LR px; "
            f"their own loss {c.loss:.4f}; the least that so many can promise is "
            f"{c.smallest_alpha:.3f}.",
        ]
        if c.left_out_loss is None:
            lines.append(
                "Not checked by leaving patients out: without one of them there are too few."
            )
        else:
            lines.append(
                f"Each patient left out and judged by the others: mean loss "
                f"{c.left_out_loss:.4f}, {c.left_out_trusted:.1%} trusted."
            )
        lines.append(
            f"LR {c.lr_origin}, {scale_label(c.scale)}, calibration pairs {c.split} "
            f"{c.data_digest[:16]}, weights {c.weights_sha256[:16]}."
        )
        return "\n".join((*lines, *self.notes, f"Written: {self.path}"))


def calibrate(request: TrustRequest, report: Reporter = silent) -> TrustResult:
    """Calibrate a run and write the calibration beside it.

    Raises
    ------
    ConfigError
        No network, too few patients for `alpha`, patients that it was trained on, no pairs of its
        kind of LR, or no place that can be trusted.
    """
    trained = open_trained(request.run)
    if not trained.is_network:
        raise ConfigError(
            f"{request.run}: interpolation has no doubt of its own; calibrate a trained network."
        )
    if request.split not in ("val", "test"):
        raise ConfigError(f"--split {request.split}: calibrate on val or test, never on train.")
    data = request.data or Path(str(trained.store.get("path") or ""))
    if request.data is None and not data.exists():
        raise ConfigError(f"{request.run} does not say where its pairs are now; give --data.")
    scale = request.scale or trained.scale
    if scale is None or not trained.serves(float(scale)):
        raise ConfigError(f"{trained.model} serves {trained.reach}: say which with --scale.")
    store = open_pairs(data)
    column = _column(trained, store, request, float(scale))
    patients = _patients(trained, store, column, request)
    field = _smoothing(store, column)
    notes = [field[1]] if field[1] else []
    if request.split == "val":
        notes.append(
            "Validation pairs also chose the weights that are kept: the promise is as good as that "
            "choice is harmless."
        )
    found = _judge(trained, store, column, field[0], request, report)
    kept = [name for name in patients if len(found[name][0])]
    if len(kept) < len(patients):
        notes.append(f"{len(patients) - len(kept)} patients have no place of tissue.")
    doubts, wrong = ([found[name][i] for name in kept] for i in (0, 1))
    threshold = _threshold(doubts, wrong, request.alpha)
    held = _left_out(doubts, wrong, request.alpha)
    um = {v.um_per_px for v in _specs(store, column)}
    hr_um = um.pop() if len(um) == 1 else None
    calibration = Calibration(
        threshold=threshold.threshold,
        alpha=request.alpha,
        bound_od=request.bound_od,
        patients=len(kept),
        places=sum(map(len, doubts)),
        smallest_alpha=threshold.smallest_alpha,
        loss=threshold.loss,
        trusted=threshold.trusted,
        left_out_loss=None if held is None else held[0],
        left_out_trusted=None if held is None else held[1],
        model=trained.model,
        weights_sha256=trained.weights_sha256,
        scale=float(scale),
        lr_origin=column.origin,
        um_per_px=None if hr_um is None else hr_um * float(scale),
        split=request.split,
        data_digest=_digest(store, column),
        smoothed_px=field[0],
    )
    path = calibration.write(trained.folder)
    return TrustResult(calibration=calibration, path=path, notes=tuple(notes))


def _column(
    trained: TrainedModel, store: PairStore, request: TrustRequest, scale: float
) -> ScaleColumn:
    """The pairs whose LR is what the model was trained on."""
    origin = trained.lr_origin
    if request.lr_source:
        native = request.lr_source == "native"
        origin = origin if native else f"{SIMULATED}:{request.lr_source}"
    if origin is None:
        raise ConfigError(
            f"{request.run} does not say what LR it was trained on; give --lr-source."
        )
    kind, _, name = origin.partition(":")
    settings = EvalSettings(
        scales=(scale,),
        split=request.split,
        lr_source=name if kind == SIMULATED else "native",
    )
    samples, _ = without_constant(store, read_samples(store, request.split, request.limit))
    columns, _ = plan_columns(store, samples, settings)
    fitting = [c for c in columns if same_origin(c.origin, origin)]
    if not fitting:
        have = ", ".join(c.origin for c in columns) or "none"
        raise ConfigError(
            f"{store.path} has no LR of origin {origin} at {scale_label(scale)} in its "
            f"{request.split} split (there: {have}): another kind would promise nothing of it."
        )
    return fitting[0]


def _patients(
    trained: TrainedModel, store: PairStore, column: ScaleColumn, request: TrustRequest
) -> list[str]:
    """Who is calibrated on, in order.

    Raises
    ------
    ConfigError
        Unknown patients, seen ones, or too few.
    """
    names = {sample.patient for sample in column.samples}
    if "" in names:
        raise ConfigError(
            f"{store.path}: patients of some pairs are unknown, and patients are what the promise "
            "is over; give them with --mpp-override when the store is built."
        )
    own = store.content_digest() == trained.store.get("digest")
    seen = trained.patients
    if request.split == "test" or not own:
        if seen is None:
            raise ConfigError(f"{request.run} does not record its patients: a leak is possible.")
        if names & seen:
            raise ConfigError(
                f"{len(names & seen)} of {len(names)} patients were seen in training or "
                "validation; calibrate on others."
            )
    needed = patients_needed(request.alpha)
    if len(names) < needed:
        raise ConfigError(
            f"{len(names)} patients in the {request.split} split of {store.path} cannot promise "
            f"an expected share of {request.alpha:g} (n >= 1/alpha - 1: that takes {needed}); "
            f"the least with {len(names)} is --alpha {1 / (len(names) + 1):.3f}."
        )
    return sorted(names)


def _specs(store: PairStore, column: ScaleColumn) -> list[ArraySpec]:
    slides = dict.fromkeys(sample.slide for sample in column.samples)
    return [store.slides[slide].spec(store.arrays[0]) for slide in slides]


def _smoothing(store: PairStore, column: ScaleColumn) -> tuple[float, str]:
    """Standard deviation of the smoothing, HR px, and what was assumed."""
    known = [s.um_per_px for s in _specs(store, column) if s.um_per_px]
    if len(known) == len(_specs(store, column)):
        return SMOOTHING_UM / 2.3548 / float(np.median(known)), ""
    try:
        nominal = 10.0 / parse_magnification(store.arrays[0])
    except MagnificationError:
        raise ConfigError(f"{store.path}: its pairs state no resolution.") from None
    return SMOOTHING_UM / 2.3548 / nominal, (
        f"The pairs state no resolution: errors were smoothed over {SMOOTHING_UM:g} um as if HR "
        f"had {nominal:g} um/px ({store.arrays[0]}), and the promise is for px of that kind."
    )


def _judge(
    trained: TrainedModel,
    store: PairStore,
    column: ScaleColumn,
    smooth_px: float,
    request: TrustRequest,
    report: Reporter,
) -> dict[str, tuple[Float64Array, Float64Array]]:
    """For each patient: the doubt of its places of tissue, and 1 where one is wrong."""
    plain = load_network(trained, device=request.device, precision="float32")
    spread = load_network(trained, device=request.device, precision="float32", symmetries="spread")
    plan = plan_tiles(plain.needs, column.scale)
    parts: dict[str, list[tuple[Float64Array, Float64Array]]] = {}
    done = 0
    for batch in chunks(column, BATCH_PX):
        lr, hr = (
            np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy())
            for x in read_pair(store, column, batch, seed=0)
        )
        sr = to_grey(super_resolve(plain, lr, column.scale, plan))
        for sample, low, made, real in zip(batch, lr, sr, hr, strict=True):
            cells = Box(x=0, y=0, width=low.shape[1] // PLACE_PX, height=low.shape[0] // PLACE_PX)
            if min(cells.width, cells.height) <= 2 * BORDER:
                raise ConfigError(
                    f"{store.path}: LR patches of {low.shape[1]} px have no place of {PLACE_PX} px "
                    "with its context; build larger ones (--size)."
                )
            doubt = doubt_of(spread, low, column.scale)
            mean, worst = _places(low, made, real, doubt, cells, smooth_px)
            wrong = (worst > request.bound_od).astype(np.float64)
            parts.setdefault(sample.patient, []).append((mean, wrong))
        done += len(batch)
        report(ProgressEvent(stage="calibrate", done=done, total=len(column.samples), unit="patch"))
    return {
        name: (np.concatenate([p[0] for p in some]), np.concatenate([p[1] for p in some]))
        for name, some in parts.items()
    }


def _places(
    lr: UInt8Array,
    sr: UInt8Array,
    hr: UInt8Array,
    doubt: Float32Array,
    cells: Box,
    smooth_px: float,
) -> tuple[Float64Array, Float64Array]:
    """Doubt and error of the inner places of tissue."""
    # The mean of differences would be next to nothing: SR has its mean from LR, right or wrong.
    apart = np.abs(optical_density(sr) - optical_density(hr)).mean(axis=2)
    error = ndimage.gaussian_filter(apart, smooth_px, mode="nearest")
    # Whole places alone: those of a slide are.
    low = lr[: cells.height * PLACE_PX, : cells.width * PLACE_PX]
    height, width = (round(side * sr.shape[0] / lr.shape[0]) for side in low.shape[:2])
    inner = np.s_[BORDER:-BORDER, BORDER:-BORDER]
    tissue = is_tissue(low, cells)[inner]
    # A nucleus that is missing is a small part of its place: its mean would not show it.
    worst = place_values(error[:height, :width], cells, np.maximum)[inner]
    mean = place_means(doubt[:height, :width], cells)[inner]
    return mean[tissue].astype(np.float64), worst[tissue].astype(np.float64)


def _threshold(
    doubts: Sequence[Float64Array], wrong: Sequence[Float64Array], alpha: float
) -> TrustThreshold:
    try:
        return trust_threshold(doubts, wrong, alpha)
    except MetricError as error:
        raise ConfigError(str(error)) from None


def _left_out(
    doubts: Sequence[Float64Array], wrong: Sequence[Float64Array], alpha: float
) -> tuple[float, float] | None:
    """Mean loss and trusted share of patients that were judged by all others."""
    if len(doubts) - 1 < patients_needed(alpha):
        return None
    losses, shares = [], []
    for at in range(len(doubts)):
        rest = [i for i in range(len(doubts)) if i != at]
        try:
            others = trust_threshold([doubts[i] for i in rest], [wrong[i] for i in rest], alpha)
            trusted = doubts[at] <= others.threshold
        except MetricError:  # nothing can be trusted: no loss either
            trusted = np.zeros(len(doubts[at]), bool)
        losses.append(float((trusted * wrong[at]).mean()))
        shares.append(float(trusted.mean()))
    return float(np.mean(losses)), float(np.mean(shares))


def _digest(store: PairStore, column: ScaleColumn) -> str:
    """Of the pairs: content of the store, and which patches and LR."""
    made = blake2b(digest_size=16)
    made.update(store.content_digest().encode())
    made.update(f"{column.origin} {column.scale:g} {column.array}".encode())
    for sample in column.samples:
        made.update(f"{sample.slide} {sample.row}\n".encode())
    return made.hexdigest()
