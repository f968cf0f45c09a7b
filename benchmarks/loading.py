"""The loading rows of the targets: how fast patches come out of a store.

Run by hand::

    python benchmarks/loading.py                       # generated noise-free H&E-like patches
    python benchmarks/loading.py --store pairs.zarr --array 40x

Of a store of `--codec slide` crops of 192 px, beside decoding the tiles that they touch.

zarrs (its pipeline in zarr-python) and tensorstore are measured beside where they are installed
and read the codec.

Every figure is patches per CPU second of this process (all threads), median of several rounds
that alternate between the readers, page cache warm; the ratio is to zarr-python's own per-patch
indexing in the same round. Nothing is asserted here: tests check the pixels, this prints.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

from wsisr.arrays import Int64Array, UInt8Array
from wsisr.slides.decode import decode_stream
from wsisr.store import ArraySpec, StoreWriter, open_pairs
from wsisr.store.metadata import read_node
from wsisr.store.places import Place
from wsisr.store.shard_layouts import DECODERS, known_layout
from wsisr.store.shards import ABSENT, CRC_BYTES, read_index
from wsisr.store.window_reader import DecodedTiles, WindowReader


def tissue_like(count: int, size: int) -> UInt8Array:
    """Patches with the entropy of a JPEG-compressed stained slide (Q80)."""
    rng = np.random.default_rng(0)
    side = size * 4
    base = np.zeros((side, side, 3), np.float32) + np.float32([225, 170, 200])
    for sigma, weight in ((40, 14), (8, 10), (2, 8), (0.7, 5)):
        layer = cv2.GaussianBlur(
            rng.standard_normal((side, side)).astype(np.float32), (0, 0), sigma
        )
        base += weight * (layer / layer.std())[..., None] * np.float32([0.7, 1.0, 0.6])
    for _ in range(side * side // 700):
        x, y = rng.integers(0, side, 2).tolist()
        axes = rng.integers(3, 9, 2).tolist()
        cv2.ellipse(base, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, (110, 70, 140), -1)
    image = np.clip(cv2.GaussianBlur(base, (0, 0), 0.8), 0, 255).astype(np.uint8)
    image = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], 1)
    starts = rng.integers(0, side - size, (count, 2))
    return np.stack([image[y : y + size, x : x + size] for y, x in starts.tolist()])


def make_store(path: Path, patches: UInt8Array, codec: str) -> tuple[float, float]:
    """Write one slide; returns MB per CPU second and the size against raw."""
    count, size = patches.shape[:2]
    root = {
        "created_with": {},
        "manifest": {"name": "benchmark"},
        "manifest_sha256": "0" * 64,
        "magnifications": ["40x"],
        "slides": ["a"],
    }
    began = time.process_time()
    writer = StoreWriter.create(path, root, codec=codec)
    with writer.slide("a", [ArraySpec(name="40x", size_px=size)]) as slide:
        for start in range(0, count, 64):
            slide.append({"40x": patches[start : start + 64]})
        table = {
            "x": np.arange(count) * size,
            "y": np.zeros(count, np.int64),
            "kept": np.ones(count, bool),
        }
        attributes = {
            "source": "generated",
            "fingerprint": "generated",
            "mpp": {"value": 0.25},
            "patient": "nobody",
            "split": "train",
        }
        slide.finish(table, np.ones((8, 8), np.uint8), attributes)
    writer.commit_splits({"train": np.stack((np.zeros(count, int), np.arange(count)), axis=1)})
    seconds = time.process_time() - began
    stored = sum(p.stat().st_size for p in (path / "slides/a/40x").rglob("*") if p.is_file())
    return patches.nbytes / 1e6 / seconds, stored / patches.nbytes


def pure_decoder(folder: Place) -> Callable[[Int64Array], None] | None:
    """Decoding alone, from memory: the limit of the codec."""
    node = read_node(folder)
    layout = known_layout(node.document)
    decode = None if layout is None else DECODERS.get(layout.codec)
    if layout is None or decode is None:
        return None
    chunks: dict[int, list[bytes]] = {}
    per_patch = layout.shards.chunks_per_patch
    for shard in range(layout.shards.shards(layout.patches)):
        place = node.place / f"c/{shard}/0/0/0"
        data = place.get()
        with place.files.open(place.key) as file:
            cells = layout.shards.patches * per_patch
            index = read_index(file, cells, str(place))
        for cell in range(len(index)):
            offset, length = index[cell].tolist()
            if offset != ABSENT:
                row = shard * layout.shards.patches + cell // per_patch
                chunks.setdefault(row, []).append(data[offset : offset + length - CRC_BYTES])
    side = layout.shards.tile_px

    def run(rows: Int64Array) -> None:
        for row in rows.tolist():
            for chunk in chunks[row]:
                decode(chunk, side)

    return run


def rate(read: Callable[[Int64Array], None], rows: Int64Array) -> float:
    """Patches per CPU second."""
    began = time.process_time()
    read(rows)
    return len(rows) / (time.process_time() - began)


def others(
    folder: Place,
) -> dict[str, tuple[Callable[[Int64Array], None], int]]:
    """Readers of other libraries that are installed and read this array."""
    found: dict[str, tuple[Callable[[Int64Array], None], int]] = {}
    where = folder.for_zarr()
    with suppress(ImportError):
        import zarr
        import zarrs  # noqa: F401 - names its pipeline

        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
            pipelined = zarr.open_array(where, mode="r")

        def by_zarrs(rows: Int64Array) -> None:
            for row in rows.tolist():
                pipelined[row]

        found["zarrs, one by one"] = (by_zarrs, 120)
    with suppress(ImportError, ValueError):
        import tensorstore

        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{where}/"}}
        opened = tensorstore.open(spec, open=True, read=True).result()

        def by_tensorstore(rows: Int64Array) -> None:
            for start in range(0, len(rows), 32):
                opened[rows[start : start + 32]].read().result()

        found["tensorstore, batches of 32"] = (by_tensorstore, 300)
    return found


def measure_tiles(reader: WindowReader, rounds: int) -> None:
    """Crops of a store that keeps the slide's own tiles, beside decoding the tiles that they touch.

    Readers find no tile decoded: what training on a large set meets.
    """
    import zarr

    count, size = reader.shape[:2]
    side, crop = reader.tile_shape[1], min(192, size)
    theirs = zarr.open_array(reader.place.for_zarr(), mode="r")
    kind = reader.plan.kind
    rng = np.random.default_rng(1)
    took: dict[str, list[float]] = {}
    touched: list[float] = []
    for _ in range(rounds):
        rows = rng.integers(0, count, 320)
        y, x = rng.integers(0, size - crop + 1, (2, len(rows)))
        under = [
            reader.tiles(*place, crop, crop)
            for place in zip(rows.tolist(), y.tolist(), x.tolist(), strict=True)
        ]
        numbers = [number for tiles in under for number in tiles]
        touched.append(len(numbers) / len(rows))
        streams = {number: reader.stored(number).tobytes() for number in set(numbers)}

        def decoder(numbers=numbers, streams=streams) -> int:
            for number in numbers:
                decode_stream(streams[number], kind, side)
            return 320

        def crops(rows=rows, y=y, x=x) -> int:
            for start in range(0, len(rows), 32):
                part = slice(start, start + 32)
                reader.read(rows[part], y=y[part], x=x[part], h=crop, w=crop)
            return 320

        def zarr_python(under=under) -> int:
            for tiles in under[:40]:
                for number in tiles:
                    theirs[number]
            return 40

        ways = {
            "decoding the tiles touched (limit)": decoder,
            f"ShardReader, {crop} px crops": crops,
            "zarr-python, the tiles touched": zarr_python,
        }
        for name, way in ways.items():
            began = time.process_time()
            done = way()
            took.setdefault(name, []).append((time.process_time() - began) / done)
    limit = took["decoding the tiles touched (limit)"]
    print(f"  tiles of {side} px, {statistics.median(touched):.2f} under a crop of {crop} px")
    print(f"  {'way':<36} {'crops / CPU s':>14} {'of the limit':>13}")
    for name, each in took.items():
        share = statistics.median(a / b for a, b in zip(limit, each, strict=True))
        print(f"  {name:<36} {1 / statistics.median(each):>14,.0f} {100 * share:>12.0f} %")


def measure(path: Path, slide: str, array: str, rounds: int) -> None:
    import zarr

    from wsisr.store import codecs

    codecs.register()
    store = open_pairs(path)
    reader = store.reader(slide, array)
    if isinstance(reader, WindowReader):
        none = DecodedTiles(limit_bytes=0)
        measure_tiles(WindowReader(reader.slide, array, len(reader), tiles=none), rounds)
        return
    folder = store.paths.slide(slide).array(array)
    theirs = zarr.open_array(folder.for_zarr(), mode="r")
    count, size = reader.shape[:2]
    crop = min(128, size)
    rng = np.random.default_rng(1)
    target = np.empty((32, size, size, 3), np.uint8)

    def batches(rows: Int64Array) -> None:
        for start in range(0, len(rows), 32):
            part = rows[start : start + 32]
            reader.read(part, out=target[: len(part)])

    def crops(rows: Int64Array) -> None:
        for start in range(0, len(rows), 32):
            part = rows[start : start + 32]
            corners = rng.integers(0, size - crop + 1, (2, len(part)))
            reader.read(part, y=corners[0], x=corners[1], h=crop, w=crop)

    def whole(rows: Int64Array) -> None:
        for start in range(0, len(rows), 32):
            part = np.stack((np.full(32, store.slide_index(slide)), np.zeros(32, int)), axis=1)
            part = part[: len(rows[start : start + 32])]
            part[:, 1] = rows[start : start + 32]
            store.read(part, array)

    def zarr_single(rows: Int64Array) -> None:
        for row in rows.tolist():
            theirs[row]

    def zarr_batch(rows: Int64Array) -> None:
        theirs.oindex[rows]

    readers: dict[str, tuple[Callable[[Int64Array], None], int]] = {
        "zarr-python, one by one": (zarr_single, 60),
        "zarr-python, oindex of 32": (zarr_batch, 32),
        "ShardReader, batches of 32": (batches, 600),
        "open_pairs().read, batches of 32": (whole, 600),
        f"ShardReader, {crop} px crops": (crops, 600),
    }
    readers |= others(folder)
    decoder = pure_decoder(folder)
    if decoder is not None:
        readers["decoding alone (limit)"] = (decoder, 200)
    rates: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name, (read, wanted) in readers.items():
            wanted = max(8, int(wanted * min(1.0, 256**2 / size**2)))
            rates[name].append(rate(read, rng.integers(0, count, wanted)))
    base = statistics.median(rates["zarr-python, one by one"])
    print(f"  {'reader':<34} {'patches / CPU s':>16} {'ratio':>7}")
    for name, values in rates.items():
        middle = statistics.median(values)
        print(f"  {name:<34} {middle:>16,.0f} {middle / base:>6.1f}x")
    if decoder is not None:
        limit = statistics.median(rates["decoding alone (limit)"])
        ours = statistics.median(rates["ShardReader, batches of 32"])
        print(
            f"  share of the decode limit: {100 * ours / limit:.0f} %; "
            f"decoding {limit * size * size * 3 / 1e6:.0f} MB / CPU s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, help="an existing store instead of generated ones")
    parser.add_argument("--slide", help="slide id (default: the first)")
    parser.add_argument("--array", help="array (default: the first)")
    parser.add_argument("--count", type=int, default=512, help="generated patches")
    parser.add_argument("--size", type=int, default=256, help="side of generated patches in px")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    names = ("zarr", "numcodecs", "imagecodecs", "numpy")
    print(
        f"{platform.platform()}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in names)
    )
    if options.store:
        store = open_pairs(options.store)
        slide = options.slide or next(iter(store.slides))
        array = options.array or store.slides[slide].arrays[0]
        print(f"{options.store}: {slide}, {array}")
        measure(options.store, slide, array, options.rounds)
        return
    patches = tissue_like(options.count, options.size)
    for codec in ("raw", "small", "zstd"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bench.zarr"
            speed, ratio = make_store(path, patches, codec)
            print(
                f"\n{codec}: {options.count} patches of {options.size} px, written at "
                f"{speed:.0f} MB / CPU s, size {ratio:.2f} of raw"
            )
            measure(path, "a", "40x", options.rounds)


if __name__ == "__main__":
    main()
