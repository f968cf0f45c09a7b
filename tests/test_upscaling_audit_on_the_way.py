"""`upscale --audit`: an output and its findings come together, and the viewer shows the maps."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from upscaling_samples import slide_file
from wsisr_cli.main import app

from wsisr.errors import ConfigError
from wsisr.geometry import Box
from wsisr.inference import load
from wsisr.upscaling import UpscaleOptions, UpscaleRequest, upscale, upscale_slide
from wsisr.upscaling.audit import AuditRequest, audit
from wsisr.upscaling.audit.findings import read_maps

OPTIONS = UpscaleOptions(scale=2.0, compression="deflate", threads=1)


def nothing(folder: Path) -> None:
    """Instead of a page."""


def test_what_is_found_on_the_way_is_what_is_found_afterwards(tmp_path: Path) -> None:
    source = slide_file(tmp_path / "s.tiff", 400, 300)
    out = tmp_path / "o.ome.tiff"
    result = upscale_slide(source, out, load("bicubic"), OPTIONS, page=nothing)
    assert any("contradict the input" in line for line in result.messages)
    now = read_maps(tmp_path / "o.ome.tiff.audit")
    written = json.loads((tmp_path / "o.ome.tiff.audit/audit.json").read_text())
    later = audit(AuditRequest(output=out, lr=source, folder=tmp_path / "later"))
    for name, values in read_maps(later.folder).items():
        np.testing.assert_array_equal(values, now[name])
    assert written == json.loads((later.folder / "audit.json").read_text())


def test_a_fault_in_the_audit_leaves_neither_and_the_same_command_goes_on(tmp_path: Path) -> None:
    source = slide_file(tmp_path / "s.tiff", 2300, 80)
    out, found = tmp_path / "o.ome.tiff", tmp_path / "o.ome.tiff.audit"

    def killed(folder: Path) -> None:
        assert (folder / "audit.json").is_file() and not out.exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_slide(source, out, load("bicubic"), OPTIONS, page=killed)
    assert not out.exists() and not list(found.iterdir())
    result = upscale_slide(source, out, load("bicubic"), OPTIONS, page=nothing)
    assert result.resumed == 2 and out.is_file() and (found / "audit.json").is_file()
    assert not list(tmp_path.glob("*.partial*"))
    plain = tmp_path / "plain.ome.tiff"
    upscale_slide(source, plain, load("bicubic"), OPTIONS)
    assert plain.read_bytes() == out.read_bytes()


def test_pictures_regions_and_folders_are_audited_and_what_cannot_be_is_refused_first(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3)).astype(np.uint8)
    Image.fromarray(image).save(folder / "a.png")
    slide_file(folder / "b.tiff", 400, 300)
    request = UpscaleRequest(
        source=folder, output=tmp_path / "out", model="bicubic", options=OPTIONS, audit=nothing
    )
    assert not upscale(request).failed
    for name, size in (("a.png", (6, 8)), ("b.ome.tiff", (19, 25))):
        maps = read_maps(tmp_path / "out" / f"{name}.audit")
        assert maps["misfit"].shape == size and maps["misfit"].max() < 2
    for path in (tmp_path / "out/a.png.audit").iterdir():
        path.unlink()
    (tmp_path / "out/a.png.audit").rmdir()
    assert "1 of them were not audited" in upscale(request).text()
    part = UpscaleOptions(scale=2.4, region=Box(x=37, y=20, width=220, height=200), threads=1)
    out = tmp_path / "part.ome.tiff"
    upscale_slide(folder / "b.tiff", out, load("bicubic"), part, page=nothing)
    assert read_maps(tmp_path / "part.ome.tiff.audit")["misfit"].shape == (13, 14)
    odd = UpscaleOptions(scale=2.7182818)
    for name, options, words in (
        ("c.ome.zarr", OPTIONS, "ome.tiff"),
        ("c.ome.tiff", odd, "whole numbers"),
    ):
        with pytest.raises(ConfigError, match=words):
            upscale_slide(
                folder / "b.tiff", tmp_path / name, load("bicubic"), options, page=nothing
            )
        assert not list(tmp_path.glob("c.*"))


def test_the_command_lays_the_maps_over_the_viewer(tmp_path: Path) -> None:
    source, out = slide_file(tmp_path / "s.tiff", 900, 700), tmp_path / "o.ome.tiff"
    line = ["upscale", str(source), "--scale", "2", "--from", "10x", "-o", str(out)]
    done = CliRunner().invoke(
        app, [*line, "--model", "bicubic", "--audit", "--compare", str(source)]
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "o.ome.tiff.audit/index.html").is_file()
    viewer = tmp_path / "o.ome.tiff.compare/viewer"
    text = re.sub(r"^const COMPARE = |;\n$", "", (viewer / "images.js").read_text())
    misfit, beyond = json.loads(text)["layers"]
    assert (misfit["name"], beyond["name"]) == ("misfit", "detail beyond the input")
    # 29 places of 32 px are a little more than 900: what lies outside is cut.
    assert misfit["x"] == misfit["y"] == 0 and misfit["width"] == pytest.approx(1, abs=0.01)
    with Image.open(viewer / beyond["file"]) as picture:
        assert picture.mode == "RGBA" and picture.width / picture.height == pytest.approx(
            900 / 700, abs=0.01
        )
        assert len(np.unique(np.asarray(picture)[..., 3])) > 1
