"""Target registration error on landmarks: how far a map leaves places that a person marked.

Formats
-------
ANHIR and BIRL: one file for each image, CSV with an index and the columns X, Y, or ImageJ's
``.pts``; landmarks with one index belong together. BIRL's list of pairs names such files. ACROBAT:
one CSV with ``ihc_x, ihc_y, he_x, he_y`` in micrometres; IHC is the moving image. Ours: one CSV
with ``moving_x, moving_y, fixed_x, fixed_y``.

Readings
--------
Pixels are those of the image that is registered (ANHIR publishes landmarks at several scales;
take those of the scale at hand). They count from the centre of the first pixel, as ImageJ's
points and the arrays of the challenges do, so half a pixel is added. Micrometres become pixels
by the resolution of the image, not by the column ``mpp_*``, which describes the same level.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsisr.arrays import Float64Array
from wsisr.errors import RegistrationError
from wsisr.files import replace_file
from wsisr.registration import affine as aff
from wsisr.slides.protocol import Slide, SlideInfo
from wsisr.tables import csv_lines, markdown_table

Points = dict[str, tuple[float, float]]

OURS = ("moving_x", "moving_y", "fixed_x", "fixed_y")
ACROBAT = ("ihc_x", "ihc_y", "he_x", "he_y")
BIRL = ("source image", "source landmarks", "target landmarks")
TOLERANCE_PX = 2.0
"""How far beyond the border of an image a landmark may lie."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Landmarks:
    """Landmarks of two scans, level-0 px, pixel edges.

    Attributes
    ----------
    moving, fixed : ndarray, shape (n, 2)
    unpaired : int
        Landmarks of one image that the other lacks.
    """

    moving: Float64Array
    fixed: Float64Array
    unpaired: int


def read_landmarks(paths: Sequence[Path], moving: SlideInfo, fixed: SlideInfo) -> Landmarks:
    """Read landmarks of two scans from one file or two (moving first).

    Raises
    ------
    RegistrationError
        A file of no known format, none for these images, fewer than three pairs, or landmarks
        outside the images.
    """
    if len(paths) == 2:
        found = _joined(_read_points(paths[0]), _read_points(paths[1]))
    elif len(paths) == 1:
        found = _read_both(paths[0], moving, fixed)
    else:
        raise RegistrationError("Landmarks are one file, or two: moving first, then fixed.")
    where = " and ".join(path.name for path in paths)
    if len(found.moving) < 3:
        raise RegistrationError(
            f"{where}: {len(found.moving)} landmarks are in both images; at least 3 are needed."
        )
    for points, info in ((found.moving, moving), (found.fixed, fixed)):
        base = info.levels[0]
        size = np.array([base.width_px, base.height_px])
        outside = int(np.sum((points < -TOLERANCE_PX) | (points > size + TOLERANCE_PX), dtype=int))
        if outside:
            raise RegistrationError(
                f"{where}: landmarks lie outside {info.path.name} ({base.width_px} x "
                f"{base.height_px} px). They belong to another image or another scale of it; "
                "register the scale that they were published for."
            )
    return found


def target_error(
    landmarks: Landmarks, places: Float64Array, fixed: SlideInfo
) -> dict[str, int | float]:
    """Distances of mapped moving landmarks, shape (n, 2), fixed level-0 px, from their places.

    In um, in those px, and over the diagonal of the fixed image, as ANHIR has it.
    """
    assert fixed.mpp is not None
    off = np.linalg.norm(places - landmarks.fixed, axis=1)
    known = np.percentile(off, [50, 90, 100]).tolist()
    ends = dict(zip(("median", "p90", "max"), known, strict=True))
    base = fixed.levels[0]
    diagonal = float(np.hypot(base.width_px, base.height_px))
    return {
        "landmarks": len(off),
        **{f"{name}_um": value * fixed.mpp.value for name, value in ends.items()},
        **{f"{name}_px": value for name, value in ends.items()},
        **{f"{name}_relative": ends[name] / diagonal for name in ("median", "p90")},
    }


def landmark_report(
    landmarks: Landmarks,
    place: Callable[[Float64Array], Float64Array],
    moving: Slide,
    fixed: Slide,
    others: Mapping[str, Path] | None = None,
) -> dict[str, dict[str, Any]]:
    """Target registration errors by name, as plain values.

    ``before`` lays both scans corner on corner at their stated resolutions; ``after`` is the map;
    ``best affine`` is fitted to the landmarks themselves: what a bend of the section and the
    hand that marked them leave to any affine map. `others` are files of the moving landmarks
    as another tool mapped them (fixed px, in a format of ANHIR, the same indices).
    """
    assert moving.info.mpp is not None and fixed.info.mpp is not None
    stated = moving.info.mpp.value / fixed.info.mpp.value
    best = aff.least_squares(landmarks.moving, landmarks.fixed)
    places = {
        "before": stated * landmarks.moving,
        "after": place(landmarks.moving),
        "best affine": aff.apply(best, landmarks.moving),
    }
    for name, path in (others or {}).items():
        points = np.array(list(_read_points(path).values()), dtype=np.float64)
        if len(points) != len(landmarks.moving):
            raise RegistrationError(
                f"{path.name}: {len(points)} points, but {len(landmarks.moving)} landmarks are "
                "in both images; another tool's points must be those, in their order."
            )
        places[name] = points
    return {name: target_error(landmarks, points, fixed.info) for name, points in places.items()}


def report_lines(report: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The errors as a Markdown table."""
    return markdown_table(
        ["target registration error", "n", "median", "90th percentile", "median / diagonal"],
        [
            (
                name,
                row["landmarks"],
                f"{row['median_um']:.3g} um ({row['median_px']:.3g} px)",
                f"{row['p90_um']:.3g} um ({row['p90_px']:.3g} px)",
                f"{row['median_relative']:.5f}",
            )
            for name, row in report.items()
        ],
    )


def write_points(path: Path, points: Float64Array) -> None:
    """Points (level-0 px, pixel edges) in ANHIR's format, which every tool reads."""
    rows = ([i, *(float(v) - 0.5 for v in point)] for i, point in enumerate(points))
    replace_file(path, csv_lines([["", "X", "Y"], *rows], ".4f"))


def _lines(path: Path) -> list[str]:
    """The lines of a file that hold something."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RegistrationError(f"{path}: landmarks cannot be read ({error}).") from None
    return [line for line in text.splitlines() if line.strip()]


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    lines = _lines(path)
    if not lines:
        raise RegistrationError(f"{path}: the file is empty.")
    separator = ";" if lines[0].count(";") > lines[0].count(",") else ","
    rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
    for line, row in enumerate(rows[1:], start=2):
        if any(value.strip() for value in row[len(rows[0]) :]):
            raise RegistrationError(
                f"{path}, line {line}: {len(row)} values under {len(rows[0])} column names, so "
                "that none of them is known to be X or Y. Name every column; that of an index may "
                "be empty (',X,Y')."
            )
    return [name.strip().lower() for name in rows[0]], rows[1:]


def _number(text: str, path: Path, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise RegistrationError(f"{path}, line {line}: {text!r} is no coordinate.")
    return value


def _read_points(path: Path) -> Points:
    """Landmarks of one image by their index, pixel edges."""
    if path.suffix.lower() == ".pts":
        return _read_pts(path)
    names, rows = _rows(path)
    if "x" not in names or "y" not in names:
        raise RegistrationError(
            f"{path}: no columns X and Y (it has {', '.join(names) or 'none'}); landmarks of one "
            "image have an index, X and Y."
        )
    x, y = names.index("x"), names.index("y")
    index = 0 if 0 not in (x, y) else None
    points: Points = {}
    for line, row in enumerate(rows, start=2):
        if len(row) <= max(x, y):
            raise RegistrationError(f"{path}, line {line}: {len(row)} values, X and Y missing.")
        name = str(line) if index is None else row[index].strip()
        if name in points:
            raise RegistrationError(f"{path}, line {line}: the index {name} stands there twice.")
        points[name] = (_number(row[x], path, line) + 0.5, _number(row[y], path, line) + 0.5)
    return points


def _read_pts(path: Path) -> Points:
    """ImageJ: ``point``, the count, then a line ``x y`` for each."""
    body = [line.split() for line in _lines(path)]
    if len(body) < 2 or body[0] not in (["point"], ["index"]) or body[1] != [str(len(body) - 2)]:
        raise RegistrationError(f"{path}: no ImageJ points (point, their number, then x y).")
    points: Points = {}
    for line, pair in enumerate(body[2:], start=3):
        if len(pair) != 2:
            raise RegistrationError(f"{path}, line {line}: x and y wanted.")
        points[str(line - 2)] = (
            _number(pair[0], path, line) + 0.5,
            _number(pair[1], path, line) + 0.5,
        )
    return points


def _joined(moving: Points, fixed: Points) -> Landmarks:
    both = [name for name in moving if name in fixed]
    return Landmarks(
        moving=np.array([moving[name] for name in both], dtype=np.float64).reshape(-1, 2),
        fixed=np.array([fixed[name] for name in both], dtype=np.float64).reshape(-1, 2),
        unpaired=len(moving) + len(fixed) - 2 * len(both),
    )


def _read_both(path: Path, moving: SlideInfo, fixed: SlideInfo) -> Landmarks:
    names, rows = _rows(path)
    if all(name in names for name in BIRL):
        return _from_list(path, names, rows, moving)
    if all(name in names for name in ACROBAT):
        assert moving.mpp is not None and fixed.mpp is not None
        rows = _of_image(names, rows, moving)
        unit, columns = (moving.mpp.value, fixed.mpp.value), ACROBAT
    elif all(name in names for name in OURS):
        unit, columns = (1.0, 1.0), OURS
    else:
        raise RegistrationError(
            f"{path}: columns {', '.join(names)}. One file has both images (ihc_x, ihc_y, he_x, "
            "he_y in um, or moving_x, moving_y, fixed_x, fixed_y in px); landmarks of one image "
            "need the file of the other as well: --landmarks MOVING.csv --landmarks FIXED.csv."
        )
    places = [names.index(name) for name in columns]
    if rows and all(not row[place].strip() for row in rows for place in places[2:]):
        raise RegistrationError(
            f"{path}: {columns[2]} and {columns[3]} are empty: the places in the fixed image are "
            "not in this file (challenges keep them), so there is nothing to compare with."
        )
    values = np.array(
        [
            [_number(row[place], path, line) for place in places]
            for line, row in enumerate(rows, start=2)
        ],
        dtype=np.float64,
    ).reshape(-1, 4)
    return Landmarks(
        moving=values[:, :2] / unit[0] + 0.5, fixed=values[:, 2:] / unit[1] + 0.5, unpaired=0
    )


def _of_image(names: list[str], rows: list[list[str]], moving: SlideInfo) -> list[list[str]]:
    """Rows of ACROBAT's table that belong to the moving image, by file name without suffix."""
    if "anon_filename_ihc" not in names:
        return rows
    column = names.index("anon_filename_ihc")
    mine = [row for row in rows if Path(row[column]).stem == moving.path.stem]
    cases = {row[column] for row in rows}
    if not mine and len(cases) > 1:
        raise RegistrationError(
            f"No landmarks of {moving.path.name} among {len(cases)} images; the column "
            "anon_filename_ihc must name the moving image."
        )
    return mine or rows


def _from_list(path: Path, names: list[str], rows: list[list[str]], moving: SlideInfo) -> Landmarks:
    """The row of BIRL's list of pairs whose source is the moving image."""
    source, first, second = (names.index(name) for name in BIRL)
    mine = [row for row in rows if Path(row[source]).stem == moving.path.stem]
    if len(mine) != 1:
        raise RegistrationError(
            f"{path}: {len(mine)} rows have {moving.path.name} as Source image; one is needed."
        )
    folder = path.parent.resolve()
    files = []
    for name in (mine[0][first], mine[0][second]):
        file = (folder / name).resolve()
        if not file.is_relative_to(folder):
            raise RegistrationError(f"{path}: {name} leads out of the list's folder.")
        files.append(file)
    return _joined(_read_points(files[0]), _read_points(files[1]))
