"""Where the frames of a DICOM series belong: levels, places, optical paths, focal planes.

Pure arithmetic on headers (PS3.3 C.8.12.4 and C.7.6.17.3): no frame is read here. A series is a set
of instances; a large one may be cut into files (a concatenation). In a TILED_FULL instance frames
lie row by row, then by focal plane, then by optical path; in a TILED_SPARSE one each says where
it lies. What does not fit is refused: a frame at a wrong place is a wrong pixel.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsisr.arrays import BoolArray, Float64Array, Int32Array
from wsisr.errors import SlideError
from wsisr.slides.dicom_files import spacing_um
from wsisr.slides.faults import RefusedSlideError
from wsisr.slides.focal import choose_plane
from wsisr.slides.tiles import TileGrid

MAX_FRAMES = 50_000_000
BRIGHTFIELD, TRANSMISSION = "111744", "111741"
"""Codes of the illumination types (PS3.16 CID 8123) that make a colour slide."""
SAME_DIRECTION = 0.01
"""Largest difference of direction cosines of levels that lie alike."""
FACTOR_TOLERANCE = 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class DicomFile:
    """One file of a series: its header, and the byte where its pixel element starts."""

    path: Path
    header: Any
    position: int

    @property
    def frames(self) -> int:
        """Frames that the file holds."""
        return int(self.header.get("NumberOfFrames", 1))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole image, pixels."""
        width = int(self.header.get("TotalPixelMatrixColumns", 0) or 0)
        height = int(self.header.get("TotalPixelMatrixRows", 0) or 0)
        if width < 1 or height < 1:
            raise SlideError(
                f"{self.path}: the header states no size of the whole image; copy it again."
            )
        return width, height

    @property
    def full(self) -> bool:
        """Whether its frames lie in the order that TILED_FULL fixes."""
        stated = str(self.header.get("DimensionOrganizationType", "") or "")
        if stated:
            return stated != "TILED_SPARSE"
        return not self.header.get("PerFrameFunctionalGroupsSequence")


@dataclass(frozen=True, kw_only=True, eq=False)
class LevelLayout:
    """One level: its grid, and which frame of which file lies at each tile (-1: none).

    Attributes
    ----------
    grid : TileGrid
        As stored.
    file_of, frame_of : ndarray of int32, shape (rows, columns)
    moved_px : (int, int)
        By how many of its own pixels, right and down, the level must be moved to lie on level 0.
    """

    grid: TileGrid
    files: tuple[DicomFile, ...]
    file_of: Int32Array
    frame_of: Int32Array
    moved_px: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class SeriesLayout:
    """The levels of a series, finest first, with what was chosen and left out."""

    levels: tuple[LevelLayout, ...]
    quirks: tuple[str, ...]
    focal_plane: int | None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Frames:
    """Places of all frames of the files of one level; arrays of one length."""

    file: Int32Array
    frame: Int32Array
    row: Int32Array
    column: Int32Array
    path: NDArray[np.object_]
    z: Float64Array


def lay_out(path: Path, files: Sequence[DicomFile], focal_plane: int | None) -> SeriesLayout:
    """Order the files of a series into levels of one optical path and one focal plane.

    Parameters
    ----------
    path : Path
        What the series is called in messages.
    files : sequence of DicomFile
        Its volume images.
    focal_plane : int, optional
        Counted from 1; the middle one by default.

    Raises
    ------
    RefusedSlideError
        If frames are missing, lie off their grid or twice at one place, or no optical path is
        brightfield.
    """
    wanted_path, quirks = _choose_path(path, files)
    groups: dict[tuple[int, int], list[DicomFile]] = defaultdict(list)
    for file in files:
        if wanted_path in _path_ids(file):
            groups[file.size].append(file)
    levels: list[LevelLayout] = []
    planes = 1
    plane: int | None = None
    for size, members in sorted(groups.items(), key=lambda item: -item[0][0] * item[0][1]):
        members.sort(key=_first_frame)
        grid = _grid(members[0])
        found = _frames(members, grid)
        found = _pick(found, found.path == wanted_path)
        heights = np.unique(found.z)
        if not levels:
            planes = len(heights)
            plane, sentence = choose_plane(path, planes, focal_plane)
            quirks += [sentence] if sentence else []
        elif len(heights) != planes:
            quirks.append(
                f"The level of {size[0]} x {size[1]} px has {len(heights)} focal plane(s) where "
                f"the finest has {planes}; it is not used."
            )
            continue
        wanted_z = heights[0 if plane is None else plane - 1]
        levels.append(_place(members, grid, _pick(found, found.z == wanted_z)))
    placed, sentences = _on_level_0(levels)
    return SeriesLayout(levels=placed, quirks=(*quirks, *sentences), focal_plane=plane)


def _choose_path(path: Path, files: Sequence[DicomFile]) -> tuple[str, list[str]]:
    """The optical path to read, and the sentence that names all where there are several."""
    paths: dict[str, Any] = {}
    for file in files:
        for item in _paths(file):
            paths.setdefault(_path_id(item), item)
    if len(paths) == 1:
        return next(iter(paths)), []
    names = ", ".join(_describe_path(name, item) for name, item in sorted(paths.items()))
    for code in (BRIGHTFIELD, TRANSMISSION):
        fits = [name for name, item in sorted(paths.items()) if code in _codes(item)]
        if fits:
            chosen = _describe_path(fits[0], paths[fits[0]])
            return fits[0], [
                f"The file holds {len(paths)} optical paths ({names}); {chosen} is read."
            ]
    raise RefusedSlideError(
        f"{path}: {len(paths)} optical paths ({names}) of which none is said to be brightfield; "
        "such slides (fluorescence, spectral) are not read."
    )


def _paths(file: DicomFile) -> Any:
    """Optical paths of a file, in the order of its frames; an unnamed one where none is stated."""
    return file.header.get("OpticalPathSequence") or [{}]


def _path_id(item: Any) -> str:
    return str(item.get("OpticalPathIdentifier", "") or "")


def _path_ids(file: DicomFile) -> list[str]:
    return [_path_id(item) for item in _paths(file)]


def _codes(item: Any) -> list[str]:
    return [str(k.get("CodeValue", "")) for k in item.get("IlluminationTypeCodeSequence") or []]


def _describe_path(name: str, item: Any) -> str:
    kinds = item.get("IlluminationTypeCodeSequence") or []
    words = [str(kind.get("CodeMeaning", "")) for kind in kinds]
    words = [word for word in (*words, str(item.get("OpticalPathDescription", "") or "")) if word]
    return f"{name or 'unnamed'!r}" + (f" ({', '.join(words)})" if words else "")


def _grid(file: DicomFile) -> TileGrid:
    width, height = file.size
    return TileGrid(
        width_px=width,
        height_px=height,
        tile_width_px=int(file.header.get("Columns", 0) or 0) or 1,
        tile_height_px=int(file.header.get("Rows", 0) or 0) or 1,
    )


def _first_frame(file: DicomFile) -> int:
    return int(file.header.get("ConcatenationFrameOffsetNumber", 0) or 0)


def _planes(file: DicomFile) -> int:
    return int(file.header.get("TotalPixelMatrixFocalPlanes", 1) or 1)


def _frames(members: list[DicomFile], grid: TileGrid) -> _Frames:
    """Where every frame of the files of a level lies."""
    tiles = grid.columns * grid.rows
    stored = sum(member.frames for member in members)
    whole: dict[str, int] = defaultdict(int)
    for number, member in enumerate(members):
        uid = str(member.header.get("ConcatenationUID", "") or number)
        whole[uid] += member.frames
    needed = tiles * _planes(members[0]) * len(_path_ids(members[0]))
    short = members[0].full and min(whole.values()) < needed
    if tiles > MAX_FRAMES or short:
        raise RefusedSlideError(
            f"{members[0].path}: claims {grid.width_px} x {grid.height_px} px in {needed:,} frames "
            f"but the series holds {stored:,}; a file is missing or damaged."
        )
    parts = [
        _full_frames(number, member, grid) if member.full else _sparse_frames(number, member, grid)
        for number, member in enumerate(members)
    ]
    return _Frames(
        **{
            f.name: np.concatenate([getattr(part, f.name) for part in parts])
            for f in fields(_Frames)
        }
    )


def _full_frames(number: int, member: DicomFile, grid: TileGrid) -> _Frames:
    tiles, planes = grid.columns * grid.rows, _planes(member)
    ids = np.array(_path_ids(member), dtype=object)
    frame = np.arange(member.frames, dtype=np.int64)
    at = frame + _first_frame(member)
    keep = at < tiles * planes * len(ids)  # what lies beyond is padding
    frame, at = frame[keep], at[keep]
    tile = at % tiles
    return _Frames(
        file=np.full(frame.size, number, np.int32),
        frame=frame.astype(np.int32),
        row=(tile // grid.columns).astype(np.int32),
        column=(tile % grid.columns).astype(np.int32),
        path=ids[at // (tiles * planes)],
        # Only the order counts; planes in files of their own are told apart by their offsets.
        z=_origin(member.header)[2] + (at // tiles % planes).astype(np.float64),
    )


def _sparse_frames(number: int, member: DicomFile, grid: TileGrid) -> _Frames:
    header = member.header
    only = _path_ids(member)
    shared = _first(header.get("SharedFunctionalGroupsSequence"))
    rows, columns, paths, heights = [], [], [], []
    groups = list(header.get("PerFrameFunctionalGroupsSequence", []))[: member.frames]
    for frame, group in enumerate(groups):
        place = _first(group.get("PlanePositionSlideSequence"))
        try:
            x = int(place.ColumnPositionInTotalImagePixelMatrix) - 1
            y = int(place.RowPositionInTotalImagePixelMatrix) - 1
        except AttributeError as error:
            raise SlideError(
                f"{member.path}: frame {frame + 1} has no position; copy the file again."
            ) from error
        row, row_rest = divmod(y, grid.tile_height_px)
        column, column_rest = divmod(x, grid.tile_width_px)
        if row_rest or column_rest or not (0 <= row < grid.rows and 0 <= column < grid.columns):
            raise RefusedSlideError(
                f"{member.path}: frame {frame + 1} lies at ({x}, {y}), off the grid of its frames, "
                "so frames overlap; such slides are not read here."
            )
        rows.append(row)
        columns.append(column)
        heights.append(round(float(place.get("ZOffsetInSlideCoordinateSystem", 0) or 0), 6))
        paths.append(_frame_path(group, shared, only))
    return _Frames(
        file=np.full(len(rows), number, np.int32),
        frame=np.arange(len(rows), dtype=np.int32),
        row=np.array(rows, np.int32),
        column=np.array(columns, np.int32),
        path=np.array(paths, dtype=object),
        z=np.array(heights, np.float64),
    )


def _frame_path(group: Any, shared: Any, only: list[str]) -> str:
    """The optical path of a sparse frame."""
    for functional in (group, shared):
        named = _first(functional.get("OpticalPathIdentificationSequence")) if functional else None
        if named is not None:
            return _path_id(named)
    return only[0]


def _pick(found: _Frames, chosen: BoolArray) -> _Frames:
    return _Frames(**{f.name: getattr(found, f.name)[chosen] for f in fields(_Frames)})


def _place(members: list[DicomFile], grid: TileGrid, found: _Frames) -> LevelLayout:
    places = found.row.astype(np.int64) * grid.columns + found.column
    unique, counts = np.unique(places, return_counts=True)
    if bool((counts > 1).any()):
        twice = int(unique[counts > 1][0])
        raise RefusedSlideError(
            f"{members[0].path}: {int((counts > 1).sum()):,} places of the image of "
            f"{grid.width_px} x {grid.height_px} px have several frames (the first at row "
            f"{twice // grid.columns}, column {twice % grid.columns}) and the headers do not say "
            "how they differ; two scans may be mixed in one series."
        )
    file_of = np.full((grid.rows, grid.columns), -1, dtype=np.int32)
    frame_of = np.full((grid.rows, grid.columns), -1, dtype=np.int32)
    file_of[found.row, found.column] = found.file
    frame_of[found.row, found.column] = found.frame
    return LevelLayout(grid=grid, files=tuple(members), file_of=file_of, frame_of=frame_of)


def _on_level_0(levels: list[LevelLayout]) -> tuple[tuple[LevelLayout, ...], list[str]]:
    """Levels with the whole pixels by which their stated origins lie off level 0's.

    Fractions of a pixel are left to the measurement of levels. A level that lies turned against
    level 0 is left out; one whose origin differs without a stated orientation stays where it is
    stored (which axis of the slide its rows follow is not known), and only the measurement can
    make it an LR.
    """
    base = levels[0].files[0].header
    kept, sentences = [levels[0]], []
    for level in levels[1:]:
        header = level.files[0].header
        size = f"{level.grid.width_px} x {level.grid.height_px} px"
        directions, finest = _directions(header), _directions(base)
        if directions is None or finest is None:
            if _origin(header)[:2] != _origin(base)[:2]:
                sentences.append(
                    f"The level of {size} states another origin than the finest but no "
                    "orientation (ImageOrientationSlide), so its place is not known from the file."
                )
            kept.append(level)
            continue
        if np.abs(directions - finest).max() > SAME_DIRECTION:
            sentences.append(f"The level of {size} is turned against the finest; it is not used.")
            continue
        moved = _moved_px(base, header, directions)
        if moved != (0, 0):
            sentences.append(
                f"The level of {size} starts {moved[0]} px right and {moved[1]} px down of the "
                "finest by its stated origin, in its own pixels, and is read so."
            )
        kept.append(replace(level, moved_px=moved))
    return tuple(kept), sentences


def _moved_px(base: Any, header: Any, directions: Float64Array) -> tuple[int, int]:
    """Whole pixels of a level between its first pixel and level 0's."""
    spacing = spacing_um(header)
    if spacing is None or not (_states_origin(base) and _states_origin(header)):
        return 0, 0
    millimetres = np.array(_origin(header)[:2]) - np.array(_origin(base)[:2])
    along = directions[:, :2] @ millimetres
    return round(along[0] * 1000.0 / spacing[0]), round(along[1] * 1000.0 / spacing[1])


def _directions(header: Any) -> Float64Array | None:
    """Unit vectors of a row and of a column of pixels on the slide, shape (2, 3)."""
    stated = header.get("ImageOrientationSlide")
    if not stated or len(stated) != 6:
        return None
    return np.array([float(value) for value in stated], np.float64).reshape(2, 3)


def _states_origin(header: Any) -> bool:
    origin = _first(header.get("TotalPixelMatrixOriginSequence"))
    return origin is not None and "XOffsetInSlideCoordinateSystem" in origin


def _origin(header: Any) -> tuple[float, float, float]:
    """Place of the first pixel on the slide: x and y in mm, z in um; 0 where not stated."""
    origin = _first(header.get("TotalPixelMatrixOriginSequence"))
    if origin is None:
        return 0.0, 0.0, 0.0
    names = [f"{axis}OffsetInSlideCoordinateSystem" for axis in "XYZ"]
    x, y, z = (float(origin.get(name, 0) or 0) for name in names)
    return x, y, round(z, 6)


def _first(sequence: Any) -> Any:
    return sequence[0] if sequence else None
