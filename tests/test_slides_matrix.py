"""What was encoded is shown, whatever codec, photometric, subsampling, planes, tiles and markers.

A seeded share of the matrix; `tests/interop/test_colour_matrix.py` runs all of it and libvips.
"""

from pathlib import Path

import numpy as np
import pytest
from colour_files import SIDE, ColourFile, all_files

from wsisr.errors import SlideError
from wsisr.slides import open_slide

FILES = [file for file in all_files() if file.writer != "libvips"]
SAMPLE = np.random.default_rng(17).choice(len(FILES), 70, replace=False)


def test_the_matrix_is_large_and_its_names_are_unique() -> None:
    assert len(FILES) >= 300 and len({file.name for file in FILES}) == len(FILES)
    assert {file.writer for file in FILES} == {"tifffile", "pydicom"}


@pytest.mark.parametrize("file", [FILES[i] for i in sorted(SAMPLE)], ids=lambda file: file.name)
def test_pixels_are_those_that_were_encoded(tmp_path: Path, file: ColourFile) -> None:
    path = tmp_path / file.name
    file.write(path)
    backend = "dicom" if path.suffix == ".dcm" else "direct"
    if file.refused:
        with pytest.raises(SlideError, match="single channel"):
            open_slide(path, backend=backend)
        return
    with open_slide(path, backend=backend) as slide:
        shown = slide.read_level(0, 0, 0, SIDE, SIDE)
        grey = slide.info.grey
    assert np.abs(shown.astype(int) - file.truth()).mean() <= file.loss
    assert grey == file.grey
