"""Which faults end the search for a reader."""

from wsisr.errors import SlideError


class RefusedSlideError(SlideError):
    """A file of a known kind that is cut off, contradicts itself or asks for absurd memory.

    No other reader may try: some of them show a damaged slide without a word.
    """
