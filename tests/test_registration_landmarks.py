"""Target registration error: the formats of the challenges, planted errors, real landmarks."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner
from wsisr_cli.register import app

from wsisr.errors import RegistrationError
from wsisr.registration.landmarks import (
    landmark_report,
    read_landmarks,
    report_lines,
    target_error,
    write_points,
)
from wsisr.testing.two_scans import MemorySlide

PLACES = np.array([[10.0, 12.0], [100.5, 40.25], [30.0, 150.0], [180.0, 90.0]])


@pytest.fixture
def scans():
    moving = MemorySlide(np.full((200, 220, 3), 240, np.uint8), 1.0, "a.tif")
    fixed = MemorySlide(np.full((400, 440, 3), 240, np.uint8), 0.5, "b.tif")
    return moving, fixed


def write(path, header, rows, separator=","):
    lines = [header, *(separator.join(str(v) for v in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_two_files_are_joined_by_index_and_count_from_pixel_centres(scans, tmp_path):
    first = write(tmp_path / "m.csv", ",X,Y", [(i, *p) for i, p in enumerate(PLACES)])
    rows = [(i, *(2 * p)) for i, p in enumerate(PLACES)][::-1]
    second = write(tmp_path / "f.csv", ";X;Y", [*rows, (9, 5, 5)], ";")
    found = read_landmarks([first, second], scans[0].info, scans[1].info)
    np.testing.assert_allclose(found.moving, PLACES + 0.5)
    np.testing.assert_allclose(found.fixed, 2 * PLACES + 0.5)
    assert found.unpaired == 1


def test_imagej_points_and_birl_list(scans, tmp_path):
    for name, factor in (("m", 1), ("f", 2)):
        lines = [f"{x} {y}" for x, y in factor * PLACES]
        (tmp_path / f"{name}.pts").write_text("\n".join(["point", "4", *lines]) + "\n")
    header = ",Target image,Source image,Target landmarks,Source landmarks"
    table = write(tmp_path / "pairs.csv", header, [(0, "b.tif", "x/a.tif", "f.pts", "m.pts")])
    found = read_landmarks([table], scans[0].info, scans[1].info)
    np.testing.assert_allclose(found.fixed, 2 * PLACES + 0.5)
    leads_out = write(tmp_path / "o.csv", header, [(0, "b.tif", "a.tif", "../f.pts", "m.pts")])
    with pytest.raises(RegistrationError, match="leads out"):
        read_landmarks([leads_out], scans[0].info, scans[1].info)


def test_acrobat_is_in_micrometres_and_of_one_image(scans, tmp_path):
    header = "anon_id,anon_filename_ihc,point_id,ihc_x,ihc_y,mpp_ihc_10X,he_x,he_y"
    rows = [(1, "a.ndpi", i, *p, 1.0, *(p + 3)) for i, p in enumerate(PLACES)]
    other = [(2, "c.ndpi", 0, 1, 1, 1.0, 1, 1)]
    table = write(tmp_path / "acrobat.csv", header, rows + other)
    found = read_landmarks([table], scans[0].info, scans[1].info)
    np.testing.assert_allclose(found.moving, PLACES + 0.5)
    np.testing.assert_allclose(found.fixed, (PLACES + 3) / 0.5 + 0.5)
    kept_back = write(tmp_path / "k.csv", header, [(1, "a.ndpi", 0, 1, 1, 1.0, "", "")] * 3)
    with pytest.raises(RegistrationError, match="he_x and he_y are empty"):
        read_landmarks([kept_back], scans[0].info, scans[1].info)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([(0, 1, 2), (1, 3, "x"), (2, 4, 5)], "line 3: 'x' is no coordinate"),
        ([(0, 1, 2), (0, 3, 4), (2, 4, 5)], "stands there twice"),
        ([(0, 1, 2), (1, 3, 4)], "at least 3"),
        ([(0, 1, 2), (1, 3, 4), (2, 900, 5)], "another scale"),
        ([(0, 1), (1, 3), (2, 4)], "X and Y missing"),
        ([(0, 1, 2), (1, 2, 5, 6), (2, 4, 5)], "line 3: 4 values under 3 column names"),
    ],
)
def test_faulty_landmarks_are_refused_with_the_line(scans, tmp_path, rows, text):
    path = write(tmp_path / "m.csv", ",X,Y", rows)
    with pytest.raises(RegistrationError, match=text):
        read_landmarks([path, path], scans[0].info, scans[0].info)


def test_a_planted_error_comes_back(scans, tmp_path):
    moving, fixed = scans
    rows = [(*p, *(2 * p)) for p in PLACES]
    table = write(tmp_path / "l.csv", "moving_x,moving_y,fixed_x,fixed_y", rows)
    marks = read_landmarks([table], moving.info, fixed.info)
    theirs = tmp_path / "other.csv"
    write_points(theirs, np.add(marks.fixed, [3.0, 4.0]))
    report = landmark_report(
        marks, lambda points: np.add(marks.fixed, [0.6, 0.8]), moving, fixed, {"other": theirs}
    )
    assert report["after"]["median_px"] == pytest.approx(1.0)
    assert report["after"]["median_um"] == pytest.approx(0.5)
    assert report["other"]["p90_px"] == pytest.approx(5.0, abs=1e-3)
    assert report["other"]["median_relative"] == pytest.approx(5 / np.hypot(440, 400), rel=1e-3)
    assert report["best affine"]["max_px"] == pytest.approx(0.0, abs=1e-9)
    exact = target_error(marks, marks.fixed, fixed.info)
    assert exact["max_px"] == 0
    assert any("other" in line and "2.5 um (5 px)" in line for line in report_lines(report))


def test_the_command_prints_the_error_of_real_landmarks(shared_data, tmp_path):
    folder = shared_data / "registration" / "artificial"
    names = ("moving-rigid", "reference")
    images = [str(folder / f"artificial_{name}.jpg") for name in names]
    marks = [f"--landmarks={folder / f'artificial_{name}.csv'}" for name in names]
    resolution = ["--mpp-moving", "4", "--mpp-fixed", "4", "--samples", "0"]
    arguments = ["scans", *images, *marks, *resolution, "-o", str(tmp_path)]
    beside = f"--beside=again={tmp_path / 'mapped-landmarks.csv'}"
    CliRunner().invoke(app, arguments)
    result = CliRunner().invoke(app, [*arguments, beside])
    text = result.stdout
    found = json.loads(text[text.index("{") : text.rindex("}") + 1])["landmarks"]
    assert found["after"]["median_px"] < 2
    assert found["before"]["median_px"] > 50
    assert found["again"]["median_px"] == pytest.approx(found["after"]["median_px"], abs=1e-3)
