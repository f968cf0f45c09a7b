"""Which of several focal planes is read: one rule for every format."""

from pathlib import Path

from wsisr.slides.faults import RefusedSlideError


def choose_plane(path: Path, planes: int, wanted: int | None) -> tuple[int | None, str]:
    """The plane to read, counted from 1, and the sentence that says so.

    The middle one by default (of an even number the later of the two): scanners lay their planes
    evenly about the best focus. A file of one plane has none to choose: (None, "").

    Raises
    ------
    RefusedSlideError
        If the wanted plane does not exist.
    """
    if planes < 2 and wanted in (None, 1):
        return None, ""
    if wanted is not None and not 1 <= wanted <= planes:
        raise RefusedSlideError(
            f"{path}: focal plane {wanted} was asked for and the file has {planes}; planes are "
            "counted from 1."
        )
    plane = planes // 2 + 1 if wanted is None else wanted
    how = "the middle one" if wanted is None else "as asked for"
    return plane, (
        f"The file holds {planes} focal planes; plane {plane} ({how}) is read, "
        "--focal-plane names another."
    )
