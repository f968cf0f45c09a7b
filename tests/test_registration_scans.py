"""Two scans of one glass: overview, nodes, field, seams, patches; sections are refused."""

import itertools
import json

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from wsisr_cli.register import app

from wsisr.errors import RegistrationError
from wsisr.registration import ScanRegistration, overview, register_pair, register_scans, take_hr
from wsisr.registration import affine as aff
from wsisr.registration.field import ResidualField, split_pieces
from wsisr.registration.orientation import D4, nearest_orientation
from wsisr.registration.output import crop_residual_px
from wsisr.registration.overview import register_overviews
from wsisr.registration.presentation import sample_pairs, sample_table
from wsisr.registration.rough import overview_steps
from wsisr.registration.uniqueness import other_place
from wsisr.testing.pair_scenes import synthetic_tissue
from wsisr.testing.pairs import make_pair
from wsisr.testing.registration_suite import make_overviews, overview_error_px
from wsisr.testing.rendering import FieldOfView, render, to_uint8
from wsisr.testing.two_scans import MemorySlide, ScanSpec, make_scans


@pytest.fixture(scope="module")
def rescan():
    """A fine scan and a mirrored, turned, bent and stitched coarse scan of it."""
    side = 1440
    scene = synthetic_tissue(side, side, seed=31)
    angle, stretch, scale = np.deg2rad(93.0), 1.012, 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = scale * stretch * turn @ np.diag([-1.0, 1.0])
    size = 640

    def displacement(u, v):
        drift_x, drift_y = 2.5 * np.sin(u / 150), 2 * np.cos(v / 140)
        return drift_x + np.where(v > 60, 6.0, 0.0), drift_y

    middle = (side / 2, side / 2)
    view = FieldOfView(linear=linear, centre=middle, side_px=size, displacement=displacement)
    lr = to_uint8(render(scene, view))

    def true_place(points):
        u = points - size / 2
        return u @ linear.T + side / 2 + np.column_stack(displacement(u[:, 0], u[:, 1]))

    return MemorySlide(lr, 2.0), MemorySlide(to_uint8(scene), 1.0), true_place, size


@pytest.fixture(scope="module")
def registration(rescan):
    moving, fixed, _, _ = rescan
    return register_scans(moving, fixed, seed=0, spacing_um=130.0)


def test_turn_mirror_and_stretch_are_found(registration):
    assert registration.same_glass
    assert registration.mirrored
    assert registration.stated_scale == 2
    assert registration.scale == pytest.approx(2.024, abs=1e-2)  # drift has a share in it
    assert registration.rotation_deg == pytest.approx(93.0, abs=0.3)


def test_drift_is_followed_and_the_seam_is_found(registration, rescan):
    _, _, true_place, size = rescan
    assert registration.seams
    assert all(seam.top < size / 2 + 60 < seam.bottom for seam in registration.seams)
    nodes = registration.positions[registration.piece >= 0]
    off = np.linalg.norm(registration.place(nodes) - true_place(nodes), axis=1)
    assert np.median(off) < 0.15
    assert registration.field_rms_px < 0.3


def test_patches_register_inside_the_field(registration, rescan):
    moving, fixed, true_place, _ = rescan
    for x, y in ((120, 150), (400, 460)):
        plan = registration.plan_patch(x, y, 128, 128)
        assert not plan.straddles_seam
        box = plan.box
        region = plan.orientation.apply(fixed.read_level(0, box.x, box.y, box.width, box.height))
        lr = moving.read_level(0, x, y, 128, 128)
        region = np.ascontiguousarray(region)
        found = register_pair(lr, region, 2, "affine", initial=plan.initial)
        assert found.accepted, found.reason
        centre = aff.apply(aff.to_matrix(found.affine), np.array([64.0, 64.0]))
        back = aff.invert(aff.to_matrix(plan.orientation.matrix(box.width, box.height)))
        place = aff.apply(back, centre) + np.array([box.x, box.y])
        truth = true_place(np.array([[x + 64.0, y + 64.0]]))[0]
        assert np.linalg.norm(place - truth) < 0.3
        hr = take_hr(region, found, 128, 128)
        assert hr.pixels.shape == (256, 256, 3)
        assert hr.resampled  # 1.2 % of stretch is more than half a pixel over the patch
    assert registration.plan_patch(280, 320, 128, 128).straddles_seam


@pytest.mark.parametrize(
    ("ratio", "rotation_deg", "mirrored"), [(1.0, 4.0, True), (1.52, 91.0, False)]
)
def test_any_ratio_is_measured_and_its_patches_certified(ratio, rotation_deg, mirrored):
    spec = ScanSpec(ratio=ratio, rotation_deg=rotation_deg, mirrored=mirrored, side_px=600)
    pair = make_scans(spec)
    found = register_scans(pair.moving, pair.fixed, spacing_um=130.0)
    assert found.same_glass
    assert found.mirrored == mirrored
    assert found.scale == pytest.approx(ratio, rel=5e-4)
    nodes = found.positions[found.piece >= 0]
    off = np.linalg.norm(found.place(nodes) - pair.place(nodes), axis=1)
    assert np.median(off) < 0.05
    samples = sample_pairs(found, pair.moving, pair.fixed, 4)
    assert all(sample.certificate.accepted for sample in samples)
    for sample in samples:
        centre = np.array([[sample.x + sample.size_px / 2, sample.y + sample.size_px / 2]])
        true = pair.place(centre)[0]
        assert np.hypot(sample.fixed_x - true[0], sample.fixed_y - true[1]) < 0.1


def test_samples_prove_the_pairs(registration, rescan):
    moving, fixed, _, _ = rescan
    table = sample_table(sample_pairs(registration, moving, fixed, 4, seed=1))
    assert table["patches"] == 4
    assert table["accepted"] >= 2  # patches on the seam are rejected
    assert table["ncc_band"] > 0.8


def test_registrations_survive_json(registration):
    again = ScanRegistration.from_json(json.loads(json.dumps(registration.to_json())))
    assert again.predict(300, 300) == registration.predict(300, 300)
    assert again.summary() == registration.summary()
    assert again.seams == registration.seams


def test_other_glass_is_no_pair(rescan):
    moving, _, _, _ = rescan
    other = MemorySlide(to_uint8(synthetic_tissue(900, 900, seed=99)), 1.0)
    with pytest.raises(RegistrationError, match="too little in common"):
        register_scans(moving, other)


def test_tissue_that_repeats_itself_is_placed_nowhere(rescan):
    tile = to_uint8(synthetic_tissue(320, 320, seed=31))
    repeated = np.full((760, 760, 3), 236, np.uint8)
    repeated[60:700, 60:700] = np.tile(tile, (2, 2, 1))
    noise = np.random.default_rng(0).normal(0, 3, repeated.shape)
    moving = MemorySlide(to_uint8(repeated + noise)[40:700, 50:710], 1.0)
    found = register_scans(moving, MemorySlide(repeated, 1.0), spacing_um=110.0)
    assert not found.same_glass
    assert "repeats itself: 320 um further on" in found.reason
    once = np.ascontiguousarray(rescan[1].image[:700, :700])
    other = other_place(once, np.roll(once, 5, axis=1), np.array([[1.0, 0, 5], [0, 1, 0]]))
    assert other.share < 0.2
    assert not other.as_good


def test_tissue_that_one_scan_lacks_is_no_sign_of_another_glass(rescan, registration):
    moving, fixed, _, _ = rescan
    lost = fixed.image.copy()
    lost[:, :900] = 238
    found = register_scans(moving, MemorySlide(lost, 1.0), spacing_um=130.0)
    assert found.same_glass
    assert 8 <= len(found.positions) < 0.8 * len(registration.positions)


def test_a_scan_of_a_part_of_the_glass_is_placed_with_as_many_nodes(rescan):
    moving, fixed, true_place, _ = rescan
    part = MemorySlide(np.ascontiguousarray(fixed.image[460:1060, 420:980]), 1.0)
    found = register_scans(moving, part, spacing_um=130.0)
    assert found.same_glass
    nodes = found.positions[found.piece >= 0]
    assert len(nodes) > 20
    places = found.place(nodes)
    assert (places > 0).all() and (places < [560, 600]).all()
    off = np.linalg.norm(places - (true_place(nodes) - [420, 460]), axis=1)
    assert np.median(off) < 0.3
    assert not found.reason


def test_roles_and_resolutions_are_checked(rescan):
    moving, fixed, _, _ = rescan
    with pytest.raises(RegistrationError, match="MOVING must be the coarse scan"):
        register_scans(fixed, moving)
    with pytest.raises(RegistrationError, match="up to 8"):
        register_scans(MemorySlide(moving.image, 10.0), fixed)
    with pytest.raises(RegistrationError, match="resolution"):
        register_scans(MemorySlide(moving.image, None), fixed)


@pytest.mark.parametrize("seed", [0, 2])
def test_overviews_at_any_turn_and_mirrored(seed):
    rms, mirror_right = overview_error_px(make_overviews(seed, side_px=640))
    assert mirror_right
    assert rms < 0.05


def turned(image, angle_deg=0.7):
    """The overview as a second scan sees it: a little turned, shifted and narrower."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle_deg, 1.0)
    turn[:, 2] += [5, 3]
    flags = cv2.INTER_CUBIC
    return cv2.warpAffine(image, turn, (width, height), flags=flags)[12:-12, 12:-12]


def test_a_small_scan_is_found_in_a_large_one_tile_by_tile(monkeypatch):
    pair = make_overviews(0)
    whole = register_overviews(pair.moving, pair.fixed)
    corner, side = np.array([300, 340]), 240
    small = pair.moving[corner[1] : corner[1] + side, corner[0] : corner[0] + side]
    monkeypatch.setattr(overview, "MAX_SIDE_PX", 500)
    found = register_overviews(np.ascontiguousarray(small), pair.fixed, same_glass_only=True)
    ends = np.array([[0.0, 0.0], [side, side], [side, 0.0]])
    there = aff.apply(whole.matrix, ends + corner)
    assert np.linalg.norm(aff.apply(found.matrix, ends) - there, axis=1).max() < 1.0


def test_scans_of_like_size_are_looked_at_once_and_a_much_smaller_one_again_finer():
    large = MemorySlide(np.zeros((900, 1200, 3), np.uint8), 8.0)
    assert overview_steps(large, large) == (8.0,)
    small = MemorySlide(np.zeros((600, 600, 3), np.uint8), 0.5)
    first, *finer = overview_steps(small, large)
    assert first == 8.0
    assert finer == []  # the large one has no finer pixels
    fine = MemorySlide(np.zeros((2000, 2500, 3), np.uint8), 0.5)
    steps = overview_steps(MemorySlide(np.zeros((150, 150, 3), np.uint8), 0.5), fine)
    assert steps[-1] == 0.5
    assert all(a > b for a, b in itertools.pairwise(steps))


def test_tissue_that_mirrors_itself_is_no_tie():
    """A sixth of it lies outside the mirror image, so the features nearly tie and pixels tell."""
    half = to_uint8(synthetic_tissue(360, 240, seed=5))
    fixed = np.ascontiguousarray(np.concatenate([half, half[:, ::-1]], axis=1)[:, :400])
    for mirrored in (False, True):
        shown = np.ascontiguousarray(fixed[:, ::-1]) if mirrored else fixed
        match = register_overviews(turned(shown), fixed)
        assert match.other_inliers > match.inliers / 2  # a tie, were it for features alone
        assert match.mirrored == mirrored
        assert not match.loose


def test_whole_symmetry_is_taken_as_not_mirrored():
    half = to_uint8(synthetic_tissue(360, 180, seed=5))
    fixed = np.concatenate([half, half[:, ::-1]], axis=1)
    match = register_overviews(turned(fixed), fixed)
    assert match.other_inliers > match.inliers / 2
    assert not match.mirrored


def test_a_symmetric_mark_on_two_glasses_makes_them_no_pair():
    mark = to_uint8(synthetic_tissue(140, 70, seed=6))
    mark = np.concatenate([mark, mark[:, ::-1]], axis=1)
    first, second = (to_uint8(synthetic_tissue(360, 360, seed=seed)) for seed in (7, 8))
    first[100:240, 90:230] = second[100:240, 90:230] = mark
    with pytest.raises(RegistrationError, match="too little in common"):
        register_overviews(turned(first), second)


def test_pieces_separate_seams_from_mistakes():
    x, y = np.meshgrid(np.arange(8) * 100.0, np.arange(6) * 100.0)
    positions = np.stack([x, y], axis=-1).reshape(-1, 2)
    residuals = np.column_stack([positions[:, 0] / 500, np.zeros(48)])
    residuals[positions[:, 1] > 250] += [4.0, 0.0]
    mistake = 9
    residuals[mistake] += [30.0, -10.0]
    label = split_pieces(positions, residuals, 100.0)
    assert label[mistake] == -1
    assert set(label[np.arange(48) != mistake]) == {0, 1}
    field = ResidualField(positions, residuals, label, 100.0)
    above, below = field(np.array([[350.0, 120.0], [350.0, 420.0]]))
    assert above == pytest.approx([0.7, 0.0], abs=0.05)
    assert below == pytest.approx([4.7, 0.0], abs=0.05)
    nothing = split_pieces(np.zeros((0, 2)), np.zeros((0, 2)), 100.0)
    empty = ResidualField(np.zeros((0, 2)), np.zeros((0, 2)), nothing, 100.0)
    assert empty(np.array([[1.0, 2.0]])).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("op", list(D4))
def test_orientations_move_pixels_as_their_matrix_says(op):
    image = np.arange(12).reshape(3, 4)
    turned = op.apply(image)
    matrix = aff.to_matrix(op.matrix(4, 3))
    for row in range(3):
        for column in range(4):
            x, y = aff.apply(matrix, np.array([column + 0.5, row + 0.5]))
            assert turned[int(y), int(x)] == image[row, column]
    np.testing.assert_array_equal(op.inverse().apply(turned), image)
    tilt = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    assert nearest_orientation(1.7 * tilt @ matrix[:, :2]) == op


def test_exact_shifts_are_cut_out_and_turned_ones_resampled_once():
    exact = make_pair("A0", 1, lr_px=64)
    found = register_pair(exact.lr, exact.hr_region)
    crop = take_hr(exact.hr_region, found, 64, 64)
    assert not crop.resampled
    assert crop_residual_px(found, 64, 64) < 0.05
    x, y = found.offset_x, found.offset_y
    np.testing.assert_array_equal(crop.pixels, exact.hr_region[y : y + 256, x : x + 256])
    turned = make_pair("B2", 2, lr_px=96)
    map_found = register_pair(turned.lr, turned.hr_region, 4, "affine")
    assert crop_residual_px(map_found, 96, 96) > 0.5
    assert not take_hr(turned.hr_region, map_found, 96, 96, allow_resampling=False).resampled


def test_resampling_is_exact_on_a_smooth_image():
    case = make_pair("A0", 1, lr_px=32)
    found = register_pair(case.lr, case.hr_region)
    y, x = np.mgrid[0:154, 0:154] + 0.5
    smooth = np.repeat((128 + 60 * np.sin(x / 9) * np.cos(y / 11))[..., None], 3, axis=2)
    affine = ((4.03, 0.05, 9.3), (-0.04, 3.98, 12.7))
    turned = type(found)(**{**vars(found), "affine": affine})
    hr = take_hr(to_uint8(smooth), turned, 32, 32)
    u, v = np.meshgrid((np.arange(128) + 0.5) / 4, (np.arange(128) + 0.5) / 4)
    px, py = 4.03 * u + 0.05 * v + 9.3, -0.04 * u + 3.98 * v + 12.7
    expected = 128 + 60 * np.sin(px / 9) * np.cos(py / 11)
    assert hr.resampled
    # Half a grey level of rounding before and after, the first a little amplified by splines.
    assert np.abs(hr.pixels[..., 0] - expected).max() < 1.5


def test_simulated_second_scan_of_a_real_slide(shared_data, tmp_path):
    folder = shared_data / "registration" / "second_scan_cmu"
    truth = json.loads((folder / "truth.json").read_text())
    truth = truth["p_fixed = A p_moving + b, (x,y) pixel indices"]
    linear, shift = np.array(truth["A"]), np.array(truth["b"])
    scans = (folder / "moving_10x.tif", shared_data / "slides" / "CMU-1-Small-Region.svs")
    arguments = ["scans", *map(str, scans), "-o", str(tmp_path), "--samples", "4"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    transform = json.loads((tmp_path / "transform.json").read_text())
    found = ScanRegistration.from_json(transform)
    nodes = found.positions
    # The truth is in pixel indices: centres at whole numbers; ours is in pixel edges.
    expected = (nodes - 0.5) @ linear.T + shift + 0.5
    assert np.abs(found.place(nodes) - expected).max() < 0.05
    assert np.abs(aff.apply(aff.to_matrix(found.matrix), nodes) - expected).max() < 0.05
    assert not found.mirrored
    assert found.rotation_deg == pytest.approx(3.0, abs=0.01)
    assert '"accepted": 4' in result.output
    overlay = np.asarray(Image.open(tmp_path / "overlay.png")).astype(float)
    assert np.mean(np.abs(overlay[..., 0] - overlay[..., 1])) < 12  # grey: they lie on each other
    assert (tmp_path / "residual-field.png").exists()
    assert (tmp_path / "residual-histogram.png").exists()


def landmarks(path):
    return np.loadtxt(path, delimiter=",", skiprows=1)[:, 1:] + 0.5


def test_serial_sections_are_placed_but_refused_as_pairs(shared_data):
    folder = shared_data / "registration" / "rat-kidney_5pc"
    he, ck = (
        cv2.cvtColor(cv2.imread(str(folder / name)), cv2.COLOR_BGR2RGB)
        for name in ("Rat-Kidney_HE.jpg", "Rat-Kidney_PanCytokeratin.jpg")
    )
    # The sections come at one scale: the fixed one is enlarged, as a finer scan would be.
    fine = cv2.resize(ck, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    found = register_scans(MemorySlide(he, 5.0), MemorySlide(fine, 2.5), spacing_um=600.0)
    source = landmarks(folder / "Rat-Kidney_HE.csv")
    target = 2 * landmarks(folder / "Rat-Kidney_PanCytokeratin.csv")
    count = min(len(source), len(target))
    off = np.linalg.norm(found.place(source[:count]) - target[:count], axis=1)
    assert np.median(off) < 12  # the best affine map of the landmarks leaves 7.0 of these px
    assert found.overview.loose
    assert not found.same_glass
    assert "not the same glass" in found.reason


@pytest.mark.parametrize(("name", "limit"), [("rigid", 4.0), ("affine", 2.5), ("elastic", 12.0)])
def test_artificial_images(shared_data, name, limit):
    folder = shared_data / "registration" / "artificial"
    moving, fixed = (
        cv2.cvtColor(cv2.imread(str(folder / f"artificial_{part}.jpg")), cv2.COLOR_BGR2RGB)
        for part in (f"moving-{name}", "reference")
    )
    match = register_overviews(moving, fixed)
    source = landmarks(folder / f"artificial_moving-{name}.csv")
    target = landmarks(folder / "artificial_reference.csv")
    off = np.linalg.norm(aff.apply(match.matrix, source) - target, axis=1)
    assert np.median(off) < limit
    if name == "elastic":
        # Every place matches, and no two of them agree: that is no proof of anything.
        found = register_scans(MemorySlide(moving, 1.0), MemorySlide(fixed, 1.0))
        assert not found.same_glass and "no neighbours agree" in found.reason
        assert found.summary()["error_px"] is None
