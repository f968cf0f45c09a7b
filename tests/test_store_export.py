"""Exports hold the kept pairs, lossless, under names that say where they come from."""

import csv
import errno
import json
import resource
import shutil
import sys
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import shapely
import yaml
from store_samples import make_store, patches

from wsisr.errors import ConfigError, DiskFullError, LockedError, StoreError
from wsisr.progress import ProgressEvent
from wsisr.store import export_store, exporting, keep_pairs, open_pairs
from wsisr.store.exporting.data_card import write_card
from wsisr.store.exporting.pair_records import records_of
from wsisr.tables import csv_cell

FORMATS = [
    ("png", "csv"),
    ("huggingface", "pyarrow"),
    ("webdataset", "tarfile"),
    ("hdf5", "h5py"),
    ("lmdb", "lmdb"),
    ("geojson", "json"),
]
"""Each with the library that it needs."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "a.zarr"
    make_store(path, {"a.b": 5, "c": 3})
    keep_pairs(path, "spread < 0.9")
    return path


def decode(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def test_png_folders_hold_the_kept_pixels(store: Path, tmp_path: Path) -> None:
    events: list[ProgressEvent] = []
    counts = export_store(store, "png", tmp_path / "out", reporter=events.append)
    assert counts == {"train": 6, "val": 0, "test": 0}
    with open(tmp_path / "out/train/metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["key"] for row in rows}) == 6
    truth = {"a.b": patches(0, 5), "c": patches(1, 3)}
    for row in rows:
        for name, role in (("40x", "hr"), ("10x", "lr")):
            data = (tmp_path / "out/train" / row[f"{role}_file_name"]).read_bytes()
            assert np.array_equal(decode(data), truth[row["slide"]][name][int(row["row"])])
    assert rows[1]["label"] == "tumour"
    assert [event.done for event in events] == list(range(1, 7))
    card = (tmp_path / "out/README.md").read_text()
    assert "none stands in two splits" in card
    assert "| train | 6 | 2 | 2 |" in card and "stored-level" in card
    assert "cff-version" in (tmp_path / "out/CITATION.cff").read_text()


HONEST = {
    "patient": "patient of a.b",
    "patient_source": "table",
    "40x_um_per_px": 0.25,
    "10x_um_per_px": 1.0,
    "10x_origin": "stored-level",
    "10x_native": True,
    "verdict": "accept",
    "label": "normal",
    "spread": 0.0,
    "split": "train",
}
"""What makes a pair worth having; every format carries it."""


def test_a_record_says_everything_that_is_known(store: Path) -> None:
    opened = open_pairs(store)
    (record, *others) = records_of(opened, "train")
    assert len(others) == 5
    assert HONEST.items() <= record.items()
    assert record["digest"] == f"{int(opened.table('a.b')['digest'][0]):016x}"
    assert set(record) >= {"ncc_band", "tissue", "reason", "x", "y", "row", "group", "site"}
    assert not any(str(store.parent) in str(value) for value in record.values())
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = opened.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and list(frame["row"][:3]) == [0, 1, 2]


def test_webdataset_members_of_a_pair_stand_together(store: Path, tmp_path: Path) -> None:
    export_store(store, "webdataset", tmp_path / "out")
    with tarfile.open(tmp_path / "out/train-000000.tar") as tar:
        names = tar.getnames()
        assert len(names) == 18
        keys = [name.split(".", 1)[0] for name in names]
        assert keys == [key for key in dict.fromkeys(keys) for _ in range(3)]
        record = json.load(tar.extractfile(f"{keys[0]}.json"))  # type: ignore[arg-type]
        assert HONEST.items() <= record.items()
        member = tar.extractfile(f"{keys[0]}.40x.png")
        assert member is not None
        assert np.array_equal(decode(member.read()), patches(0, 5)["40x"][record["row"]])


def test_parquet_beside_the_pictures(store: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    export_store(store, "huggingface", tmp_path / "out")
    table = parquet.read_table(tmp_path / "out/train/metadata.parquet").to_pylist()
    assert len(table) == 6 and HONEST.items() <= table[0].items()
    assert (tmp_path / "out/train" / table[0]["lr_file_name"]).is_file()
    front = yaml.safe_load((tmp_path / "out/README.md").read_text().split("---")[1])
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "train/**"}]
    assert open_pairs(store).to_arrow().num_rows == 6


@pytest.mark.parametrize(
    ("pairs", "size"), [(999, "n<1K"), (10**6, "1M<n<10M"), (12 * 10**6, "10M<n<100M")]
)
def test_the_card_names_the_size_as_the_hub_does(
    store: Path, tmp_path: Path, pairs: int, size: str
) -> None:
    write_card(open_pairs(store), {"train": pairs}, tmp_path, hub=False)
    front = yaml.safe_load((tmp_path / "README.md").read_text().split("---")[1])
    assert front["size_categories"] == [size]


def test_geojson_lies_where_the_pairs_lie(store: Path, tmp_path: Path) -> None:
    counts = export_store(store, "geojson", tmp_path / "out")
    assert counts["train"] == 6
    found = json.loads((tmp_path / "out/a_b_s0.geojson").read_text())["features"]
    assert len({feature["id"] for feature in found}) == len(found) == 4
    record = next(records_of(open_pairs(store), "train"))
    (ring,) = found[0]["geometry"]["coordinates"]
    assert shapely.box(record["x"], record["y"], record["x"] + 32, record["y"] + 32).equals(
        shapely.Polygon(ring)
    )
    meta = store / "slides/a.b/zarr.json"
    assert found[0]["properties"]["objectType"] == "tile"
    bounded = tmp_path / "bounded.zarr"
    shutil.copytree(store, bounded)
    document = json.loads((bounded / meta.relative_to(store)).read_text())
    document["attributes"]["wsisr"]["origin_px"] = [10, 20]
    (bounded / meta.relative_to(store)).write_text(json.dumps(document))
    export_store(bounded, "geojson", tmp_path / "moved")
    moved = json.loads((tmp_path / "moved/a_b_s0.geojson").read_text())["features"]
    assert moved[0]["geometry"]["coordinates"][0][0] == [ring[0][0] - 10, ring[0][1] - 20]
    assert found[0]["properties"]["classification"]["name"] == "normal"


@pytest.mark.parametrize("to", ["png", "webdataset", "geojson"])
def test_what_is_interrupted_leaves_nothing(
    store: Path, tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = exporting.records_of if to == "geojson" else exporting.pairs_of

    def stops(*arguments: Any) -> Iterator[Any]:
        yield from islice(real(*arguments), 3)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(exporting, real.__name__, stops)
        with pytest.raises(KeyboardInterrupt):
            export_store(store, to, tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "out.partial/train").mkdir(parents=True)  # as a kill leaves it
    events: list[ProgressEvent] = []
    assert export_store(store, to, tmp_path / "out", reporter=events.append)["train"] == 6
    assert "out.partial, left by an unfinished export" in events[0].message
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_told_truly_and_leaves_nothing(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(exporting, "write_card", full)
    with pytest.raises(DiskFullError, match=r"disk is full, .* removed again") as caught:
        export_store(store, "png", tmp_path / "out")
    assert "goes on" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("to", "module"), FORMATS)
def test_what_cannot_be_written_is_one_sentence_in_every_format(
    store: Path, tmp_path: Path, to: str, module: str
) -> None:
    pytest.importorskip(module, reason=f"{module} is not installed")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, hard))
    try:
        with pytest.raises(StoreError, match="been exported is removed again"):
            export_store(store, to, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_two_exports_into_one_folder_are_kept_apart(store: Path, tmp_path: Path) -> None:
    def second(event: ProgressEvent) -> None:
        with pytest.raises(LockedError, match="another export is writing into it"):
            export_store(store, "geojson", tmp_path / "out")

    assert export_store(store, "png", tmp_path / "out", reporter=second)["train"] == 6
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_may_be_there_as_a_link_or_the_one_one_is_in(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("real", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    export_store(store, "geojson", tmp_path / "link")
    monkeypatch.chdir(tmp_path / "here")
    export_store(store, "geojson", Path("."))
    names = [sorted(p.name for p in (tmp_path / name).iterdir()) for name in ("real", "here")]
    assert names == [["a_b_s0.geojson", "c_s1.geojson"]] * 2
    assert len(list(tmp_path.iterdir())) == 3


def test_names_of_patients_leave_no_old_store_unasked(tmp_path: Path) -> None:
    path = tmp_path / "old.zarr"
    make_store(path, {"a": 2})
    meta = path / "slides/a/zarr.json"
    document = json.loads(meta.read_text())
    del document["attributes"]["wsisr"]["patient_source"]
    meta.write_text(json.dumps(document))
    with pytest.raises(StoreError, match="--allow-identifiers"):
        export_store(path, "png", tmp_path / "out")
    assert export_store(path, "png", tmp_path / "out", allow_identifiers=True)["train"] == 2


def test_the_card_names_patients_in_two_splits(tmp_path: Path) -> None:
    writer = make_store(tmp_path / "a.zarr", {"a": 4})
    rows = np.array([[0, 0], [0, 1]], np.int32)
    writer.commit_splits({"train": rows, "test": rows + np.array([0, 2], np.int32)})
    export_store(tmp_path / "a.zarr", "png", tmp_path / "out")
    assert "LEAKY: 1 of them" in (tmp_path / "out/README.md").read_text()


def test_folders_of_the_source_stay_there(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    make_store(path, {"jane_doe__s.svs": 2, "other__s.svs": 2})
    export_store(path, "png", tmp_path / "out")
    written = "".join(str(p) for p in (tmp_path / "out").rglob("*"))
    written += (tmp_path / "out/train/metadata.csv").read_text()
    assert "jane" not in written.replace("patient of jane_doe__s.svs", "")
    rows = list(csv.DictReader((tmp_path / "out/train/metadata.csv").open()))
    assert [row["slide_index"] for row in rows] == ["0", "0", "1", "1"]
    assert len({row["key"] for row in rows}) == 4
    export_store(path, "png", tmp_path / "all", allow_identifiers=True)
    assert "jane_doe__s.svs" in (tmp_path / "all/train/metadata.csv").read_text()


def test_no_cell_is_a_formula() -> None:
    assert csv_cell('=HYPERLINK("x")') == '\'=HYPERLINK("x")' and csv_cell("-1 a") == "'-1 a"
    assert csv_cell("tumour") == "tumour"


@pytest.mark.parametrize(
    ("to", "module", "extra"),
    [("hdf5", "h5py", "hdf5"), ("lmdb", "lmdb", "lmdb"), ("huggingface", "pyarrow", "parquet")],
)
def test_a_missing_library_is_named_with_the_remedy(
    store: Path, tmp_path: Path, to: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(StoreError, match=rf"package {module}: pip install 'wsisr\[{extra}\]'"):
        export_store(store, to, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_hdf5_holds_the_kept_pixels(store: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    export_store(store, "hdf5", tmp_path / "out")
    with h5py.File(tmp_path / "out/train.h5") as file:
        columns = file["columns"]
        for at, (slide, row) in enumerate(zip(columns["slide"], columns["row"], strict=True)):
            truth = patches(0, 5) if slide == b"a.b" else patches(1, 3)
            assert np.array_equal(file["10x"][at], truth["10x"][row])
        shown = {name: columns[name][0] for name in HONEST}
        assert {k: v.decode() if isinstance(v, bytes) else v for k, v in shown.items()} == HONEST


def test_lmdb_is_read_as_basicsr_reads_it(store: Path, tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    export_store(store, "lmdb", tmp_path / "out")
    folder = tmp_path / "out/train"
    records = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    assert HONEST.items() <= records[0].items()
    keys = {}
    for name in ("40x", "10x"):
        lines = (folder / f"{name}.lmdb/meta_info.txt").read_text().splitlines()
        keys[name] = [line.split(".")[0] for line in lines]  # as its readers do
        with lmdb.open(str(folder / f"{name}.lmdb"), readonly=True).begin() as transaction:
            for key, line, record in zip(keys[name], lines, records, strict=True):
                image = decode(bytes(transaction.get(key.encode("ascii"))))
                height, width, channels = image.shape
                assert line == f"{key}.png ({height},{width},{channels}) 1"
                truth = patches(0, 5) if record["slide"] == "a.b" else patches(1, 3)
                assert np.array_equal(image, truth[name][record["row"]])
    assert keys["40x"] == keys["10x"] and len(set(keys["10x"])) == 6


def test_bad_requests_are_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="choose one of png"):
        export_store(store, "jpeg", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(ConfigError, match="writes to local disks alone"):
        export_store(store, "png", Path("s3://bucket/out"))
    with pytest.raises(StoreError, match="not empty"):
        export_store(store, "png", tmp_path / "full")


def test_the_command_line_reaches_verify_keep_and_export(tmp_path: Path) -> None:
    typer = pytest.importorskip("typer")
    from typer.testing import CliRunner
    from wsisr_cli import stores

    app = typer.Typer()
    for name in ("verify", "keep", "export"):
        app.command(name)(getattr(stores, name))
    path = tmp_path / "a.zarr"
    make_store(path, {"a": 4})
    run = CliRunner().invoke
    assert run(app, ["verify", str(path)]).exit_code == 0
    result = run(app, ["keep", str(path), "spread<0.5"])
    assert result.exit_code == 0
    assert "keeps 2 of 4" in result.output
    result = run(app, ["export", str(path), "--to", "png", str(tmp_path / "png")])
    assert "train: 2 pairs" in result.output
    (path / "slides/a/tissue/c/0/0").unlink()
    result = run(app, ["verify", "--quick", str(path)])
    assert result.exit_code == 1
    assert "missing: tissue/c/0/0" in result.output
