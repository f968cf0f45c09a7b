"""What a run trains on: arrays, origin, patients; decided before a pixel is read.

Every LR has an origin (rescan, stored-level, reduced, simulated). ``auto`` takes native LR (rescan
or stored-level) where the store has the scale in every slide, else the simulated one; models of
any scale always train on simulated LR, for no store has all scales.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import hypot
from pathlib import Path

import numpy as np

from wsisr.arrays import AnyArray, Int32Array
from wsisr.degradation import Degradation, parse_degradation
from wsisr.errors import ConfigError, DegradationError
from wsisr.store import PairStore, Table
from wsisr.store.places import Place
from wsisr.store.schema import VERDICTS, certificate_column
from wsisr.store.verify_splits import identities

STORED_LEVEL = "stored-level"
NATIVE = ("rescan", "rescan-reduced", "stored-level")
FIXED_SHIFT_PX = 0.1
"""Mean residual (HR px) beyond which flips would teach the opposite shift."""
HELD_OUT = 0.1


@dataclass(frozen=True, kw_only=True)
class DataPlan:
    """Arrays, rows and origin of a run.

    Attributes
    ----------
    path : Path or Place
        The store.
    digest, manifest : str
        Identity of the store's attributes, name of its manifest.
    content : str
        Hash of the slides' digests and of both sets of rows: the data that is learnt from.
    hr, lr, reference : str or None
        Arrays; `lr` is None where LR is simulated, `reference` (twice the LR size, CWT-Net) where
        it is made from HR.
    hr_px : int
        Side of an HR patch.
    scale : int or None
        None for models of any scale.
    origin : str
        ``rescan``, ``stored-level`` or ``simulated:<degradation>``.
    simulation : Degradation or None
        Of a simulated LR.
    train, val : ndarray, shape (m, 2)
        Slide index and row.
    patients, groups : tuple of str
        Of both, sorted; glasses only where a person named them.
    assumed, files : tuple of str
        Patients whose names are assumed, and fingerprints of the slides.
    flips : bool
        Whether symmetries keep LR and HR aligned.
    origins : dict of str to str
        Origin of every array of the store.
    notes : tuple of str
        Decisions, as sentences for the user.
    """

    path: Path | Place
    digest: str
    manifest: str
    content: str
    hr: str
    lr: str | None
    reference: str | None
    hr_px: int
    scale: int | None
    origin: str
    simulation: Degradation | None
    train: Int32Array
    val: Int32Array
    patients: tuple[str, ...]
    groups: tuple[str, ...]
    assumed: tuple[str, ...]
    files: tuple[str, ...]
    flips: bool
    origins: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def degradation(self) -> str | None:
        """Its name."""
        return None if self.simulation is None else self.simulation.name


def plan_data(
    store: PairStore,
    *,
    scale: int | None,
    lr_source: str | Degradation,
    reference: bool = False,
) -> DataPlan:
    """Decide what a run trains on.

    Parameters
    ----------
    scale : int or None
        HR over LR; None: any scale, simulated.
    lr_source : str or Degradation
        ``auto``, ``native``, or a degradation or its name.
    reference : bool
        Whether the model is trained with a finer image of the field (CWT-Net).

    Raises
    ------
    ConfigError
        If the store has not what is asked for; the sentence says what it has.
    StoreError
        If the store is not finished.
    """
    if not store.slides:
        raise ConfigError(f"{store.path} has no slides; run wsisr verify {store.path}")
    hr = store.arrays[0]
    train = store.split("train")
    notes: list[str] = []
    usable = [name for name in store.slides if hr in store.slides[name].arrays]
    lr, origin = None, ""
    if lr_source in ("auto", "native"):
        lr, origin, slides, note = _choose_native(store, hr, scale, lr_source)
        usable = slides if lr is not None else usable
        notes += note
    simulation = None
    if lr is None:
        simulation = _degradation(store, lr_source)
        origin = f"simulated:{simulation.name}"
    train = _rows(store, train, usable)
    if not len(train):
        raise ConfigError(f"{store.path} has no pairs to train on in its train split")
    train, val, note = _validation_rows(store, train, usable)
    notes += note
    sizes = {store.slides[name].spec(hr).size_px for name in usable}
    flips, note = _flips(store, train, lr)
    notes += note
    names = store.attributes["slides"]
    slides_seen = np.unique(np.concatenate((train, val))[:, 0]).tolist()
    seen = identities(store, [names[slide] for slide in slides_seen], {})
    return DataPlan(
        path=store.path,
        digest=store.content_digest(),
        manifest=str(store.attributes["manifest"].get("name", "")),
        content=_content(store, train, val),
        hr=hr,
        lr=lr,
        reference=_array_at(store, hr, scale / 2, usable)
        if reference and lr is not None and scale is not None
        else None,
        hr_px=min(sizes),
        scale=scale,
        origin=origin,
        simulation=simulation,
        train=train,
        val=val,
        patients=_sorted(slide.patient or slide.slide for slide in seen),
        groups=_sorted(slide.elsewhere("group") for slide in seen),
        assumed=_sorted(slide.patient for slide in seen if not slide.patient_known),
        files=_sorted(slide.fingerprint for slide in seen),
        flips=flips,
        origins=_origins(store),
        notes=tuple(notes),
    )


def _array_at(
    store: PairStore, hr: str, scale: float, slides: Sequence[str], every: bool = True
) -> str | None:
    """The array whose pixels are exactly `scale` HR pixels wide; of `every` slide, or of some."""
    for array in store.arrays:
        views = [store.slides[name] for name in slides if array in store.slides[name].arrays]
        if not views or (every and len(views) < len(slides)):
            continue
        if all(abs(v.spec(array).factor / v.spec(hr).factor - scale) < 1e-6 for v in views):
            return array
    return None


def _choose_native(
    store: PairStore, hr: str, scale: int | None, lr_source: str
) -> tuple[str | None, str, list[str], list[str]]:
    """Array, origin and slides of native LR, or no array and the reason."""
    asked = lr_source == "native"
    have = ", ".join(f"{name} ({origin})" for name, origin in _origins(store).items())
    if scale is None:
        if asked:
            raise ConfigError(
                "a model of any scale needs LR at all scales, which only a simulation gives; "
                "leave --lr-source out or name a degradation"
            )
        return None, "", [], []
    array = _array_at(store, hr, scale, list(store.slides), every=False)
    if array is None:
        if asked:
            raise ConfigError(
                f"{store.path} has no array x{scale} below {hr}; it has {have}. Choose another "
                "--scale, or train on a simulation: --lr-source bicubic"
            )
        return None, "", [], [f"{store.path} has no LR at x{scale} ({have}): LR is simulated."]
    origins: dict[str, list[str]] = {}
    for name, view in store.slides.items():
        if array in view.arrays:
            spec = view.spec(array)
            origin = "reduced" if spec.origin == STORED_LEVEL and not spec.native else spec.origin
            origins.setdefault(origin, []).append(name)
    native = sorted((o for o in origins if o in NATIVE), key=lambda o: -len(origins[o]))
    complete = len(native) == 1 and len(origins[native[0]]) == len(store.slides)
    if complete or (asked and native):
        slides = origins[native[0]]
        left = len(store.slides) - len(slides)
        note = [f"{left} slides without {native[0]} {array} are left out."] if left else []
        return array, native[0], slides, note
    found = ", ".join(f"{len(v)} slides {k}" for k, v in sorted(origins.items()))
    if asked:
        raise ConfigError(
            f"{array} of {store.path} is not native ({found}): it was made by software. Train on "
            "a simulation: --lr-source bicubic"
        )
    return None, "", [], [f"{array} is not native in every slide ({found}): LR is simulated."]


def _degradation(store: PairStore, lr_source: str | Degradation) -> Degradation:
    name = lr_source
    if lr_source == "auto":
        name = str(store.attributes["manifest"].get("degradation") or "bicubic")
    try:
        return parse_degradation(name)
    except DegradationError as error:
        raise ConfigError(
            f"--lr-source {lr_source}: {error} auto and native take the store's own LR."
        ) from None


def _rows(store: PairStore, rows: Int32Array, slides: Sequence[str]) -> Int32Array:
    """Rows of these slides that are kept."""
    wanted = {store.slide_index(name) for name in slides}
    kept = store.table(columns=[]).index
    allowed = {tuple(pair) for pair in kept.tolist() if pair[0] in wanted}
    chosen = [pair for pair in rows.tolist() if tuple(pair) in allowed]
    return np.array(chosen, np.int32).reshape(-1, 2)


def _validation_rows(
    store: PairStore, train: Int32Array, slides: Sequence[str]
) -> tuple[Int32Array, Int32Array, list[str]]:
    """Train and validation rows: the val split, else patients held out of training."""
    if "val" in store.split_names():
        val = _rows(store, store.split("val"), slides)
        if len(val):
            return train, val, []
    patient = np.array([_patient(store, int(slide)) for slide in train[:, 0]])
    people = sorted(set(patient.tolist()), key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(people) > 1:
        chosen = people[: max(1, round(HELD_OUT * len(people)))]
        held = np.isin(patient, chosen)
        note = (
            f"The store has no validation split: {len(chosen)} of {len(people)} training patients "
            "are held out for it."
        )
    else:
        held = np.arange(len(train)) >= len(train) - max(1, round(HELD_OUT * len(train)))
        note = (
            "The store has no validation split and one training patient: a part of that patient's "
            "patches is held out, and validation flatters."
        )
    if held.all():
        raise ConfigError(f"{store.path} has too few pairs ({len(train)}) to train and validate")
    return train[~held], train[held], [note]


def _flips(store: PairStore, train: Int32Array, lr: str | None) -> tuple[bool, list[str]]:
    """Whether symmetries keep stored pairs aligned; simulated pairs always are."""
    if lr is None:
        return True, []
    table = store.table()
    chosen = {tuple(pair) for pair in train.tolist()}
    member = np.array([tuple(pair) in chosen for pair in table.index.tolist()], bool)
    shift = [_column(table, f"residual_{axis}", lr)[member] for axis in "xy"]
    known = np.isfinite(shift[0]) & np.isfinite(shift[1])
    if not known.any():
        return False, [f"{lr} has no measured alignment: symmetries are not drawn."]
    mean = [float(values[known].mean()) for values in shift]
    if hypot(mean[0], mean[1]) > FIXED_SHIFT_PX:
        return False, [
            f"{lr} lies off HR by {mean[0]:+.2f}, {mean[1]:+.2f} HR px on average, which a flip "
            "would reverse: symmetries are not drawn."
        ]
    verdict = _column(table, "verdict", lr)[member]
    rejected = int((verdict == VERDICTS.index("reject")).sum())
    if rejected:
        return False, [
            f"{rejected} training pairs are kept though registration rejects them: symmetries "
            "are not drawn."
        ]
    return True, []


def _column(table: Table, name: str, lr: str) -> AnyArray:
    column = certificate_column(name, lr, table)
    return np.asarray(table[column], np.float64) if column else np.full(table.rows, np.nan)


def _patient(store: PairStore, slide: int) -> str:
    name = store.attributes["slides"][slide]
    return store.slides[name].attributes["patient"] or name


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names) - {""}))


def _content(store: PairStore, train: Int32Array, val: Int32Array) -> str:
    total = hashlib.blake2b(digest_size=16)
    total.update(store.content_digest().encode())
    for rows in (train, val):
        total.update(np.ascontiguousarray(rows, "<i4").tobytes() + b"\0")
    return total.hexdigest()


def _origins(store: PairStore) -> dict[str, str]:
    found: dict[str, str] = {}
    for array in store.arrays:
        kinds = {v.spec(array).origin for v in store.slides.values() if array in v.arrays}
        found[array] = "/".join(sorted(kinds)) or "missing"
    return found
