"""What lies in a folder of slides and is none: named once, with the reason and what to do.

Names decide, and the few bytes of an index that names its parts; no pixel is read.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from wsisr.slides.ids import without_suffix

Kind = Literal["link", "format", "index", "part", "picture", "mask", "annotation"]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A file or folder that was seen and is not read as a slide.

    Attributes
    ----------
    relative : str
        Relative to the source, with ``/``.
    kind : str
        ``"link"`` and ``"format"`` (a slide may be missing for it), or ``"index"``, ``"part"``,
        ``"picture"``, ``"mask"`` and ``"annotation"`` (it belongs to slides that are listed, or
        seems to).
    reason : str
        Why, and what to do; the same words for the same fault, so that files can be counted.
    """

    relative: str
    kind: Kind
    reason: str

    @property
    def loses_slides(self) -> bool:
        """Whether pixels that the user may count on are missing from the build."""
        return self.kind in ("link", "format")


_BIOFORMATS = "convert it to OME-TIFF with QuPath or bioformats2raw and raw2ometiff"
_EXPORT = "export it as TIFF, SVS or DICOM with the vendor's converter"
UNREAD_FORMATS = {
    ".vsi": f"Olympus VSI; {_BIOFORMATS}",
    ".isyntax": f"Philips iSyntax; {_EXPORT}, or with isyntax2raw",
    ".i2syntax": f"Philips iSyntax 2; {_EXPORT}",
    ".kfb": f"KFBIO; {_EXPORT}",
    ".kfbf": f"KFBIO; {_EXPORT}",
    ".sdpc": f"Sqray; {_EXPORT}",
    ".dyqx": f"Sqray; {_EXPORT}",
    ".tmap": f"UNIC; {_EXPORT}",
    ".tron": f"3DHISTECH; {_EXPORT}",
    ".mds": f"Motic; {_EXPORT}",
    ".mdsx": f"Motic; {_EXPORT}",
    ".zvi": f"Zeiss ZVI; {_BIOFORMATS}",
    ".lif": f"Leica LIF; {_BIOFORMATS}",
    ".lof": f"Leica LOF; {_BIOFORMATS}",
    ".nd2": f"Nikon ND2; {_BIOFORMATS}",
    ".oir": f"Olympus OIR; {_BIOFORMATS}",
    ".oib": f"Olympus OIB; {_BIOFORMATS}",
    ".vff": f"VisionTek; {_EXPORT}",
    ".jp2": f"a bare JPEG 2000 stream without a resolution; {_BIOFORMATS}",
    ".jpx": f"a bare JPEG 2000 stream without a resolution; {_BIOFORMATS}",
    ".afi": "an Aperio index of fluorescence channels; its SVS files are listed by themselves",
    ".ndpis": "a Hamamatsu index of fluorescence channels; its NDPI files are listed by themselves",
}
"""Slide formats (and indices) that no reader here opens, with the way out."""

UNFINISHED = (".partial", ".part", ".crdownload", ".aria2", ".download", ".filepart", ".tmp")
ARCHIVES = (".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".tar", ".rar")

SPECIAL = "a named pipe, a socket or a device, and no file; passed over without being opened"
DANGLING = "a link to a file or folder that is not there; mend or remove the link"
CLOSED = "a folder that may not be listed; ask for the right to read it"
LOOP = "a link to a folder that is listed already or holds this one; left out so that no slide \
is listed twice"
TWICE = "a link to a file that is listed already; left out so that no slide is listed twice"
DICOMDIR = "the index of a DICOM medium, no image; its files are listed by themselves"
OTHER_DICOM = "DICOM, but no whole-slide image (a segmentation, annotation, report, ...)"
VMS_PART = "part of a Hamamatsu VMS or VMU slide, which is listed"
PICTURE = "a picture of a listed slide (thumbnail, label, macro, ...)"
MASK = "a mask or label picture of a listed slide"
ZARR = "a Zarr folder, which is not read as a slide; convert it to OME-TIFF"

_MASK = r"(?:[\w.]*?[_. -])?(?:mask|masks|label|labels|labelmap|seg|segmentation|annotation|" \
    r"annotations|anno|gt|groundtruth|ground_truth)"  # fmt: skip
_PICTURE = r"(?:thumb|thumbs|thumbnail|thumbnails|overview|macro|preview|snapshot|slide_label|" \
    r"barcode|lowres|overlay|map)"  # fmt: skip
_AFTER_STEM = re.compile(rf"[_. -]+(?:(?P<mask>{_MASK})|(?P<picture>{_PICTURE}))\d*", re.IGNORECASE)
_MASK_FOLDER = re.compile(rf"(?:[\w.]*?[_. -])?(?:{_MASK})", re.IGNORECASE)
_PICTURE_FOLDER = re.compile(
    rf"(?:[\w.]*?[_. -])?(?:{_PICTURE}|macros|previews|overviews|overlays)", re.IGNORECASE
)
_ASIDE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_VMS_KEYS = re.compile(
    r"^\s*(?:ImageFile(?:\([^)]*\))?|MapFile(?:\([^)]*\))?|MacroImage|OptimisationFile)"
    r"\s*=\s*(.+?)\s*$",
    re.IGNORECASE | re.MULTILINE,
)
MAX_INDEX_BYTES = 1 << 20


def unread_format(name: str, is_slide_name: bool) -> str:
    """Why a file by this name cannot be read; empty where the name says nothing of the kind.

    Parameters
    ----------
    is_slide_name : bool
        Whether the name without its last suffix is that of a slide.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in UNREAD_FORMATS:
        return f"a format that wsisr does not read: {UNREAD_FORMATS[suffix]}"
    if is_slide_name and suffix in UNFINISHED:
        return "an unfinished download; fetch it again"
    if is_slide_name and suffix in ARCHIVES:
        return "an archive; unpack it"
    return ""


def vms_parts(index: Path) -> tuple[Path, ...]:
    """The files that a ``.vms`` or ``.vmu`` names and that lie beside it."""
    try:
        with open(index, "rb") as file:
            text = file.read(MAX_INDEX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ()
    # A path from a file's content is not trusted: only its name, in the index's own folder.
    names = (re.split(r"[/\\]", match)[-1] for match in _VMS_KEYS.findall(text))
    return tuple(part for name in names if name and (part := index.parent / name).is_file())


def asides(kinds: Mapping[str, str]) -> dict[str, tuple[Kind, str]]:
    """Pictures and masks among files that look like slides, by relative path, as their kinds are.

    - An image that is called like a slide file in its folder or one above, with or without more
      words (``a.png``, ``a.svs.jpg``, ``qc/a_heatmap.png``, ``a_1024_2048.png`` of ``a.svs``).
    - TIFFs and images called like a listed file with a word of masks or pictures after it, in
      any folder (``ID_mask.tiff`` in ``train_label_masks`` beside ``ID.tiff``).
    - TIFFs and images of a listed stem in a folder called like masks or pictures.

    A folder of images alone keeps its images: nothing is called a picture of itself.
    """
    stems: dict[str, set[str]] = {}
    names: set[tuple[str, str]] = set()
    for relative, kind in kinds.items():
        folder, name, stem = _parts(relative)
        stems.setdefault(stem, set()).add(folder)
        if kind != "image":
            names |= {(folder, stem), (folder, name)}
    found: dict[str, tuple[Kind, str]] = {}
    for relative, kind in kinds.items():
        aside = _aside(relative, kind, stems, names)
        if aside is not None:
            found[relative] = (aside, MASK if aside == "mask" else PICTURE)
    return found


def _aside(
    relative: str, kind: str, stems: dict[str, set[str]], slides: set[tuple[str, str]]
) -> Literal["mask", "picture"] | None:
    folder, name, stem = _parts(relative)
    if not name.endswith(_ASIDE_SUFFIXES):
        return None
    # QuPath's projects and scanners keep a picture called just "thumbnail" or "macro".
    called_picture = slides and re.fullmatch(_PICTURE, stem, re.IGNORECASE)
    if kind == "image" and ((folder, stem) in slides or called_picture):
        return "picture"
    for cut in range(len(stem) - 1, 0, -1):
        if stem[:cut] in stems and (match := _AFTER_STEM.fullmatch(stem[cut:])):
            return "mask" if match.group("mask") else "picture"
    for part in PurePosixPath(folder).parts:
        if stems[stem] <= {folder}:
            break
        if _PICTURE_FOLDER.fullmatch(part):
            return "picture"
        if _MASK_FOLDER.fullmatch(part):
            return "mask"
    if kind == "image":
        parts = PurePosixPath(folder).parts
        above = ["/".join(parts[:depth]) for depth in range(len(parts) + 1)]
        begins = [stem, *(stem[: match.start()] for match in re.finditer(r"[_. -]", stem))]
        if any((place, begin) in slides for place in above for begin in begins):
            return "picture"
    return None


def _parts(relative: str) -> tuple[str, str, str]:
    """The folder of a path, and its name and its stem in lower case."""
    folder, _, name = relative.rpartition("/")
    return folder, name.lower(), PurePosixPath(without_suffix(relative)).name.lower()


def describe_left_out(left_out: Iterable[LeftOut]) -> list[str]:
    """One line per reason: how many, the first names, why and what to do."""
    reasons: dict[str, list[str]] = {}
    for item in left_out:
        reasons.setdefault(item.reason, []).append(item.relative)
    lines = []
    for reason, names in reasons.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        lines.append(f"Left out: {', '.join(names[:3])}{more}: {reason}.")
    return lines
