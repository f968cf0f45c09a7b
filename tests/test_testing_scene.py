"""The scene: one picture, however it is cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsisr.testing import texture
from wsisr.testing.scene import Scene
from wsisr.testing.shapes import stroke
from wsisr.testing.spec import SlideSpec, make_scene, outline, pen_stroke
from wsisr.testing.texture import hash_unit, value_noise

FOLD = outline(stroke([(900.0, 500.0), (900.0, 1100.0)], 100.0))
BLUR = ((500.0, 500.0), (800.0, 500.0), (800.0, 800.0), (500.0, 800.0))
SPEC = SlideSpec(
    layout="generic",
    seed=5,
    width_px=1500,
    height_px=1300,
    folds=(FOLD,),
    blurs=(BLUR,),
    pens=(pen_stroke("blue", [(300.0, 300.0), (1200.0, 350.0)], 60.0),),
    frame_px=20,
)
PLAIN = SlideSpec(layout="generic", seed=5, width_px=1500, height_px=1300)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene(SPEC)


@pytest.fixture(scope="module")
def plain() -> Scene:
    return make_scene(PLAIN)


@pytest.fixture(scope="module")
def picture(scene: Scene) -> np.ndarray:
    return scene.render(-50, -40, 1600, 1400)


@settings(max_examples=25, deadline=None)
@given(st.integers(-50, 1400), st.integers(-40, 1200), st.integers(1, 140), st.integers(1, 140))
def test_any_region_shows_the_same_pixels(
    scene: Scene, picture: np.ndarray, x: int, y: int, width: int, height: int
) -> None:
    found = scene.render(x, y, width, height)
    np.testing.assert_array_equal(found, picture[y + 40 : y + 40 + height, x + 50 : x + 50 + width])


def test_seed_decides_everything() -> None:
    args = (600, 500, 64, 64)
    same = make_scene(SPEC).render(*args)
    np.testing.assert_array_equal(same, make_scene(SPEC).render(*args))
    other = make_scene(SlideSpec(layout="generic", seed=6, width_px=1500, height_px=1300))
    assert (other.render(*args) != same).any()


def test_background_is_exactly_glass(scene: Scene, plain: Scene) -> None:
    corner = plain.render(5, 5, 30, 30)
    assert (corner == plain.background_rgb).all()
    assert plain.is_background(-200, -200, 150, 150)
    assert not plain.is_background(600, 600, 10, 10)
    assert not scene.is_background(-200, -200, 150, 150)  # the black frame is not glass


def test_frame_is_black_outside_only(picture: np.ndarray) -> None:
    assert not picture[:60, :].any() and not picture[:, 70 + 1460 :].any()
    assert (picture[61, 71:200].max(-1) > 0).all()


def test_nuclei_lie_where_the_truth_says(plain: Scene) -> None:
    rgb = plain.render(0, 0, 1500, 1300).astype(float)
    nuclei = plain.nuclei(0, 0, 1500, 1300)
    assert len(nuclei) > 300
    red_at = rgb[np.clip(nuclei.y_px, 0, 1299), np.clip(nuclei.x_px, 0, 1499), 0]
    tissue = rgb[..., 1] < 200
    assert np.percentile(red_at, 95) < 160
    assert np.median(red_at) < rgb[..., 0][tissue].mean() - 50

    part = plain.nuclei(400, 300, 500, 600)
    inside = (nuclei.x_px >= 400) & (nuclei.x_px < 900) & (nuclei.y_px >= 300)
    inside &= nuclei.y_px < 900
    found = set(zip(part.x_px, part.y_px, part.kind, part.variant, strict=True))
    columns = (nuclei.x_px, nuclei.y_px, nuclei.kind, nuclei.variant)
    assert found == set(zip(*(c[inside] for c in columns), strict=True))


def test_tumour_has_more_nuclear_area_and_its_own_nuclei(plain: Scene) -> None:
    ring = np.array(plain.tumour[0])
    x, y = (int(v) for v in ring.mean(0))
    inside = plain.nuclei(x - 150, y - 150, 300, 300)
    assert np.mean(inside.kind == texture.TUMOUR) > 0.8
    everywhere = plain.nuclei(0, 0, 1500, 1300)
    far = np.abs(everywhere.x_px - x) > np.ptp(ring[:, 0]) / 2 + 30
    assert not np.any(everywhere.kind[far] == texture.TUMOUR)


def test_fold_is_darker_and_blur_is_softer(scene: Scene, plain: Scene) -> None:
    def sharpness(rgb: np.ndarray) -> float:
        return float(np.abs(np.diff(rgb.astype(float), axis=1)).mean())

    box = (870, 700, 60, 200)
    assert scene.render(*box).mean() < plain.render(*box).mean() - 15
    box = (550, 550, 200, 200)
    assert sharpness(scene.render(*box)) < 0.4 * sharpness(plain.render(*box))
    box = (400, 900, 200, 200)  # neither
    np.testing.assert_array_equal(scene.render(*box), plain.render(*box))


def test_pen_has_its_colour_on_glass_and_tissue(scene: Scene) -> None:
    ink = scene.render(700, 315, 40, 20).astype(float).mean((0, 1))
    assert ink[2] > ink[0] + 20


def test_hash_is_uniform_and_independent_of_neighbours() -> None:
    ix, iy = np.meshgrid(np.arange(-200, 200), np.arange(-200, 200))
    draw = hash_unit(3, 1, ix, iy)
    assert draw.min() >= 0 and draw.max() < 1
    assert abs(draw.mean() - 0.5) < 0.005 and abs(draw.std() - 12**-0.5) < 0.005
    for other in (hash_unit(3, 1, ix + 1, iy), hash_unit(3, 2, ix, iy), hash_unit(4, 1, ix, iy)):
        assert abs(np.corrcoef(draw.ravel(), other.ravel())[0, 1]) < 0.01


def test_value_noise_is_smooth() -> None:
    x = np.arange(-400.0, 400.0)
    field = value_noise(1, 2, x, x[:, None], 100.0)
    assert field.shape == (800, 800)
    assert field.min() >= 0.0 and field.max() <= 1.0 and field.std() > 0.1
    assert np.abs(np.diff(field, axis=0)).max() < 0.02
