"""Whether a store holds what its manifest, and so its paper, promises."""

from dataclasses import dataclass
from pathlib import Path

from wsisr.building.manifest import Manifest
from wsisr.building.plan import SPLITS, resolved_quotas
from wsisr.store import PairStore, open_pairs
from wsisr.store.splits import by_slide


@dataclass(frozen=True, kw_only=True)
class Count:
    """One number of a data set.

    Attributes
    ----------
    what : str
        E.g. ``"train pairs"`` or ``"train pairs (tumor)"``.
    found : int or None
        None where there is no store to count in.
    """

    what: str
    expected: int
    found: int | None = None

    @property
    def agrees(self) -> bool:
        return self.found in (None, self.expected)


def expected_counts(manifest: Manifest) -> list[Count]:
    """What a complete build holds: the manifest's `expect`, then its quotas by class.

    Where `expect` names no validation set, its training set is meant with it.
    """
    found = []
    if manifest.expect is not None:
        for kind in ("slides", "pairs"):
            numbers: dict[str, int] = getattr(manifest.expect, kind)
            found += [
                Count(what=f"{_words(split, numbers)} {kind}", expected=numbers[split])
                for split in SPLITS
                if split in numbers
            ]
    for split, counts in resolved_quotas(manifest).items():
        found += [
            Count(what=f"{split} pairs ({name})", expected=count)
            for name, count in counts.items()
            if name != "any"
        ]
    return found


def count_store(path: Path, manifest: Manifest | None = None) -> list[Count]:
    """The same with what a store holds.

    Parameters
    ----------
    manifest : Manifest, optional
        By default the store's own.

    Raises
    ------
    StoreError
        If there is no finished store.
    """
    store = open_pairs(path)
    if manifest is None:
        manifest = Manifest.model_validate(store.attributes["manifest"])
    have = _have(store, manifest)
    return [
        Count(what=item.what, expected=item.expected, found=have.get(item.what, 0))
        for item in expected_counts(manifest)
    ]


def _have(store: PairStore, manifest: Manifest) -> dict[str, int]:
    found: dict[str, int] = {}
    classes = manifest.labels.classes
    ids = store.attributes["slides"]
    for split in SPLITS:
        rows = store.split(split)
        members = dict(by_slide(rows))
        found[f"{split} pairs"] = len(rows)
        found[f"{split} slides"] = len(members)
        for number, name in enumerate(classes):
            found[f"{split} pairs ({name})"] = sum(
                int((store.slides[ids[index]].column("label")[own] == number).sum())
                for index, own in members.items()
            )
    for kind in ("pairs", "slides"):
        found[f"train+val {kind}"] = found[f"train {kind}"] + found[f"val {kind}"]
    return found


def _words(split: str, numbers: dict[str, int]) -> str:
    return "train+val" if split == "train" and "val" not in numbers else split
