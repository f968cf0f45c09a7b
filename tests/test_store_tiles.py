"""`--codec slide`: the slide's own tiles, and patches that are those of a raw store."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from xxhash import xxh3_64_intdigest

from wsisr.building import (
    BuildRequest,
    BuildSummary,
    build_pairs,
    describe_plan,
    prepare,
    rebuild_from,
)
from wsisr.degradation.stores import SimulatedArray, degrade_store
from wsisr.errors import CorruptStoreError, DegradationError, ManifestError, StoreError
from wsisr.reporting import store_sections
from wsisr.reporting.store_facts import read_facts
from wsisr.runners import SerialRunner
from wsisr.slides.streams import LevelStreams, NotKept
from wsisr.store import StoreWriter, codecs, export_store, keep_pairs, open_pairs, verify_store
from wsisr.store.layout import SlidePaths
from wsisr.store.object_files import ObjectFiles
from wsisr.store.places import Place, place_of
from wsisr.store.presets import SLIDE, check_codec
from wsisr.store.reader import PairStore
from wsisr.store.tile_array import TileWriter
from wsisr.store.upload import upload_into
from wsisr.store.verify_slide import check_tiles
from wsisr.store.verify_splits import footprints, overlapping
from wsisr.store.window_reader import WindowReader
from wsisr.testing import SlideSpec, write_slide
from wsisr.training.data import PairDataset

KINDS: dict[str, dict[str, Any]] = {
    "a_jpeg": {"layout": "aperio", "tile_px": 160, "factors": (1, 2)},
    "b_jpeg2000": {"codec": "jpeg2000", "ycbcr": False, "tile_px": 128},
    "c_deflate": {"codec": "deflate"},
    "d_hole": {"missing_tiles": ((0, 2, 2),)},
}
TILED = ("a_jpeg", "b_jpeg2000", "d_hole")
OPTIONS: dict[str, Any] = {"hr": "20x", "lr": "10x", "size": 128}


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiles-slides")
    for seed, (name, more) in enumerate(KINDS.items(), start=3):
        known = {"layout": "generic", "width_px": 800, "height_px": 700, "factors": (1,)}
        known |= {"um_per_px": 0.5}
        spec = SlideSpec(seed=seed, **{**known, **more})
        write_slide(folder / f"{name}.tif", spec)
    return folder


def build(source: Path, output: Path, codec: str, **more: Any) -> BuildSummary:
    request = BuildRequest(
        source=source,
        output=output,
        overrides=OPTIONS | more,
        manifest="default",
        codec=codec,
    )
    summary = build_pairs(prepare(request), runner=SerialRunner())
    assert isinstance(summary, BuildSummary)
    return summary


@pytest.fixture(scope="module")
def built(
    slides: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, BuildSummary]:
    """The same slides as a raw store and as one of their own tiles."""
    folder = tmp_path_factory.mktemp("tiles")
    build(slides, folder / "raw.zarr", "raw")
    return folder / "raw.zarr", folder / "own.zarr", build(slides, folder / "own.zarr", SLIDE)


@pytest.fixture
def own(built: tuple[Path, Path, BuildSummary], tmp_path: Path) -> Path:
    return Path(shutil.copytree(built[1], tmp_path / "own.zarr"))


def window_reader(store: PairStore, slide: str = "a_jpeg") -> WindowReader:
    return store.slides[slide].windows()["20x"]


def same_pixels(one: PairStore, two: PairStore, seed: int = 0) -> int:
    """Compares everything, whole and in crops, in mixed batches; returns how many patches."""
    rng = np.random.default_rng(seed)
    pairs = one.table(columns=[], kept=False).index
    for array in one.arrays:
        size = one.reader("a_jpeg", array).shape[1]
        assert np.array_equal(one.read(pairs, array), two.read(pairs, array))
        some = pairs[rng.integers(0, len(pairs), 64)]
        y, x = rng.integers(0, size - 24, (2, 64))
        crops = {"y": y, "x": x, "h": 17, "w": 24}
        assert np.array_equal(one.read(some, array, **crops), two.read(some, array, **crops))
    return len(pairs)


def test_patches_are_those_of_a_raw_store(built: tuple[Path, Path, BuildSummary]) -> None:
    raw, own = open_pairs(built[0]), open_pairs(built[1], threads=2)
    assert same_pixels(raw, own) > 40
    for slide in raw.slides:
        assert np.array_equal(
            raw.slides[slide].column("digest"), own.slides[slide].column("digest")
        )
        assert own.slides[slide].tiled == (("20x",) if slide in TILED else ())
    ours, theirs = PairDataset(own), PairDataset(raw)
    for item in range(0, len(ours), 7):
        for name, pixels in theirs[item].items():
            assert (ours[item][name] == pixels).all()


def test_each_tile_is_stored_once_as_the_slide_has_it(
    built: tuple[Path, Path, BuildSummary], slides: Path
) -> None:
    codecs.register()
    store = open_pairs(built[1])
    group = zarr.open_group(built[1], mode="r")
    for slide in TILED:
        reader = window_reader(store, slide)
        members = group[f"slides/{slide}"]
        assert "20x" not in members and "20x-tiles" in members
        tiles = members["20x-tiles"][:]  # zarr-python, by the codec's name
        digests = [xxh3_64_intdigest(np.ascontiguousarray(tile)) for tile in tiles]
        assert members["tiles/digest"][:].tolist() == digests
        places = np.stack([members["tiles/row"][:], members["tiles/column"][:]], axis=1)
        assert len(np.unique(places, axis=0)) == len(tiles) == reader.tile_shape[0]
        used = {number for row in range(len(reader)) for number in reader.tiles(row)}
        assert used == set(range(len(tiles)))
        # The scan of a stored stream is the file's, byte for byte.
        data = (slides / f"{slide}.tif").read_bytes()
        assert reader.stored(0).tobytes()[-200:] in data


def test_what_cannot_be_kept_says_why_and_is_small(
    built: tuple[Path, Path, BuildSummary], slides: Path, tmp_path: Path
) -> None:
    summary, view = built[2], open_pairs(built[1]).slides["c_deflate"]
    assert view.attributes["not_tiled"] == "its tiles are neither JPEG nor JPEG 2000 in RGB"
    (warning,) = (text for text in summary.warnings if "own tiles" in text)
    assert "1 of 4 slides" in warning and "c_deflate" in warning
    assert "wsisr.htj2k" in (built[1] / "slides/c_deflate/20x/zarr.json").read_text()
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(slides / "a_jpeg.tif", one)
    for number, (more, words) in enumerate(
        [({"mpp": 0.6}, "resampled"), ({"registration.method": "subpixel"}, "one by one")]
    ):
        path = tmp_path / f"{number}.zarr"
        text = build(one, path, SLIDE, **more).text()
        assert words in text and open_pairs(path).slides["a_jpeg"].tiled == ()
    # A dry run says the same, before anything is built, and of a store that it would go on with.
    for output, codec, told in (("new", SLIDE, True), ("own", None, True), ("new", "raw", False)):
        request = BuildRequest(
            source=slides,
            output=built[1].parent / f"{output}.zarr",
            overrides=OPTIONS,
            manifest="default",
            codec=codec,
        )
        plan = describe_plan(prepare(request), runner=SerialRunner()).text
        assert (warning in " ".join(plan.split())) is told
    assert check_codec("slide") == SLIDE
    with pytest.raises(StoreError, match="slide"):
        check_codec("slides")


def test_the_page_says_which_slides_are_kept_as_their_own_tiles(
    built: tuple[Path, Path, BuildSummary],
) -> None:
    facts = read_facts(built[1], built[1].with_name("own.report"))
    assert "slide (own tiles of 3 of 4 slides)" in store_sections.provenance(facts)
    reason = "stored as codec small, not as its own tiles: its tiles are neither JPEG"
    assert reason in store_sections.levels(facts)
    plain = read_facts(built[0], built[0].with_name("raw.report"))
    assert "own tiles" not in store_sections.provenance(plain)


def test_a_tile_of_another_kind_in_the_middle_makes_the_whole_slide_small(
    slides: Path,
    built: tuple[Path, Path, BuildSummary],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    get, seen = LevelStreams.get, []

    def late(self: LevelStreams, row: int, column: int) -> bytes | None:
        seen.append((row, column))
        if len(seen) > 9:
            raise NotKept("its tiles differ in size")
        return get(self, row, column)

    monkeypatch.setattr(LevelStreams, "get", late)
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(slides / "a_jpeg.tif", one)
    build(one, tmp_path / "own.zarr", SLIDE)
    view = open_pairs(tmp_path / "own.zarr").slides["a_jpeg"]
    assert len(seen) == 10 and view.attributes["not_tiled"] == "its tiles differ in size"
    assert not (tmp_path / "own.zarr/slides/a_jpeg/20x-tiles").exists()
    assert verify_store(tmp_path / "own.zarr").ok


def test_verify_reads_streams_and_with_deep_their_pixels(own: Path) -> None:
    report = verify_store(own)
    assert report.ok and report.undecoded == 3 and "--deep" in report.text()
    report = verify_store(own, decode=True, duplicates=False)
    assert report.ok and report.undecoded == 0
    # A decoder that gives other pixels, or a stream in the place of another.
    view = open_pairs(own).slides["a_jpeg"]
    reader = view.windows()["20x"]
    digests = reader.table.digests.copy()
    digests[2] ^= 1
    reader.__dict__["table"] = replace(reader.table, digests=digests)
    columns = {"x": view.column("x"), "y": view.column("y")}
    for decode, count in ((False, 0), (True, 1)):
        found = check_tiles(reader, view, columns, read=True, decode=decode)
        assert len(found) == count and all(fault.check == "digest" for fault in found)
    with pytest.raises(CorruptStoreError, match="tile 2"):
        reader.window(int(np.argmax([2 in reader.tiles(row) for row in range(len(reader))])))
    columns["x"] = columns["x"] + np.arange(len(view)) % 2
    (found,) = check_tiles(reader, view, columns, read=False, decode=False)
    assert found.check == "geometry"


def test_windows_must_come_whole_and_lie_in_the_grid(own: Path, tmp_path: Path) -> None:
    reader = window_reader(open_pairs(own), "b_jpeg2000")
    spec, window = open_pairs(own).slides["b_jpeg2000"].spec("20x"), reader.window(0)
    beyond = reader.plan.columns * 128 - 64
    no_streams = {at: tile._replace(stream=None) for at, tile in window.tiles.items()}
    for number, (bad, words) in enumerate(
        [(replace(window, x=beyond), "outside"), (replace(window, tiles=no_streams), "stream")]
    ):
        put = SlidePaths(place_of(tmp_path / str(number)))
        with pytest.raises(StoreError, match=words):
            TileWriter(put, spec, reader.plan).add(bad)
    writer = StoreWriter.attach(own)
    with writer.slide("b_jpeg2000", [spec], tiles=reader.plan) as slide:
        with pytest.raises(StoreError, match="0 windows for 1 patches"):
            slide.append({"20x": reader.read([0])})
        slide.abort()
    with pytest.raises(StoreError, match="tiles of 40x"):
        writer.slide("b_jpeg2000", [spec], tiles=replace(reader.plan, array="40x"))


def test_a_damaged_stream_is_named_and_never_pixels(own: Path) -> None:
    shard = own / "slides/a_jpeg/20x-tiles/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[700] ^= 4
    shard.write_bytes(data)
    reader = window_reader(open_pairs(own))
    broken = [row for row in range(len(reader)) if 0 in reader.tiles(row)]
    whole = [row for row in range(len(reader)) if row not in broken]
    reader.read(whole)
    with pytest.raises(CorruptStoreError, match="CRC-32C"):
        reader.read(broken[:1])
    (fault,) = (f for f in verify_store(own, duplicates=False).findings if f.severity == "error")
    assert fault.array == "20x-tiles" and "1 tiles cannot be read (numbers 0)" in fault.text
    unchecked = open_pairs(own, verify=False).slides["a_jpeg"].reader("20x")
    assert unchecked.read(whole).shape[0] == len(whole)
    shard.unlink()
    with pytest.raises(CorruptStoreError, match="missing"):
        window_reader(open_pairs(own)).read([0])
    assert not verify_store(own, duplicates=False).ok


@pytest.mark.parametrize("part", ["row", "digest"])
def test_a_damaged_table_is_found(own: Path, part: str) -> None:
    path = own / f"slides/b_jpeg2000/tiles/{part}/c/0"
    path.write_bytes(path.read_bytes()[:-9])
    assert not verify_store(own, duplicates=False).ok
    with pytest.raises(CorruptStoreError):
        window_reader(open_pairs(own), "b_jpeg2000").read([0])


def test_footprints_are_whole_tiles(built: tuple[Path, Path, BuildSummary]) -> None:
    raw, own = (open_pairs(path).slides["a_jpeg"] for path in built[:2])
    patches, tiles = footprints(raw), footprints(own)
    assert (tiles[:, :2] <= patches[:, :2]).all() and (tiles[:, 2:] >= patches[:, 2:]).all()
    assert (tiles % 160 == 0).all()
    one = np.arange(len(raw)) % 2 == 0
    assert not overlapping(patches[one], patches[~one]).any()
    assert overlapping(tiles[one], tiles[~one]).any()


@pytest.mark.parametrize("form", ["png", "webdataset", "lmdb", "hdf5"])
def test_keep_and_export_know_no_difference(
    built: tuple[Path, Path, BuildSummary], own: Path, tmp_path: Path, form: str
) -> None:
    raw = Path(shutil.copytree(built[0], tmp_path / "raw.zarr"))
    made = []
    for path in (raw, own):
        keep_pairs(path, "tissue > 0.6")
        folder = tmp_path / f"{path.stem}-{form}"
        export_store(path, form, folder)
        files = {p.relative_to(folder): p for p in folder.rglob("*") if p.is_file()}
        # These two name the store.
        made.append(
            {n: p.read_bytes() for n, p in files.items() if n.suffix not in (".md", ".cff")}
        )
    assert made[0] == made[1] and len(made[0]) >= 3
    assert verify_store(own, decode=form == "png", duplicates=False).ok


def test_one_more_lr_keeps_the_tiles(
    built: tuple[Path, Path, BuildSummary], tmp_path: Path
) -> None:
    raw, own = tmp_path / "raw.zarr", tmp_path / "own.zarr"
    lower = SimulatedArray.of("bicubic", 4)
    with pytest.raises(DegradationError, match="no tiles"):
        degrade_store(built[0], raw, lower, codec=SLIDE)
    degrade_store(built[0], raw, lower)
    degrade_store(built[1], own, lower)
    degrade_store(built[1], tmp_path / "flat.zarr", lower, codec="raw")
    first = open_pairs(raw)
    for path in (own, tmp_path / "flat.zarr"):
        same_pixels(first, open_pairs(path))
        assert verify_store(path, decode=True, duplicates=False).ok
    for slide in TILED:
        name = f"slides/{slide}/20x-tiles/c/0/0/0/0"
        assert (own / name).read_bytes() == (built[1] / name).read_bytes()
        assert open_pairs(tmp_path / "flat.zarr").slides[slide].tiled == ()
    assert "not_tiled" in open_pairs(own).slides["c_deflate"].attributes
    assert "not_tiled" not in open_pairs(tmp_path / "flat.zarr").slides["c_deflate"].attributes


def test_a_record_rebuilds_the_same_bytes(
    slides: Path,
    built: tuple[Path, Path, BuildSummary],
    tmp_path: Path,
    tree_digest: Callable[[Path], str],
) -> None:
    record = built[1].with_name("own.report") / "record.json.gz"
    request = BuildRequest(source=slides, output=tmp_path / "own.zarr", overrides={})
    rebuild_from(request, record, runner=SerialRunner())
    assert tree_digest(tmp_path / "own.zarr") == tree_digest(built[1])


def test_a_snapped_grid_takes_the_fewest_tiles(slides: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.mkdir()
    # Tiles of 128 px fit patches of 128 px, those of 160 px do not: that is said.
    for name in ("a_jpeg", "b_jpeg2000"):
        shutil.copy(slides / f"{name}.tif", one)
    more = {"sampling.snap_tiles": True, "sampling.stride": 1.2}
    build(one, tmp_path / "own.zarr", SLIDE, **more)
    store = open_pairs(tmp_path / "own.zarr")
    reader = window_reader(store, "b_jpeg2000")
    assert len(reader) == reader.tile_shape[0] > 2
    assert (reader.table.corners % 256 == 0).all()  # 1.2 fields, rounded up to whole tiles
    notes = store.slides["a_jpeg"].attributes["notes"]
    assert "128 px and its tiles of 160 px" in " ".join(notes)
    assert not any("snapped" in text for text in store.slides["b_jpeg2000"].attributes["notes"])
    with pytest.raises(ManifestError, match="snap_tiles"):
        build(one, tmp_path / "x.zarr", "raw", **more, **{"sampling.kind": "cover"})


def test_a_bucket_gives_the_same(built: tuple[Path, Path, BuildSummary]) -> None:
    obstore = pytest.importorskip("obstore", reason="needs obstore (the extra s3)")
    files = ObjectFiles("memory://bucket/own.zarr", obstore.store.MemoryStore())
    upload_into(built[1], files)
    files.forget()
    same_pixels(open_pairs(built[0]), open_pairs(Place(files), threads=2, check=True))
