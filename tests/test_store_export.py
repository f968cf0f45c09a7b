"""Exports hold the kept pairs, lossless, under names that say where they come from."""

import csv
import importlib
import json
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from store_samples import make_store, patches

from wsisr.errors import StoreError
from wsisr.progress import ProgressEvent
from wsisr.store import export_store, keep_pairs


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
    with open(tmp_path / "out/train/pairs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["key"] for row in rows}) == 6
    truth = {"a.b": patches(0, 5), "c": patches(1, 3)}
    for row in rows:
        for name in ("40x", "10x"):
            data = (tmp_path / f"out/train/{name}/{row['key']}.png").read_bytes()
            assert np.array_equal(decode(data), truth[row["slide"]][name][int(row["row"])])
    assert rows[1]["label"] == "tumour"
    assert [event.done for event in events] == list(range(1, 7))


def test_webdataset_members_of_a_pair_stand_together(store: Path, tmp_path: Path) -> None:
    export_store(store, "webdataset", tmp_path / "out")
    with tarfile.open(tmp_path / "out/train-000000.tar") as tar:
        names = tar.getnames()
        assert len(names) == 18
        keys = [name.split(".", 1)[0] for name in names]
        assert keys == [key for key in dict.fromkeys(keys) for _ in range(3)]
        record = json.load(tar.extractfile(f"{keys[0]}.json"))  # type: ignore[arg-type]
        member = tar.extractfile(f"{keys[0]}.40x.png")
        assert member is not None
        assert np.array_equal(decode(member.read()), patches(0, 5)["40x"][record["row"]])


@pytest.mark.parametrize(("to", "module"), [("hdf5", "h5py"), ("lmdb", "lmdb")])
def test_a_missing_library_is_named_with_the_remedy(
    store: Path, tmp_path: Path, to: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(StoreError, match=f"pip install {module}"):
        export_store(store, to, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_hdf5_holds_the_kept_pixels(store: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    export_store(store, "hdf5", tmp_path / "out")
    with h5py.File(tmp_path / "out/train.h5") as file:
        for at, (slide, row) in enumerate(zip(file["slide"], file["row"], strict=True)):
            truth = patches(0, 5) if slide == b"a.b" else patches(1, 3)
            assert np.array_equal(file["10x"][at], truth["10x"][row])


def test_lmdb_holds_the_kept_pixels(store: Path, tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    export_store(store, "lmdb", tmp_path / "out")
    with lmdb.open(str(tmp_path / "out/train.lmdb"), readonly=True).begin() as transaction:
        keys = json.loads(transaction.get(b"keys"))
        assert len(keys) == 6
        record = json.loads(transaction.get(f"{keys[0]}/json".encode()))
        image = decode(transaction.get(f"{keys[0]}/40x".encode()))
        assert np.array_equal(image, patches(0, 5)["40x"][record["row"]])


def test_bad_requests_are_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="choose one of png"):
        export_store(store, "jpeg", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(StoreError, match="not empty"):
        export_store(store, "png", tmp_path / "full")


def test_the_command_line_reaches_verify_keep_and_export(tmp_path: Path) -> None:
    typer = pytest.importorskip("typer")
    from typer.testing import CliRunner

    app = typer.Typer()
    for name in ("verify", "keep", "export"):
        app.command(name)(importlib.import_module(f"wsisr_cli.{name}").command)
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
