"""Which annotation file belongs to which slide: by path, never by a guess.

QuPath and ASAP save beside the slide, others into a folder of their own that mirrors the slides';
data sets ship all outlines in one folder. So a file belongs to the slide of its name in its own
folder, else in the mirrored one, else to the one slide of the source that has the name. Pure but
for `annotation_format`, which looks at the first bytes of a file.
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from wsisr.selection.annotation_formats import asap, imagescope
from wsisr.selection.annotation_formats.geojson import GEOMETRIES, is_geojson
from wsisr.selection.annotation_formats.markup import decoded
from wsisr.selection.annotation_formats.ncrf import is_ncrf
from wsisr.selection.annotation_formats.sectra import is_sectra

ANNOTATION_SUFFIXES = (".xml", ".geojson", ".json")
HEAD_BYTES = 1 << 16

_FOLDER = re.compile(
    r".*(?:annot|lesion|outline|contour|polygon|region|label|roi|xml|json|asap|qupath|imagescope)"
    r".*",
    re.IGNORECASE,
)
"""Names of folders that hold annotations of the slides in another."""
_TAIL = re.compile(r"[_. -]+(?:annotations?|annots?|anno|outlines?|labels?|rois?|regions?)$")
_XML_ROOT = re.compile(r"<\s*(?![?!])([\w:.-]+)")
_GEOJSON = re.compile(r'"type"\s*:\s*"(?:Feature|FeatureCollection|' + "|".join(GEOMETRIES) + r')"')
_NCRF = re.compile(r'"(?:positive|negative)"\s*:\s*\[')
_SECTRA = re.compile(r'"content"\s*:\s*\[')


@dataclass(frozen=True, kw_only=True)
class Named:
    """A slide by its place: `relative` to the source, and the `names` that a file of it has
    (``b.ome.tiff``, ``b.ome``, ``b``)."""

    relative: str
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Annotation files by slide.

    Attributes
    ----------
    found : dict of slide to file
        Both relative to the source.
    faults : dict of slide to str
        Why it cannot be said which file is a slide's: such a slide fails.
    unused : tuple of str
        Files that fit no slide.
    """

    found: dict[str, str]
    faults: dict[str, str]
    unused: tuple[str, ...]


def annotation_format(path: Path) -> str | None:
    """The format that a file's first bytes show, or None: then it is no annotation.

    A damaged annotation still shows its format, so that it fails its slide instead of being
    taken for something else.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(HEAD_BYTES)
    except OSError:
        return None
    text = decoded(data)
    text = (data.decode("latin-1") if text is None else text).lstrip()
    if text.startswith("<"):
        root = _XML_ROOT.search(re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))
        name = "" if root is None else root.group(1)
        return {asap.ROOT: "asap", imagescope.ROOT: "imagescope"}.get(name)
    if not text.startswith(("{", "[")):
        return None
    if len(data) < HEAD_BYTES:
        with suppress(ValueError, RecursionError):
            return _json_format(json.loads(text))
    for name, pattern in (("geojson", _GEOJSON), ("ncrf", _NCRF), ("sectra", _SECTRA)):
        if pattern.search(text):
            return name
    return None


def _json_format(document: Any) -> str | None:
    if document in ([], {}) or is_geojson(document):
        return "geojson"
    return "ncrf" if is_ncrf(document) else "sectra" if is_sectra(document) else None


def match_annotations(slides: Sequence[Named], files: Sequence[str]) -> Matches:
    """Match annotation files (relative paths) with slides.

    Parameters
    ----------
    files : sequence of str
        Of which `annotation_format` knows the format.
    """
    by_name: dict[str, list[Named]] = {}
    for slide in slides:
        for name in {name.casefold() for name in slide.names}:
            by_name.setdefault(name, []).append(slide)
    slide_folders = {_folder(slide.relative) for slide in slides}
    own: dict[str, list[str]] = {}
    mirrored: dict[str, list[str]] = {}
    elsewhere: list[tuple[str, list[Named]]] = []
    unused = []
    for file in sorted(files):
        named = _named(file, by_name)
        folder = _folder(file)
        beside = [s for s in named if _folder(s.relative) == folder]
        across = [s for s in named if _mirrors(folder, _folder(s.relative), slide_folders)]
        if not named:
            unused.append(file)
        elif beside or across:
            table = own if beside else mirrored
            for slide in beside or across:
                table.setdefault(slide.relative, []).append(file)
        else:
            elsewhere.append((file, named))
    return _resolved(own, mirrored, elsewhere, unused)


def _resolved(
    own: Mapping[str, list[str]],
    mirrored: Mapping[str, list[str]],
    elsewhere: Sequence[tuple[str, list[Named]]],
    unused: list[str],
) -> Matches:
    found: dict[str, str] = {}
    faults: dict[str, str] = {}
    nearer = {slide: own.get(slide) or mirrored[slide] for slide in own.keys() | mirrored.keys()}
    shared: dict[str, list[str]] = {}
    for slide, files in nearer.items():
        for file in files:
            shared.setdefault(file, []).append(slide)
    distant: dict[str, list[str]] = {}
    for file, named in elsewhere:
        open_slides = [s.relative for s in named if s.relative not in nearer]
        if not open_slides:
            unused.append(file)
        for slide in open_slides:
            distant.setdefault(slide, []).append(file)
        shared[file] = [slide.relative for slide in named]
    for slide, files in sorted((nearer | distant).items()):
        others = sorted({other for file in files for other in shared[file]} - {slide})
        if len(files) > 1:
            faults[slide] = (
                f"{len(files)} annotation files fit it ({', '.join(files[:3])}); leave the right "
                "one beside the slide and move the others away"
            )
        elif others:
            remedy = "put it into the folder of the slide that it belongs to"
            if any(_folder(other) == _folder(slide) for other in others):
                remedy = "call it like the whole file of the slide that it belongs to"
            faults[slide] = (
                f"the annotation {files[0]} fits several slides ({', '.join([slide, *others][:3])})"
                f"; {remedy}"
            )
        else:
            found[slide] = files[0]
    return Matches(found=found, faults=faults, unused=tuple(sorted(unused)))


def _named(file: str, by_name: Mapping[str, list[Named]]) -> list[Named]:
    """Slides that a file's name means: the longest name that fits wins."""
    base = PurePosixPath(file).name
    for suffix in ANNOTATION_SUFFIXES:
        if base.lower().endswith(suffix):
            base = base[: -len(suffix)]
            break
    base = base.casefold()
    # QuPath names the images of a file with several "file - image".
    for name in (base, _TAIL.sub("", base), base.partition(" - ")[0]):
        if name in by_name:
            return by_name[name]
    return []


def _mirrors(
    file: tuple[str, ...], slide: tuple[str, ...], slide_folders: set[tuple[str, ...]]
) -> bool:
    """Whether a folder of annotations mirrors a folder of slides.

    Their paths are the same but for one folder, which is called like annotations (``case/xml`` of
    ``case``; ``annotations/case`` of ``case`` or ``slides/case``) and holds no slides itself.
    """
    if file in slide_folders:
        return False
    for place, part in enumerate(file):
        if not _FOLDER.fullmatch(part):
            continue
        rest = (*file[:place], *file[place + 1 :])
        replaced = (*slide[:place], *slide[place + 1 :])
        if rest == slide or (len(slide) == len(file) and rest == replaced):
            return True
    return False


def _folder(relative: str) -> tuple[str, ...]:
    return PurePosixPath(relative).parts[:-1]
