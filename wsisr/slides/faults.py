"""Which faults end the search for a reader, and which a library forgives."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from wsisr.errors import SlideError


@contextmanager
def quiet(library: str) -> Iterator[None]:
    """Without what a library logs of what it forgives: what matters is checked and raised here."""

    def drop(record: logging.LogRecord) -> bool:
        return False

    logger = logging.getLogger(library)
    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)


class RefusedSlideError(SlideError):
    """A file of a known kind that is cut off, contradicts itself or asks for absurd memory, or
    whose planes, series or tiles were not understood.

    No other reader may try: some of them show such a slide without a word.
    """


class OpenSlideOnlyError(SlideError):
    """A file whose tiles overlap or lie freely: others would paste them edge to edge."""


class UnconvertedError(SlideError):
    """Samples that tiffslide would hand out as they are stored, as if they were RGB."""


class PlainImageOnlyError(SlideError):
    """Samples that the others would cut to a byte, or an image that they would show lying on its
    side: the reader of plain images knows better, or refuses."""


class DamagedTileError(SlideError):
    """One tile that cannot be decoded without a fault; the others of the slide may be sound."""
