"""Shards are byte for byte what zarr-python writes, and read back bit for bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

from wsisr.store import ShardReader
from wsisr.store.codecs import Htj2kCodec
from wsisr.store.metadata import array_document, sharding_codec, to_json
from wsisr.store.places import place_of
from wsisr.store.presets import ZSTD_LEVEL, codec_preset
from wsisr.store.shard_layouts import known_layout
from wsisr.store.shards import (
    MIN_SHARD_BYTES,
    ShardFile,
    ShardLayout,
    morton_order,
    plan_shards,
    tile_layout,
)


def write_array(folder: Path, data: np.ndarray, layout: ShardLayout, codec: str) -> None:
    preset = codec_preset(codec)
    document = array_document(
        shape=data.shape,
        dtype=np.dtype(np.uint8),
        chunk_shape=layout.shard_shape,
        codecs=[sharding_codec(layout.inner_shape, preset.inner_codecs)],
        attributes={},
        dimensions=("patch", "y", "x", "channel"),
    )
    folder.mkdir(parents=True)
    (folder / "zarr.json").write_bytes(to_json(document))
    for shard in range(layout.shards(len(data))):
        file = ShardFile(place_of(folder / f"c/{shard}/0/0/0"), layout, preset.encoder(), None)
        for patch in data[shard * layout.patches : (shard + 1) * layout.patches]:
            file.add(patch)
        file.close()


def zarr_array(folder: Path, data: np.ndarray, layout: ShardLayout, codec: str) -> Any:
    chain: dict[str, Any] = {
        "raw": {"serializer": BytesCodec(), "compressors": [Crc32cCodec()]},
        "zstd": {
            "serializer": BytesCodec(),
            "compressors": [ZstdCodec(level=ZSTD_LEVEL, checksum=False), Crc32cCodec()],
        },
        "small": {"serializer": Htj2kCodec(), "compressors": [Crc32cCodec()]},
    }[codec]
    array = zarr.create_array(
        folder,
        shape=data.shape,
        dtype="uint8",
        chunks=layout.inner_shape,
        shards=layout.shard_shape,
        fill_value=0,
        config={"write_empty_chunks": True},
        **chain,
    )
    step = layout.patches
    for start in range(0, len(data), step):
        array[start : start + step] = data[start : start + step]
    return array


def noise(count: int, size: int, seed: int = 0) -> np.ndarray:
    data = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)
    data[::3] = 0
    return data


@pytest.mark.parametrize("codec", ["raw", "zstd", "small"])
@pytest.mark.parametrize(
    ("size", "max_tile", "per_shard", "count"),
    [(16, 8, 4, 11), (16, 16, 4, 8), (21, 8, 3, 7), (9, 16, 1, 3), (32, 8, 5, 5)],
)
def test_shards_are_those_of_zarr_python(
    tmp_path: Path, codec: str, size: int, max_tile: int, per_shard: int, count: int
) -> None:
    tiles, tile = tile_layout(size, max_tile)
    layout = ShardLayout(size_px=size, tile_px=tile, tiles=tiles, patches=per_shard)
    data = noise(count, size)
    write_array(tmp_path / "ours", data, layout, codec)
    zarr_array(tmp_path / "theirs", data, layout, codec)
    files = sorted(p.relative_to(tmp_path / "theirs") for p in tmp_path.glob("theirs/c/**/0"))
    files = [name for name in files if (tmp_path / "theirs" / name).is_file()]
    assert len(files) == layout.shards(count)
    for name in files:
        ours, theirs = (tmp_path / "ours" / name), (tmp_path / "theirs" / name)
        assert ours.read_bytes() == theirs.read_bytes(), name
    # And zarr-python reads ours, the reader reads both.
    assert np.array_equal(zarr.open_array(tmp_path / "ours", mode="r")[:], data)
    for folder in ("ours", "theirs"):
        reader = ShardReader(tmp_path / folder)
        assert reader.direct
        assert np.array_equal(reader.read(np.arange(count)), data)


@settings(max_examples=40, deadline=None)
@given(grid=st.tuples(st.integers(1, 20), st.integers(1, 5), st.integers(1, 5), st.just(1)))
def test_morton_order_is_that_of_zarr_python(grid: tuple[int, int, int, int]) -> None:
    from zarr.core.indexing import morton_order_iter

    theirs = [int(np.ravel_multi_index(cell, grid)) for cell in morton_order_iter(grid)]
    assert morton_order(grid).tolist() == theirs


@given(size=st.integers(1, 3000), limit=st.sampled_from([256, 512]))
def test_tiles_cover_a_patch_with_little_padding(size: int, limit: int) -> None:
    tiles, tile = tile_layout(size, limit)
    assert tile <= limit
    assert size <= tiles * tile < size + tiles


@pytest.mark.parametrize("size", [256, 512, 1024, 300, 96])
def test_shards_hold_50_to_100_mb_and_the_same_patches_in_every_array(size: int) -> None:
    layouts = plan_shards([size, size // 2, size // 4], 256)
    patch = (layouts[0].tiles * layouts[0].tile_px) ** 2 * 3
    assert MIN_SHARD_BYTES <= layouts[0].patches * patch < 2 * MIN_SHARD_BYTES
    assert len({layout.patches for layout in layouts}) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"data_type": "uint16"},
        {"shape": [4, 16, 16, 4]},
        {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}}},
        {"codecs": [{"name": "bytes"}]},
        {"storage_transformers": [{"name": "other"}]},
        {"chunk_grid": {"name": "rectangular", "configuration": {}}},
    ],
)
def test_unknown_layouts_are_not_guessed(change: dict[str, Any]) -> None:
    document = array_document(
        shape=(4, 16, 16, 3),
        dtype=np.dtype(np.uint8),
        chunk_shape=(4, 16, 16, 3),
        codecs=[sharding_codec((1, 8, 8, 3), codec_preset("raw").inner_codecs)],
        attributes={},
        dimensions=("patch", "y", "x", "channel"),
    )
    assert known_layout(document) is not None
    assert known_layout(document | change) is None
