"""The labels of a store's patches: from the files that the store was built beside."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.errors import ConfigError
from wsisr.selection.image_labels import ImageLabels, read_labels
from wsisr.store import PairStore

SUFFIXES = (".bmp", ".png", ".mat", ".xml")


class Truth:
    """Outlines and label maps of a store's images.

    A store names the label file of each image and its SHA-256, and holds no copy. Files are
    taken where the store says, or found by their content.

    Parameters
    ----------
    folders : sequence of Path
        Where the labelled set lies.
    """

    def __init__(self, store: PairStore, folders: Sequence[Path]) -> None:
        self.store = store
        self.folders = tuple(folders)
        self._by_content: dict[str, Path] | None = None
        self._whole = lru_cache(maxsize=8)(self._read)

    def has(self, slide: str) -> bool:
        """Whether the store knows labels of a slide."""
        return "annotation" in self.store.slides[slide].attributes

    def image(self, slide: str) -> ImageLabels | None:
        """The labels of a whole image; None where there are none. Raises as `patch`."""
        return self._whole(slide) if self.has(slide) else None

    def patch(self, slide: str, row: int) -> ImageLabels | None:
        """The labels of an HR patch; None where there are none.

        Raises
        ------
        ConfigError
            The file is not there, has changed, or the store's HR is no pixel of the image.
        """
        if not self.has(slide):
            return None
        view = self.store.slides[slide]
        spec = view.spec(self.store.arrays[0])
        if spec.factor != 1.0:
            raise ConfigError(
                f"{self.store.path}: HR is reduced from the images by {spec.factor:g}, and labels "
                "are of the images' own pixels; build with the images' magnification as --hr"
            )
        whole = self._whole(slide)
        y, x = (int(view.column(name)[row]) for name in ("y", "x"))
        part = whole.map[y : y + spec.size_px, x : x + spec.size_px]
        if part.shape != (spec.size_px, spec.size_px):
            raise ConfigError(
                f"{self.store.path}: the patch at ({x}, {y}) of {slide} lies outside of its labels"
            )
        return replace(whole, map=np.ascontiguousarray(part))

    def _read(self, slide: str) -> ImageLabels:
        attributes: Any = self.store.slides[slide].attributes
        known, level = attributes["annotation"], attributes["levels"][0]
        path = self._find(slide, known)
        return read_labels(path, (int(level["height_px"]), int(level["width_px"])))

    def _find(self, slide: str, known: Any) -> Path:
        if not self.folders:
            raise ConfigError(
                f"{self.store.path} holds no labels: say where the labelled images lie, --truth "
                "FOLDER"
            )
        places = [folder / known["file"] for folder in self.folders if known.get("file")]
        there = next((place for place in places if place.is_file()), None)
        if there is not None:
            if _digest(there) != known["sha256"]:
                raise ConfigError(f"{there} has changed since {self.store.path} was built with it")
            return there
        if self._by_content is None:
            files = (p for folder in self.folders for p in sorted(folder.rglob("*")))
            self._by_content = {
                _digest(p): p for p in files if p.suffix.lower() in SUFFIXES and p.is_file()
            }
        if known["sha256"] not in self._by_content:
            where = ", ".join(map(str, self.folders))
            raise ConfigError(
                f"{where}: the labels of {slide} are not there (looked for "
                f"{known.get('file') or 'their content'}); give the folder of the data set"
            )
        return self._by_content[known["sha256"]]


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
