"""FID and KID between a model's images and HR, by an encoder of the user's: a table of its own.

Sets of images are compared, not images: no patient can be resampled and nothing is ranked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from wsisr.arrays import Float64Array
from wsisr.errors import ConfigError, OutputError
from wsisr.evaluation.columns import Sample, ScaleColumn, chunks, read_pair
from wsisr.evaluation.entries import reference_of
from wsisr.evaluation.inference import Engines
from wsisr.evaluation.papers import TextTable
from wsisr.evaluation.plan import Plan
from wsisr.evaluation.run import batch_px
from wsisr.evaluation.settings import scale_label
from wsisr.inference.trained import TrainedModel
from wsisr.metrics.distribution import ENOUGH_IMAGES, extract, fid, kid
from wsisr.metrics.encoders import Encoder, open_encoder, parse_input
from wsisr.metrics.images import MetricError, as_uint8
from wsisr.progress import ProgressEvent, Reporter, silent

LEAST_IMAGES = 4
SUBSETS = 100
SUBSET_SIZE = 1000


@dataclass(frozen=True, kw_only=True)
class Distance:
    """FID and KID of one run in one column.

    Attributes
    ----------
    kid, deviation : float
        Over `SUBSETS` subsets of `subset_size` images.
    fid : float or None
        None below 2,048 images, where it says more of their number than of their look.
    encoder, encoder_sha256, variant : str
        Whose features, and of what: size and scaling of the encoder's input.
    key : str
        `Plan.key`: what decides the images.
    """

    run: str
    origin: str
    scale: float
    images: int
    kid: float
    deviation: float
    subset_size: int
    fid: float | None
    encoder: str
    encoder_sha256: str
    variant: str
    key: str


def open_features(plan: Plan) -> Encoder | None:
    """The encoder that the settings name, tried on one image; before anything is scored.

    Raises
    ------
    ConfigError
        It cannot be loaded or run, or there are too few images to compare.
    """
    if plan.settings.features is None:
        return None
    few = [c for c in plan.columns if len(c.samples) < LEAST_IMAGES]
    if few:
        raise ConfigError(
            f"--features: FID and KID need {LEAST_IMAGES} images, and {few[0].origin} "
            f"{few[0].label} has {len(few[0].samples)}."
        )
    try:
        given = parse_input(plan.settings.features_input)
        encoder = open_encoder(plan.settings.features, given, plan.device)
        first = plan.columns[0]
        encoder(read_pair(plan.store, first, first.samples[:1], plan.settings.seed, plan.device)[1])
    except MetricError as error:
        raise ConfigError(f"--features: {error}") from None
    return encoder


def measure_distances(
    plan: Plan,
    encoder: Encoder,
    failed: Mapping[str, str],
    known: Sequence[Distance] = (),
    report: Reporter = silent,
) -> list[Distance]:
    """Distances of every run that has not failed; `known` ones of the same images are kept."""
    same = {
        (row.run, row.key): row
        for row in known
        if (row.encoder_sha256, row.variant) == (encoder.sha256, str(encoder.input))
    }
    jobs = [(e, c) for e, c in plan.jobs() if e.name not in failed and reference_of(e) == "none"]
    of_hr: dict[int, Float64Array] = {}
    engines = Engines(plan, report)
    rows = []
    for number, (entry, column) in enumerate(jobs, start=1):
        key = plan.key(entry, column)
        row = same.get((entry.name, key))
        if row is None:
            place = plan.columns.index(column)
            if place not in of_hr:
                of_hr[place] = extract((hr for _, hr, _ in _batches(plan, column)), encoder)
            try:
                made = extract(_images(plan, engines, entry, column), encoder)
            except OutputError:
                continue  # its table says why it has no part in anything
            row = _distance(encoder, entry, column, made, of_hr[place], key)
        rows.append(row)
        item = f"{entry.name} {column.origin} {column.label}"
        report(
            ProgressEvent(stage="features", done=number, total=len(jobs), unit="column", item=item)
        )
    return rows


def _distance(
    encoder: Encoder,
    entry: TrainedModel,
    column: ScaleColumn,
    made: Float64Array,
    wanted: Float64Array,
    key: str,
) -> Distance:
    size = min(SUBSET_SIZE, len(made) // 2)
    found = kid(made, wanted, subsets=SUBSETS, subset_size=size)
    return Distance(
        run=entry.name,
        origin=column.origin,
        scale=column.scale,
        images=len(made),
        kid=found.mean,
        deviation=found.deviation,
        subset_size=size,
        fid=fid(made, wanted) if len(made) >= ENOUGH_IMAGES else None,
        encoder=encoder.name,
        encoder_sha256=encoder.sha256,
        variant=str(encoder.input),
        key=key,
    )


def _batches(
    plan: Plan, column: ScaleColumn
) -> Iterator[tuple[Tensor, Tensor, tuple[Sample, ...]]]:
    for batch in chunks(column, batch_px(plan)):
        yield *read_pair(plan.store, column, batch, plan.settings.seed, plan.device), batch


def _images(
    plan: Plan, engines: Engines, entry: TrainedModel, column: ScaleColumn
) -> Iterator[Tensor]:
    for lr, _, batch in _batches(plan, column):
        image = as_uint8(engines.predict(entry, column, lr, samples=batch))
        assert isinstance(image, Tensor)
        yield image


def read_distances(document: Mapping[str, Any], plan: Plan | None = None) -> list[Distance]:
    """Distances in results.json; with a plan those whose images would be the same now."""
    rows = [Distance(**row) for row in document.get("distances") or []]
    if plan is None:
        return rows
    keys = {(e.name, plan.key(e, c)) for e, c in plan.jobs()}
    return [row for row in rows if (row.run, row.key) in keys]


def distance_tables(document: Mapping[str, Any]) -> list[TextTable]:
    """One table for each encoder and input."""
    by_encoder: dict[tuple[str, str, str], list[Distance]] = {}
    for row in read_distances(document):
        by_encoder.setdefault((row.encoder, row.encoder_sha256, row.variant), []).append(row)
    return [_table(*key, rows) for key, rows in by_encoder.items()]


def _table(encoder: str, digest: str, variant: str, rows: Sequence[Distance]) -> TextTable:
    few = min(row.images for row in rows) < ENOUGH_IMAGES
    notes = [
        f"Features of {encoder}, sha256 {digest[:12]}, input {variant}; SR and HR patches in 8 "
        "bit. Lower is nearer to HR. Sets are compared, so that there is no interval over patients "
        "and no ranking.",
        f"KID x 1000: mean ± standard deviation over {SUBSETS} subsets (cubic kernel, unbiased; it "
        "may be below 0).",
    ]
    if few:
        notes.append(
            f"FID below {ENOUGH_IMAGES:,} images says more of their number than of their look: KID "
            "alone is printed."
        )
    return TextTable(
        title="FID and KID",
        notes=tuple(notes),
        header=("LR", "scale", "model", "N", "subset", "KID x 1000", "FID"),
        rows=tuple(
            (
                row.origin,
                scale_label(row.scale),
                row.run,
                f"{row.images:,}",
                f"{row.subset_size:,}",
                f"{1000 * row.kid:.3f} ± {1000 * row.deviation:.3f}",
                "-" if row.fid is None else f"{row.fid:.3f}",
            )
            for row in rows
        ),
    )
