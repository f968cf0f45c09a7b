"""Has a model seen what it is tested on?"""

from collections.abc import Sequence
from dataclasses import dataclass

from wsisr.errors import ConfigError
from wsisr.inference.trained import TrainedModel
from wsisr.store.verify_splits import SlideIdentity

SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Patients or glasses that stand on both sides."""

    entry: str
    patients: tuple[str, ...]
    groups: tuple[str, ...]

    def __str__(self) -> str:
        parts = []
        for word, names in (("patients", self.patients), ("groups", self.groups)):
            if names:
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                parts.append(f"{word} {', '.join(names[:SHOWN])}{more}")
        return f"{self.entry} was trained on {' and '.join(parts)}"


def find_leaks(
    entries: Sequence[TrainedModel], slides: Sequence[SlideIdentity], split: str, store_digest: str
) -> tuple[Leak, ...]:
    """Training patients and groups among those of the tested slides.

    A name that is only assumed is the slide's own and means nothing of another store: there the
    same file counts. Runs that recorded no files are compared by all names.

    A run's own validation patients are no leak where its validation split is looked at on purpose:
    training never used their pixels for a gradient. That split is stamped all the same.
    """
    groups = {slide.elsewhere("group") for slide in slides} - {""}
    found = []
    for entry in entries:
        if entry.patients is None:
            continue
        if split == "val" and entry.store.get("digest") == store_digest:
            continue
        common = tuple(sorted(_shared(entry, slides) - {""}))
        glasses = tuple(sorted(groups & (entry.groups or frozenset())))
        if common or glasses:
            found.append(Leak(entry=entry.name, patients=common, groups=glasses))
    return tuple(found)


def _shared(entry: TrainedModel, slides: Sequence[SlideIdentity]) -> set[str]:
    """Patients of both."""
    patients = entry.patients or frozenset()
    if entry.files is None:
        return {slide.patient for slide in slides} & patients
    known = {slide.elsewhere("patient") for slide in slides} & (patients - entry.assumed)
    return known | {slide.patient for slide in slides if slide.fingerprint in entry.files}


def refuse_leaks(leaks: Sequence[Leak], split: str) -> None:
    """Raise `ConfigError` naming every model and patient."""
    if leaks:
        raise ConfigError(
            f"{'; '.join(map(str, leaks))}, which the {split} split also holds: these scores would "
            "not be test results. Leave the model out (--model), test on another store, or give "
            "--allow-leak, which stamps LEAKY on every table."
        )


def stamps(*, leaks: Sequence[Leak], declared: bool, split: str) -> tuple[str, ...]:
    """Words that stand on everything of an evaluation whose numbers are no plain test results."""
    words = []
    if declared:
        words.append(
            "LEAKY: the manifest splits patches at random, so that training and test share slides"
        )
    words += [f"LEAKY: {leak}" for leak in leaks]
    if split == "val":
        words.append("VALIDATION: models were chosen on these patches; this is no test")
    elif split == "train":
        words.append("TRAINING: models have seen these patches; this is no test")
    return tuple(words)


def unknown(entries: Sequence[TrainedModel]) -> tuple[str, ...]:
    """Trained models whose training patients are not recorded."""
    return tuple(entry.name for entry in entries if entry.is_network and entry.patients is None)
