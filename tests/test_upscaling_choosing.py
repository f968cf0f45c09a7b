"""`--model auto`: which network, for which slides, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from skimage.color import hed2rgb
from slides_samples import box_level, write_pyramid
from typer.testing import CliRunner
from wsisr_cli.main import app

from wsisr.errors import ConfigError
from wsisr.inference import open_trained
from wsisr.inference.loading import load_trained
from wsisr.inference.shipped import choose, serves, shipped
from wsisr.slides import open_slide
from wsisr.upscaling.choosing import not_h_and_e

RUN = CliRunner()


def stained(haematoxylin: float, eosin: float, side: int = 256) -> np.ndarray:
    """Spots of haematoxylin on eosin, in glass; uint8."""
    rng = np.random.default_rng(0)
    amounts = np.zeros((side, side, 3))
    inside = np.hypot(*(np.indices((side, side)) - side / 2)) < 0.45 * side
    amounts[inside, 1] = eosin
    amounts[inside, 0] = haematoxylin * rng.uniform(0.2, 1.0, int(inside.sum()))
    return np.clip(np.rint(255 * hed2rgb(amounts)), 0, 255).astype(np.uint8)


def test_the_stain_is_told_by_what_it_takes_away() -> None:
    assert not_h_and_e(stained(0.1, 0.2).reshape(-1, 3)) == ""
    assert "no eosin" in not_h_and_e(stained(0.15, 0.0).reshape(-1, 3))
    brown = skimage.data.immunohistochemistry()[::4, ::4].reshape(-1, 3)
    assert "DAB" in not_h_and_e(brown)
    assert "too little" in not_h_and_e(np.full((500, 3), 240, np.uint8))


def test_every_network_that_ships_is_whole_and_small() -> None:
    assert set(shipped()) == {"he-any", "he-x4"}
    size = 0
    for name, model in shipped().items():
        assert open_trained(name).weights_sha256 == model.weights_sha256
        load_trained(model)  # its two files belong together
        assert model.files and model.lr_origin and serves(model).stain
        card = (model.folder / "README.md").read_text(encoding="utf-8")
        assert "Not for diagnosis" in card and "BreaKHis" in card
        size += sum(path.stat().st_size for path in model.folder.iterdir())
    assert size <= 6_000_000


@pytest.mark.parametrize(
    ("um_per_px", "scale", "name"),
    [
        (1.0, None, "he-x4"),
        (0.5, None, "he-any"),
        (1.0, 2.0, "he-any"),
        (1.0, 3.0, "he-any"),
        (1.0, 2.5, "he-any"),
        (1.0, 1.8, None),  # not scored
        (0.5, 4.0, None),
        (0.25, None, None),
        (10.0, None, None),
    ],
)
def test_the_card_decides(um_per_px: float, scale: float | None, name: str | None) -> None:
    model, settled, why = choose(um_per_px, scale)
    assert (model.name if model else None) == name
    assert bool(why) == (name is None) and (model is None or model.serves(settled))


def slide(path: Path, image: np.ndarray, um_per_px: float | None) -> Path:
    whole = np.tile(image, (2, 2, 1))
    levels = [whole, box_level(whole, 4)]
    return write_pyramid(path, levels, compression=None, um_per_px=um_per_px)


def test_auto_takes_the_one_that_fits_and_says_so(tmp_path: Path) -> None:
    source, out = slide(tmp_path / "s.tiff", stained(0.1, 0.2), 0.5), tmp_path / "o.ome.tiff"
    done = RUN.invoke(app, ["upscale", str(source), "--model", "auto", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "he-any at x2, from 0.5 to 0.25 um/px" in done.output + done.stderr
    with open_slide(out) as made:
        assert made.info.levels[0].width_px == 1024


@pytest.mark.parametrize(
    ("image", "um_per_px", "words"),
    [
        (stained(0.15, 0.0), 0.5, "no eosin"),
        (stained(0.1, 0.2), 0.25, "--from 10x begins at a coarser level"),
        (stained(0.1, 0.2), None, "give --mpp"),
    ],
)
def test_auto_refuses_with_the_reason(
    tmp_path: Path, image: np.ndarray, um_per_px: float | None, words: str
) -> None:
    source, out = slide(tmp_path / "s.tiff", image, um_per_px), tmp_path / "o.ome.tiff"
    done = RUN.invoke(app, ["upscale", str(source), "--model", "auto", "-o", str(out)])
    assert isinstance(done.exception, ConfigError) and words in str(done.exception)
    assert "--model he-any or he-x4" in str(done.exception) and not out.exists()
