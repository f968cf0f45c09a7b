"""Words of sentences that many modules say: counts, times, figures, the nearest of known names."""

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any, get_args


def counted(count: int, one: str, several: str = "") -> str:
    """``1 slide``, ``2,000 slides``; `several` where the plural is no ``s``."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known name that was most likely meant; None where none is near."""
    import difflib  # of use to mistakes alone

    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=cutoff)
    return near[0] if near else None


def closest(word: str, known: Iterable[str]) -> str:
    """The likeliest intended name as a question, else all that are known; without a full stop."""
    known = sorted(known)
    near = nearest(word, known, cutoff=0.5)
    return f"did you mean {near!r}?" if near else f"known: {', '.join(known) or 'none'}"


def unknown_key(path: Sequence[Any], model: Any) -> str:
    """What is said of a key that a pydantic model does not know, nor what is in it."""
    known = model
    for part in path[:-1]:
        field = known.model_fields.get(part) if hasattr(known, "model_fields") else None
        options = (field.annotation, *get_args(field.annotation)) if field else ()
        known = next((o for o in options if hasattr(o, "model_fields")), None)
    names = [] if known is None else list(known.model_fields)
    return f"unknown key {'.'.join(map(str, path))!r}; {closest(str(path[-1]), names)}"


def duration(seconds: float) -> str | None:
    """Hours, minutes or seconds, two digits or so; None where it is not known."""
    if not isfinite(seconds) or seconds <= 0:
        return None
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def figure(value: float, form: str) -> str:
    """A number in a format such as ``.2f``; in words where there is none."""
    return format(value, form) if isfinite(value) else "unknown"


def finite(document: Any) -> Any:
    """A document of lists and mappings with None for what JSON has no number for."""
    if isinstance(document, dict):
        return {key: finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [finite(value) for value in document]
    return None if isinstance(document, float) and not isfinite(document) else document
