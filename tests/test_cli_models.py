"""`wsisr models import` and `show`, and files of weights where models are taken."""

import json
from pathlib import Path

import pytest
import torch
from official_weights import official
from training_samples import make_store
from typer.testing import CliRunner, Result
from upscaling_samples import slide_file
from wsisr_cli.main import app

from wsisr.errors import ConfigError, ModelError
from wsisr.inference import open_trained
from wsisr.inference.opening import open_model

torch.set_num_threads(1)


def wsisr(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and one file of weights."""
    root = tmp_path_factory.mktemp("weights")
    make_store(root / "pairs.zarr")
    torch.save({"params_ema": official("edsr-pytorch-x4").state}, root / "theirs.pth")
    return root


def test_an_imported_file_is_a_saved_model_with_checksum_and_card(
    place: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m"
    done = wsisr("models", "import", place / "theirs.pth", "-o", out)
    assert done.exit_code == 0, done.output
    assert "EDSR of EDSR-PyTorch: edsr x4" in done.stdout and "4 constants dropped" in done.stdout
    assert "averaged weights of params_ema" in done.stdout and "0..255" in done.stdout
    assert sorted(p.name for p in out.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    config = json.loads((out / "config.json").read_text())
    assert (
        len(config["tensors_blake2b"]) == 64 and config["extra"]["imported"]["file"] == "theirs.pth"
    )
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: other\nlibrary_name: wsisr\n") and "SHA-256" in card
    assert str(tmp_path) not in card + (out / "config.json").read_text()
    shown = wsisr("models", "show", out).stdout
    assert "from        theirs.pth: EDSR of EDSR-PyTorch" in shown and "width=8" in shown
    assert "theirs: edsr x4" in wsisr("models", "show", place / "theirs.pth").stdout
    again = wsisr("models", "import", place / "theirs.pth", "-o", out)
    assert isinstance(again.exception, ConfigError) and "not empty" in str(again.exception)
    assert open_trained(out / "README.md").model == "edsr"


def test_eval_takes_the_file_as_it_is(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "eval"
    words = ["--scales", "4", "--lr-source", "simulated", "--limit", "1", "--no-cost"]
    done = wsisr(
        "eval", "--data", place / "pairs.zarr", "--model", place / "theirs.pth", *words,
        "--figures", "0", "--device", "cpu", "-o", out,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "theirs" in done.stdout and ",edsr,theirs," in (out / "images.csv").read_text()
    assert '"preset": "imported"' in (out / "results.json").read_text()


def test_upscale_takes_the_file_as_it_is(place: Path, tmp_path: Path) -> None:
    slide = slide_file(tmp_path / "s.tiff", 60, 50)
    done = wsisr(
        "upscale", slide, "--model", place / "theirs.pth", "--device", "cpu", "-o",
        tmp_path / "o.ome.tiff",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "240 x 200 px" in done.stdout


def test_a_file_beside_a_run_is_not_the_run(place: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "theirs.pth").write_bytes((place / "theirs.pth").read_bytes())
    assert open_model(tmp_path / "theirs.pth").name == "theirs"
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelError, match="no plain file of weights"):
        open_model(tmp_path / "notes.txt")
