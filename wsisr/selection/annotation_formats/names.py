"""What the names that people give to classes mean, in every format alike."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

TUMOR = "tumor"
NORMAL = "normal"
UNLABELLED = "unlabelled"
IGNORED = "ignored"
"""Areas of QuPath's class ``Ignore*``: of no class, the background included."""

Role = Literal["area", "inner", "hole", "ignore"]
"""What a shape does: label its area; label it and cut out of the areas that it lies in
(CAMELYON17's ``normal`` inside of ``metastases``); only cut; or cut and belong to nothing."""

TUMOR_NAMES = frozenset({TUMOR, "tumour", "metastases", "metastasis", "_0", "_1"})
"""CAMELYON16 calls its tumour groups ``_0`` and ``_1`` on most slides, ``Tumor`` on others;
CAMELYON17 has ``metastases``."""
HOLES = frozenset({"_2", "exclusion", "exclude", "excluded"})
"""Groups of areas to cut out of all others."""


def fold(name: str) -> str:
    """A name as it is compared: without case, outer blanks and doubled blanks."""
    return " ".join(name.split()).casefold()


def role_of(names: Iterable[str]) -> Role:
    """What a shape does, by its class and the groups that hold it.

    >>> role_of(["Ignore*"]), role_of(["necrosis", "Exclusion"]), role_of(["Normal"])
    ('ignore', 'hole', 'inner')
    """
    keys = [fold(name) for name in names]
    if any(key == "ignored" or key.rstrip("*") == "ignore" for key in keys):
        return "ignore"
    if any(key in HOLES for key in keys):
        return "hole"
    return "inner" if NORMAL in keys[:1] else "area"


@dataclass(frozen=True)
class ClassNames:
    """The classes of a manifest, as files may call them.

    Parameters
    ----------
    synonyms : mapping of class to other names, optional
        The manifest's own; they come before the built-in ones.
    """

    classes: Sequence[str]
    synonyms: Mapping[str, Sequence[str]]

    def find(self, *names: str) -> str | None:
        """The class that one of some names means, the first name that means one; or None.

        A derived class of QuPath (``Tumor: Positive``) is its base class where it is none itself.
        """
        known = self._known()
        for name in names:
            whole = fold(name)
            base = fold(name.partition(":")[0])
            if (found := known.get(whole) or known.get(base)) is not None:
                return found
        return None

    def _known(self) -> dict[str, str]:
        own = {fold(name): name for name in self.classes}
        meant = TUMOR_NAMES & own.keys()
        # Where a manifest tells tumour from metastases, the files' words are taken as they are.
        known = dict.fromkeys(TUMOR_NAMES, own[min(meant)]) if len(meant) == 1 else {}
        for name, others in self.synonyms.items():
            known.update({fold(other): name for other in others})
        return known | own
