"""ONNX files are written only when they compute what the model computes."""

from pathlib import Path

import pytest

from wsisr.errors import ModelError
from wsisr.models import create_model, exporting


def test_without_the_packages_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "NEEDED", ("no_such_package",))
    model = create_model("srcnn", scale=4, preset="tiny")
    with pytest.raises(ModelError, match=r"wsisr\[onnx\]"):
        exporting.export_onnx(model, tmp_path / "m.onnx")


def test_a_model_of_any_scale_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "NEEDED", ())
    with pytest.raises(ModelError, match="fixed scale"):
        exporting.export_onnx(create_model("liif", preset="tiny"), tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["srcnn", "masrnet"])
def test_the_file_computes_what_the_model_does(tmp_path: Path, name: str) -> None:
    for package in exporting.NEEDED:
        pytest.importorskip(package, reason="the extra onnx is not installed")
    model = create_model(name, scale=4, preset="tiny")
    assert exporting.export_onnx(model, tmp_path / "m.onnx", 24, 20) < 1e-5
    assert (tmp_path / "m.onnx").stat().st_size > 1000
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
