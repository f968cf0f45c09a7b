"""What a slide is called in a store: a function of its own path alone, and safe on every disk.

A path of lower-case letters, digits, ``.``, ``-`` and ``_`` is its own id, with ``__`` for ``/``
and without the commonest suffix, ``.tif``. Any other path is made readable in the same way and
carries ``~`` and a hash of the whole path, so that no two slides share an id: not by suffix, by
letter case (many file systems ignore it), by letters outside ASCII, by length. What else lies in
the folder never matters.
"""

import os
import re
from base64 import b32encode
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import PurePosixPath

MARK = "~"
SILENT_SUFFIX = ".tif"
READABLE_BYTES = 140
"""Longest readable part; what a build writes beside the store adds its own suffixes to an id."""
LONG_SUFFIXES = (".ome.tiff", ".ome.tif", ".ome.btf")

_PART = r"[a-z0-9.-](?:[a-z0-9._-]*[a-z0-9-])?"
_PLAIN = re.compile(rf"(?!\.){_PART}(?:/{_PART})*")
# Device names of Windows, whatever follows their first dot.
_RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", re.IGNORECASE)


def sanitise_id(text: str) -> str:
    """A name that is safe as a folder on every system and as a Zarr group; not unique.

    >>> sanitise_id("batch 1/slide (a).v2")
    'batch_1__slide_a_.v2'
    """
    text = re.sub(r"[/\\]+", "__", text.strip("/\\ "))
    text = re.sub(r"[^0-9A-Za-z._\-]+", "_", text)
    text = text.strip(".") or "slide"
    # zarr keeps names that start with two underscores to itself.
    return re.sub(r"^_{2,}", "_", text)


def slide_id(relative: str, series: str = "") -> str:
    """The id of a slide.

    Parameters
    ----------
    relative : str
        Path relative to the source, with ``/``; of a DICOM series the folder that holds it.
    series : str
        SeriesInstanceUID.

    >>> slide_id("tumor/tumor_001.tif"), slide_id("tumor_001.svs")
    ('tumor__tumor_001', 'tumor_001.svs')
    >>> slide_id("Case 1.tif")
    'Case_1.tif~p7tihjk5ue'
    """
    plain = (
        not series
        and len(relative) <= READABLE_BYTES
        and _PLAIN.fullmatch(relative) is not None
        and "." in relative.rpartition("/")[2]
        and "__" not in relative
        and _RESERVED.match(relative) is None
    )
    if plain:
        stem = relative.removesuffix(SILENT_SUFFIX)
        short = stem if "." not in stem.rpartition("/")[2] else relative
        return short.replace("/", "__")
    readable = _RESERVED.sub(r"_\1", sanitise_id(relative or "dicom"))[:READABLE_BYTES]
    whole = sha256(os.fsencode(relative) + b"\0" + series.encode()).digest()
    return f"{readable}{MARK}{b32encode(whole)[:10].decode().lower()}"


def short_forms(slide_id: str) -> tuple[str, ...]:
    """What a person may call a slide: its id without the mark, the suffix, the folders.

    >>> short_forms("training__tumor_001.svs")[1:]
    ('training__tumor_001', 'tumor_001.svs', 'tumor_001')
    """
    readable = slide_id.partition(MARK)[0]
    own = readable.rpartition("__")[2]
    forms = (readable, without_suffix(readable), own, without_suffix(own))
    silent = () if "." in own or readable != slide_id else (f"{own}{SILENT_SUFFIX}",)
    return tuple(dict.fromkeys((*forms, *silent)))


def without_suffix(relative: str) -> str:
    """A path without the suffix of its last part; ``.ome.tif`` is one suffix."""
    for suffix in LONG_SUFFIXES:
        if relative.lower().endswith(suffix):
            return relative[: -len(suffix)]
    head, dot, tail = relative.rpartition(".")
    return head if dot and "/" not in tail and head and not head.endswith("/") else relative


def draw_keys(names: Sequence[str], ids: Sequence[str]) -> list[str]:
    """What the random draws of each slide hang on: splits, candidates and their ranks.

    The path without suffix and without the folders that all slides share, so that naming a parent
    folder as the source draws nothing anew, and the first stores' draws stay what they were; the
    id where two slides would share that.

    Parameters
    ----------
    names : sequence of str
        Paths relative to the source, with ``/``, without suffix.
    """
    if not names:
        return []
    shared = os.path.commonpath([PurePosixPath(name).parent for name in names])
    keys = [sanitise_id(PurePosixPath(name).relative_to(shared).as_posix()) for name in names]
    folded = [key.lower() for key in keys]
    count = Counter(folded)
    return [
        key if count[low] == 1 else own for key, low, own in zip(keys, folded, ids, strict=True)
    ]
