"""Pictures that another program made: matched by the key of their pair, complete or refused."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_samples import settings, write_store
from PIL import Image

from wsisr.errors import ConfigError
from wsisr.evaluation.pipeline import evaluate
from wsisr.evaluation.plan import prepare
from wsisr.inference.engine import BicubicEngine
from wsisr.inference.images import super_resolve
from wsisr.inference.tiles import WHOLE
from wsisr.metrics.images import as_uint8
from wsisr.store import export_store

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, its export, and another program's pictures: bicubic ones, in 8 bits."""
    root = tmp_path_factory.mktemp("pictures")
    write_store(root / "pairs.zarr", per_slide=2)
    export_store(root / "pairs.zarr", "png", root / "export", allow_identifiers=True)
    (root / "sr" / "test").mkdir(parents=True)
    for path in (root / "export" / "test" / "10x").iterdir():
        lr = np.asarray(Image.open(path))
        sr = super_resolve(BicubicEngine(), lr, 4.0, WHOLE)
        grey = as_uint8(torch.from_numpy(sr).double() / 255.0).numpy()
        Image.fromarray(grey).save(root / "sr" / "test" / f"{path.stem}_x4_theirs.png")
    return root


@pytest.fixture
def sr(place: Path, tmp_path: Path) -> Iterator[Path]:
    """The pictures, in a folder that may be changed."""
    folder = tmp_path / "sr"
    folder.mkdir()
    for path in (place / "sr" / "test").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    yield folder


def test_pictures_have_the_scores_of_what_made_them(place: Path, tmp_path: Path) -> None:
    given = settings(
        place,
        lr_source="native",
        scales=(2.0, 4.0),
        images=(f"theirs@10x={place / 'sr'}",),
        output=tmp_path / "eval",
        figures=1,
        cost=True,
    )
    results = evaluate(given)
    assert results.document["state"] == "complete" and not results.failed
    scores = {
        name: {(r.slide, r.row): r.scores for r in results.rows if r.run == name and r.scale == 4}
        for name in ("theirs", "bicubic")
    }
    assert len(scores["theirs"]) == 4 and scores["theirs"] == scores["bicubic"]
    assert not [row for row in results.rows if row.run == "theirs" and row.scale == 2]
    assert "leak cannot be excluded" in " ".join(results.document["notes"])
    assert "theirs" in (tmp_path / "eval" / "tables.md").read_text()
    assert "theirs" in results.document["figures"][0]["models"]
    assert "theirs" not in (tmp_path / "eval" / "cost.csv").read_text()


def test_changed_pictures_are_scored_again(place: Path, sr: Path, tmp_path: Path) -> None:
    given = settings(place, lr_source="10x", images=(f"a={sr}",), output=tmp_path / "eval")
    evaluate(given)
    first = next(path for path in sorted(sr.iterdir()))
    Image.fromarray(np.zeros((96, 96, 3), np.uint8)).save(first)
    rows = [row for row in evaluate(given).rows if row.run == "a"]
    assert len(rows) == 4 and min(row.scores["psnr_rgb"] for row in rows) < 15


def test_what_is_not_a_complete_set_is_refused(place: Path, sr: Path, tmp_path: Path) -> None:
    def refused(words: str, text: str = f"a={sr}", **changes: object) -> None:
        with pytest.raises(ConfigError, match=words):
            prepare(settings(place, **{"lr_source": "10x", "images": (text,), **changes}))

    one = sorted(sr.iterdir())[0]
    data = one.read_bytes()
    one.unlink()
    refused("1 of 4 pictures are missing, the first of slide")
    one.write_bytes(data)
    twin = one.with_name(one.name.replace("theirs", "again"))
    twin.write_bytes(data)
    refused("both the picture of one pair")
    twin.unlink()
    other = sr / "holiday.png"
    other.write_bytes(data)
    refused("holiday.png is no picture of a pair")
    other.unlink()
    Image.fromarray(np.zeros((48, 96, 3), np.uint8)).save(one)
    refused("96 x 48 px and its HR 96 x 96")
    one.write_bytes(data[:40])
    refused(str(one))
    one.write_bytes(data)
    refused("NAME=FOLDER", "nothing")
    refused("no folder", f"a={tmp_path / 'none'}")
    refused("holds no pictures", f"a={place / 'pairs.zarr'}")
    refused("no column has the LR 5x", f"a@5x={sr}")
    refused("NAME@ARRAY=FOLDER", lr_source="native", scales=(2.0, 4.0))
    refused("only that can be exported", lr_source="simulated")
    refused("named 'bicubic'", f"bicubic={sr}")
