"""Close-up looks: band limits, nuclei, colours."""

import numpy as np
import pytest

from wsisr.testing import texture


@pytest.mark.parametrize("tile", [texture.stroma_tile, texture.cytoplasm_tile])
def test_tiles_are_periodic_and_band_limited(tile) -> None:  # type: ignore[no-untyped-def]
    picture = tile(0.243).astype(np.float64)
    steps = np.abs(np.diff(picture, axis=0)).mean()
    wrap = np.abs(picture[0] - picture[-1]).mean()
    assert wrap == pytest.approx(steps, rel=0.25)

    power = np.abs(np.fft.rfft2(picture - picture.mean())) ** 2
    radius = np.hypot(np.fft.fftfreq(len(picture))[:, None], np.fft.rfftfreq(len(picture))[None])
    middle = power[(radius > 0.08) & (radius < 0.12)].mean()
    nyquist = power[(radius > 0.45) & (radius < 0.5)].mean()
    # As in a real 40x scan: little at Nyquist, but not nothing.
    assert 1e-4 < nyquist / middle < 0.1


def test_nuclei_have_realistic_sizes() -> None:
    for um_per_px in (0.243, 0.5):
        atlas = texture.nucleus_atlas(um_per_px)
        diameter = 2 * np.sqrt(atlas.semi_axes_px.prod(-1)) * um_per_px
        assert diameter.min() > 5.9 and diameter.max() < 12.1
        area_um2 = (atlas.sprites > 60).sum((-1, -2)) * um_per_px**2
        expected = np.pi / 4 * diameter**2
        assert np.abs(area_um2 / expected - 1).max() < 0.3
        edges = np.concatenate([atlas.sprites[..., 0, :], atlas.sprites[..., :, -1]])
        assert not edges.any()


def test_nuclei_are_centred_between_the_middle_pixels() -> None:
    sprites = texture.nucleus_atlas(0.243).sprites.astype(np.float64)
    at = np.arange(sprites.shape[-1]) + 0.5 - sprites.shape[-1] / 2
    mass = sprites.sum((-1, -2))
    cx, cy = (sprites.sum(-2) * at).sum(-1) / mass, (sprites.sum(-1) * at).sum(-1) / mass
    assert np.abs(cx.mean(1)).max() < 0.4 and np.abs(cy.mean(1)).max() < 0.4


def test_colours_are_those_of_h_and_e() -> None:
    table = texture.colour_table((243, 242, 244))
    rgb = table.view(np.uint8).reshape(256, 256, 4)[..., :3].astype(int)
    assert tuple(rgb[0, 0]) == (243, 242, 244)
    stroma, nucleus = rgb[110, 8], rgb[90, 190]
    assert stroma[0] > stroma[2] > stroma[1] and stroma[0] > 190  # pink
    assert nucleus[2] > nucleus[0] > nucleus[1] and nucleus[0] < 110  # blue-purple
    dark = texture.colour_table((243, 242, 244), True).view(np.uint8).reshape(256, 256, 4)
    assert dark[0, 0].max() < 10 and dark[0, 255, 2] > 200
