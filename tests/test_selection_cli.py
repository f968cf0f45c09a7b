"""`wsisr tissue mask` and `wsisr tissue compare` on a generated slide."""

import json

import numpy as np
import pytest
from PIL import Image
from shapely.geometry import LineString
from typer.testing import CliRunner
from wsisr_cli.tissue import app

from wsisr.selection import Annotations, Region, save_geojson, tissue_of
from wsisr.selection.compare import annotation_recall, mask_agreement
from wsisr.slides import open_slide
from wsisr.testing import Pen, SlideSpec, write_slide


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A slide with tumour and a pen stroke beside its tissue, and its truth."""
    path = tmp_path_factory.mktemp("slide") / "made.tif"
    ring = LineString([(150, 150), (900, 170)]).buffer(90).exterior.coords[:-1]
    outline = tuple((float(x), float(y)) for x, y in ring)
    spec = SlideSpec(
        seed=5, width_px=4096, height_px=3584, um_per_px=0.5,
        pens=(Pen(colour="green", outline=outline),),
    )  # fmt: skip
    return path, write_slide(path, spec)


def test_generated_slide_is_found_as_its_truth_says(generated):
    path, truth = generated
    with open_slide(path) as slide:
        found = tissue_of(slide)
    expected = truth.tissue_mask(found.um_per_px, fill_holes=True)
    height, width = np.minimum(expected.shape, found.mask.shape)
    agreement = mask_agreement(found.mask[:height, :width], expected[:height, :width], 8.0)
    assert agreement.iou > 0.93
    assert agreement.precision > 0.99
    assert agreement.tile_f1 > 0.97
    assert found.health.pen_colours == ("green",)
    lesion = Annotations(
        regions=(Region(label="tumor", polygon=truth.tumour_area),), source_format="asap"
    )
    assert annotation_recall(found.mask, found.factor, lesion) > 0.99


def test_mask_command_writes_what_it_says_and_compare_reads_it(generated, tmp_path):
    path, truth = generated
    runner = CliRunner()
    for method in ("consensus", "clam-like"):
        result = runner.invoke(app, ["mask", str(path), "-o", str(tmp_path / method),
                                     "--method", method])  # fmt: skip
        assert result.exit_code == 0, result.output
        assert "brightfield" in result.output
    names = sorted(file.name for file in (tmp_path / "consensus").iterdir())
    assert names == ["made-health.json", "made-mask.png", "made-overlay.png", "made.geojson"]
    health = json.loads((tmp_path / "consensus" / "made-health.json").read_text())
    assert health["pen_colours"] == ["green"]
    assert np.asarray(Image.open(tmp_path / "consensus" / "made-mask.png")).max() == 255

    lesion = Annotations(
        regions=(Region(label="tumor", polygon=truth.tumour_area),), source_format="asap"
    )
    save_geojson(tmp_path / "made.geojson", lesion.to_geojson())
    result = runner.invoke(
        app,
        ["compare", str(tmp_path / "consensus"), str(tmp_path / "clam-like"),
         "--annotations", str(tmp_path / "made.geojson")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines()[1:3]]
    assert [row[:2] for row in rows] == [["made", "consensus"], ["made", "clam-like"]]
    # Colour alone leaves fat vacuoles in the lesion out; the consensus fills them.
    assert float(rows[0][-1]) > 0.99 > float(rows[1][-1]) > 0.8
    assert float(rows[1][2]) > 0.8
