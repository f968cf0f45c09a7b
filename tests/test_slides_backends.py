"""Our readers pass the suite that third-party readers are given."""

from pathlib import Path
from typing import ClassVar

from wsisr.slides import Slide, open_slide
from wsisr.testing import BackendTests


class TestDirect(BackendTests):
    """The direct TIFF reader claims every case."""

    def open(self, path: Path) -> Slide:
        return open_slide(path, backend="direct")


class TestTiffSlide(BackendTests):
    """tiffslide, through the same protocol (the cases that differ from the direct reader's)."""

    cases: ClassVar[tuple[str, ...]] = ("philips", "aperio", "generic")

    def open(self, path: Path) -> Slide:
        return open_slide(path, backend="tiffslide")
