"""Columns of the tables: a scale, the origin of its LR, and the pairs that it is measured on."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsisr.arrays import UInt8Array
from wsisr.degradation import Degradation, crop_to_scale, degrade, names, parse_degradation
from wsisr.errors import ConfigError, DegradationError, StoreError
from wsisr.evaluation.settings import EvalSettings, scale_label, spread
from wsisr.store import PairStore
from wsisr.store.whole_images import WholeImage, whole_image

NATIVE = ("rescan", "rescan-reduced", "stored-level")
SIMULATED = "simulated"
CORNER_PX = 32
_READ_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One HR patch of the split, or one image.

    Attributes
    ----------
    slide_index, row : int
        Its place in the store; an image's is that of its first patch.
    patient, group, label : str
        Empty where unknown.
    hr_px : int
        Side of its HR patch; an image's shorter side.
    whole : WholeImage or None
        How the image is put together.
    """

    slide: str
    slide_index: int
    row: int
    patient: str
    group: str
    label: str
    hr_px: int
    whole: WholeImage | None = None

    @property
    def hr_area_px(self) -> int:
        """Pixels of HR."""
        return self.hr_px**2 if self.whole is None else math.prod(self.whole.shape)

    @property
    def slot(self) -> int:
        """What random degradations are drawn by: the same for every model and every run."""
        return (self.slide_index << 32) + self.row


@dataclass(frozen=True, kw_only=True)
class ScaleColumn:
    """One scale of one table.

    Attributes
    ----------
    origin : str
        ``rescan``, ``rescan-reduced``, ``stored-level``, ``reduced`` or
        ``simulated:<degradation>``; one table each.
    array : str or None
        Stored LR; None where HR is degraded.
    """

    origin: str
    scale: float
    array: str | None
    degradation: Degradation | None
    samples: tuple[Sample, ...]

    @property
    def label(self) -> str:
        return scale_label(self.scale)

    @property
    def key(self) -> tuple[str, float]:
        """Origin and scale."""
        return (self.origin, self.scale)


def read_samples(
    store: PairStore, split: str, limit: int | None = None, *, whole: bool = False
) -> tuple[Sample, ...]:
    """Patches of a split in the order of the store, or the images that they cover.

    Raises
    ------
    ConfigError
        There is no such split, or nothing in it; with `whole`, patches that do not cover their
        image.
    """
    have = {name: len(store.split(name)) for name in store.split_names()}
    if not have.get(split):
        counts = ", ".join(f"{name} {count}" for name, count in have.items()) or "none"
        raise ConfigError(
            f"{store.path} has nothing in its {split} split (patches: {counts}). A test needs "
            "slides of at least three patients: build with more slides, or look at --split val, "
            "which models were chosen on."
        )
    rows = np.asarray(store.split(split))
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    labels = _labels(store)
    chosen = []
    of_image = {int(s): rows[rows[:, 0] == s, 1].tolist() for s in np.unique(rows[:, 0])}
    if whole:
        rows = np.array([(slide_index, part[0]) for slide_index, part in of_image.items()])
    for index in spread(len(rows), limit):
        slide_index, row = int(rows[index, 0]), int(rows[index, 1])
        slide = store.attributes["slides"][slide_index]
        view = store.slides[slide]
        attributes = view.attributes
        image = whole_image(store, slide, of_image[slide_index]) if whole else None
        chosen.append(
            Sample(
                slide=slide,
                slide_index=slide_index,
                row=row,
                patient=attributes["patient"] or "",
                group=attributes.get("group") or "",
                label=labels.get((slide_index, row), attributes.get("label") or ""),
                hr_px=min(image.shape) if image else view.reader(store.arrays[0]).shape[1],
                whole=image,
            )
        )
    return tuple(chosen)


def without_constant(
    store: PairStore, samples: Sequence[Sample]
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Samples whose HR shows something, and those whose HR is one value in each channel.

    Decided on HR alone, before any model runs: a constant field is restored exactly by any
    interpolation (infinite PSNR) and tells nothing of a network.
    """
    hr, empty = store.arrays[0], set[Sample]()
    images = [sample for sample in samples if sample.whole is not None]
    empty |= {sample for sample in images if _is_constant(read_hr(store, sample))}
    patches = [sample for sample in samples if sample.whole is None]
    for start in range(0, len(patches), _READ_AT_ONCE):
        part = patches[start : start + _READ_AT_ONCE]
        side = min(CORNER_PX, *(sample.hr_px for sample in part))
        index = np.array([(sample.slide_index, sample.row) for sample in part], np.int32)
        # Few patches have a constant corner, and only those are read whole.
        for sample, corner in zip(part, store.read(index, hr, h=side, w=side), strict=True):
            if _is_constant(corner) and _is_constant(store.patch(sample.slide, sample.row, hr)):
                empty.add(sample)
    return (
        tuple(sample for sample in samples if sample not in empty),
        tuple(sample for sample in samples if sample in empty),
    )


def read_hr(store: PairStore, sample: Sample) -> UInt8Array:
    """HR pixels of a sample, shape (H, W, 3)."""
    if sample.whole is not None:
        return sample.whole.read(store)
    return store.patch(sample.slide, sample.row, store.arrays[0])


def _is_constant(image: UInt8Array) -> bool:
    return bool((image == image[:1, :1]).all())


def _labels(store: PairStore) -> dict[tuple[int, int], str]:
    table = store.table(columns=["label"])
    words = table.names("label") if "label" in table else []
    return {
        (int(s), int(r)): word
        for (s, r), word in zip(table.index.tolist(), words, strict=False)
        if word
    }


def plan_columns(
    store: PairStore, samples: Sequence[Sample], settings: EvalSettings
) -> tuple[tuple[ScaleColumn, ...], tuple[str, ...]]:
    """The columns of an evaluation, grouped by origin, and notes for a person.

    Raises
    ------
    ConfigError
        The LR source gives nothing at any of the scales.
    """
    source = settings.lr_source
    notes: list[str] = []
    columns: list[ScaleColumn] = []
    if source in ("auto", "native"):
        columns += _stored(store, samples, settings.scales, NATIVE, None)
        if source == "native" and not columns:
            raise ConfigError(
                f"{store.path} has no native LR (rescan or stored-level) at "
                f"{', '.join(map(scale_label, settings.scales))}; it has {_stock(store)}. "
                "--lr-source auto also simulates LR."
            )
    if source in ("auto", SIMULATED):
        degradation = parse_degradation(manifest_degradation(store))
        columns = _simulated(samples, settings.scales, degradation) + columns
    elif source != "native":
        if source in store.arrays:
            columns += _stored(store, samples, settings.scales, (), source)
            if not columns:
                raise ConfigError(
                    f"{store.path}: {source} is at none of the scales asked for; it has "
                    f"{_stock(store)}."
                )
        else:
            columns += _simulated(samples, settings.scales, _degradation(source, store))
    for column in columns:
        if settings.whole and column.array is not None:
            raise ConfigError(
                f"--whole: LR of whole images is made from them, and {column.array} is stored in "
                "patches; name a degradation (--lr-source bicubic)"
            )
        if len(column.samples) < len(samples):
            slides = {sample.slide for sample in samples}
            out = len(slides - {sample.slide for sample in column.samples})
            notes.append(
                f"{column.origin} {column.label}: {len(column.samples)} of {len(samples)} patches "
                f"have it; {out} of {len(slides)} slides are left out, whose LR is of another "
                "origin or missing."
            )
    return tuple(columns), tuple(notes)


def manifest_degradation(store: PairStore) -> str:
    """What the store's manifest names for simulated LR; bicubic unless it says otherwise."""
    named = store.attributes["manifest"].get("degradation")
    return str(named) if named else "bicubic"


def same_origin(first: str, second: str) -> bool:
    """Whether two LR origins mean the same images; simulated ones by their parameters."""
    if first == second:
        return True
    kinds = [origin.partition(":") for origin in (first, second)]
    if any(kind[0] != SIMULATED for kind in kinds):
        return False
    try:
        a, b = (parse_degradation(kind[2]) for kind in kinds)
    except DegradationError:
        return False
    return a.digest == b.digest


def chunks(column: ScaleColumn, budget_px: int) -> Iterator[tuple[Sample, ...]]:
    """The samples in batches of one slide, at most about `budget_px` HR pixels each."""
    batch: list[Sample] = []
    for sample in column.samples:
        full = len(batch) >= max(1, budget_px // sample.hr_area_px)
        if batch and (full or batch[0].slide != sample.slide):
            yield tuple(batch)
            batch = []
        batch.append(sample)
    if batch:
        yield tuple(batch)


def read_pair(
    store: PairStore,
    column: ScaleColumn,
    batch: Sequence[Sample],
    seed: int,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """LR and HR of a batch, uint8, (N, 3, h, w) and (N, 3, H, W).

    HR is cut at the top left to ``round(h s)``: its LR has exactly that partner. Random
    degradations are a function of the seed and the patch's place in the store.
    """
    rows = np.array([(sample.slide_index, sample.row) for sample in batch], np.int32)
    if batch[0].whole is not None:  # images of several slides are never in one batch
        pixels = np.stack([read_hr(store, sample) for sample in batch])
    else:
        pixels = store.read(rows, store.arrays[0])
    hr = _tensor(pixels, device)
    if column.array is not None:
        lr = _tensor(store.read(rows, column.array), device)
        if round(lr.shape[-1] * column.scale) != hr.shape[-1]:
            raise StoreError(
                f"{store.path}: {column.array} has {lr.shape[-1]} px where {hr.shape[-1]} px at "
                f"{column.label} need {hr.shape[-1] / column.scale:g}; run wsisr verify."
            )
        return lr, hr
    assert column.degradation is not None
    slots = [sample.slot for sample in batch]
    lr = degrade(hr, column.degradation, column.scale, seed=seed, slots=slots)
    return lr, crop_to_scale(hr, column.scale)


def _tensor(images: np.ndarray, device: torch.device | str) -> Tensor:
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).contiguous()


def _simulated(
    samples: Sequence[Sample], scales: Sequence[float], degradation: Degradation
) -> list[ScaleColumn]:
    return [
        ScaleColumn(
            origin=f"{SIMULATED}:{degradation.name}",
            scale=scale,
            array=None,
            degradation=degradation,
            samples=tuple(samples),
        )
        for scale in scales
    ]


def _stored(
    store: PairStore,
    samples: Sequence[Sample],
    scales: Sequence[float],
    origins: Sequence[str],
    only: str | None,
) -> list[ScaleColumn]:
    """Columns of stored LR arrays; a level may be native on one slide and made on another."""
    found: dict[tuple[str, float, str], list[Sample]] = {}
    for sample in samples:
        view = store.slides[sample.slide]
        hr = view.spec(store.arrays[0])
        for name in view.arrays[1:] if only is None else [a for a in view.arrays if a == only]:
            spec = view.spec(name)
            scale = next((s for s in scales if abs(spec.factor / hr.factor - s) < 1e-6), None)
            if scale is not None and (not origins or spec.origin in origins):
                found.setdefault((spec.origin, scale, name), []).append(sample)
    order = {scale: place for place, scale in enumerate(scales)}
    return [
        ScaleColumn(
            origin=origin, scale=scale, array=name, degradation=None, samples=tuple(members)
        )
        for (origin, scale, name), members in sorted(
            found.items(), key=lambda item: (item[0][0], order[item[0][1]])
        )
    ]


def _stock(store: PairStore) -> str:
    if not store.slides:
        return "no slides"
    view = next(iter(store.slides.values()))
    hr = view.spec(store.arrays[0])
    parts = []
    for name in view.arrays[1:]:
        spec = view.spec(name)
        parts.append(f"{name} (x{spec.factor / hr.factor:g}, {spec.origin})")
    return ", ".join(parts) or "no LR arrays"


def _degradation(text: str, store: PairStore) -> Degradation:
    try:
        return parse_degradation(text)
    except DegradationError as error:
        raise ConfigError(
            f"--lr-source {text}: no array of {store.path} ({', '.join(store.arrays)}) and no "
            f"degradation: {error} Degradations: {', '.join(names())}."
        ) from None
