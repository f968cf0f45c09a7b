"""What no network can exceed: limits that alignment and HR's own compression set."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wsisr.degradation.jpeg import SUBSAMPLINGS, jpeg, quality_tables
from wsisr.errors import WsisrError
from wsisr.evaluation.columns import NATIVE, Sample, ScaleColumn, read_hr
from wsisr.evaluation.scoring import Scorer
from wsisr.evaluation.settings import spread
from wsisr.metrics.pixel import capped
from wsisr.metrics.statistics import slide_means
from wsisr.registration.ceiling import Ceiling, luma_power, psnr_ceiling
from wsisr.store import PairStore
from wsisr.store.schema import certificate_column

PATCHES = 12
SIDE_PX = 512
_SHIFT_PX = 4


@dataclass(frozen=True, kw_only=True)
class JpegCeiling:
    """Scores of HR against itself after one more pass of its own compression.

    Attributes
    ----------
    scores : mapping of str to float
        Mean over slides by column; empty where there is no answer.
    words : str
        How it was found, or why it is not known.
    """

    scores: Mapping[str, float]
    words: str


def alignment_ceiling(store: PairStore, column: ScaleColumn) -> Ceiling | None:
    """The PSNR-Y that the residual shifts of a native column allow; None where there is no shift.

    LR that is made from HR has none. See `wsisr.registration.ceiling`.
    """
    if column.array is None or column.origin not in NATIVE or not column.samples:
        return None
    table = store.table()
    axes = ("residual_x", "residual_y")
    names = [name for axis in axes if (name := certificate_column(axis, column.array, table))]
    if not names:
        return None
    wanted = {(sample.slide_index, sample.row) for sample in column.samples}
    rows = [at for at, place in enumerate(map(tuple, table.index.tolist())) if place in wanted]
    residuals = np.stack([table[name][rows] for name in names], axis=1).astype(np.float64)
    residuals = residuals[np.isfinite(residuals).all(axis=1)]
    if not len(residuals):
        return None
    side = min(SIDE_PX, *(sample.hr_px for sample in column.samples))
    chosen = [column.samples[i] for i in spread(len(column.samples), PATCHES)]
    index = np.array([(s.slide_index, s.row) for s in chosen], np.int32)
    return psnr_ceiling(luma_power(store.read(index, store.arrays[0], h=side, w=side)), residuals)


def jpeg_ceiling(
    store: PairStore, samples: Sequence[Sample], scorer: Scorer, scale: float
) -> JpegCeiling:
    """Score HR re-encoded at its own quality on a block grid shifted by half a block.

    What a second pass changes is what the first one had changed: pixels of HR are not known
    better than that.
    """
    found: list[tuple[str, list[float]]] = []
    words: set[str] = set()
    for sample in [samples[i] for i in spread(len(samples), PATCHES)]:
        how = _compression(store, sample)
        if isinstance(how, str):
            words.add(how)
            continue
        quality, subsampling, text = how
        hr = _shifted(store, sample)
        if hr is None:
            words.add("HR patches are too small to be re-encoded")
            continue
        again = jpeg(hr, quality, subsampling)
        try:
            values = scorer.against_hr(again, hr, scale)
        except WsisrError as error:
            words.add(str(error))
            continue
        words.add(text)
        found.append((sample.slide, [float(v[0]) for v in values]))
    scores: dict[str, float] = {}
    if found:
        slides = [slide for slide, _ in found]
        for place, column in enumerate(scorer.columns[: len(found[0][1])]):
            here = [capped(column.name, values[place]) for _, values in found]
            if np.isfinite(here).all():
                scores[column.name] = float(np.mean(list(slide_means(here, slides).values())))
    return JpegCeiling(scores=scores, words="; ".join(sorted(words)))


def _compression(store: PairStore, sample: Sample) -> tuple[int, Any, str] | str:
    """Quality, subsampling and words of the level that HR came from; or why there are none."""
    view = store.slides[sample.slide]
    spec = view.spec(store.arrays[0])
    if spec.reduction != 1.0:
        return "HR was reduced from a finer level: its compression cannot be repeated"
    levels = {level.get("index"): level for level in view.attributes.get("levels") or []}
    how = (levels.get(spec.level) or {}).get("compression")
    if not how:
        return "how HR was compressed is not recorded"
    if how.get("codec") != "jpeg":
        return f"HR is {how.get('codec', 'of unknown coding')}: there is no JPEG limit"
    quality, subsampling = how.get("quality"), how.get("subsampling")
    if quality is None or subsampling not in SUBSAMPLINGS or how.get("photometric") != "ycbcr":
        return f"HR's JPEG ({how.get('photometric')}, {subsampling}) cannot be repeated"
    exact = how.get("tables_sha256") == _tables_sha256(quality)
    tables = "its own tables" if exact else f"libjpeg's tables nearest to its own (Q{quality})"
    return int(quality), subsampling, f"Q{quality} {subsampling}, {tables}"


def _shifted(store: PairStore, sample: Sample) -> torch.Tensor | None:
    """Part of an HR patch, uint8 (1, 3, h, w), that begins half a block off its JPEG grid."""
    view = store.slides[sample.slide]
    spec = view.spec(store.arrays[0])
    starts = []
    for axis in ("x", "y"):
        place = round(float(view.column(axis)[sample.row]) / spec.factor)
        starts.append((_SHIFT_PX - place) % 16)
    side = min(SIDE_PX, sample.hr_px - max(starts)) // 16 * 16
    if side < 32:
        return None
    x, y = starts
    patch = read_hr(store, sample)[y : y + side, x : x + side]
    return torch.from_numpy(np.ascontiguousarray(patch)).permute(2, 0, 1)[None]


def _tables_sha256(quality: int) -> str:
    """The hash that a file with libjpeg's tables of this quality has (zigzag order)."""
    order = sorted(
        ((r, c) for r in range(8) for c in range(8)),
        key=lambda rc: (rc[0] + rc[1], rc[0] if (rc[0] + rc[1]) % 2 else rc[1]),
    )
    tables = quality_tables(quality)[0].long().tolist()
    lines = [f"{n}:{','.join(str(tables[n][r][c]) for r, c in order)}" for n in (0, 1)]
    return hashlib.sha256(";".join(lines).encode()).hexdigest()
