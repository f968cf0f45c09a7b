"""What evaluation scores is what upscaling writes, for every family, at whole and real scales."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_samples import settings, write_run, write_store
from PIL import Image

from wsisr.evaluation.columns import read_pair
from wsisr.evaluation.inference import Engines
from wsisr.evaluation.plan import Plan, prepare
from wsisr.evaluation.scoring import to_uint8
from wsisr.inference import load
from wsisr.inference.blocks import PlanePixels
from wsisr.inference.tiles import plan_frame
from wsisr.models import model_spec
from wsisr.slides import open_slide
from wsisr.upscaling import UpscaleOptions, pipeline, upscale_slide

SCALES = (2.0, 2.4, 4.0)
FAMILIES = ("bicubic", "mihatp", "iste", "cwtnet", "masrnet", "edsr", "lte", "swinir", "rcan")
CASES = [
    (name, scale)
    for name in FAMILIES
    for scale in SCALES
    if name == "bicubic" or model_spec(name).kind == "arbitrary" or scale == int(scale)
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("same")
    write_store(folder / "pairs.zarr", per_slide=1)
    return folder


def _plan(workplace: Path, name: str, scale: float, **more: Any) -> Plan:
    models: tuple[str, ...] = ("bicubic",)
    if name != "bicubic":
        fixed = model_spec(name).kind == "fixed"
        run = f"{name}-x{scale:g}" if fixed else name
        if not (workplace / "runs" / run).is_dir():
            write_run(workplace / "runs" / run, name, scale=int(scale) if fixed else None)
        models = (run,)
    wanted = {"models": models, "scales": (scale,), "lr_source": "simulated", "limit": 1, **more}
    return prepare(settings(workplace, **wanted))


@pytest.mark.parametrize(("name", "scale"), CASES)
def test_pixels_of_evaluation_and_upscaling_are_the_same(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, scale: float
) -> None:
    """The same LR array; single precision, before any encoding; then the file's own pixels."""
    plan = _plan(workplace, name, scale, tile="12")  # several cores each way
    entry, column = plan.entries[-1], plan.columns[0]
    lr = read_pair(plan.store, column, column.samples, 0)[0]
    scored = Engines(plan).predict(entry, column, lr)[0].permute(1, 2, 0).numpy()

    Image.fromarray(lr[0].permute(1, 2, 0).numpy()).save(tmp_path / "lr.png")
    engine = load(entry.weights if entry.is_network else "bicubic", device="cpu")
    options = UpscaleOptions(scale=scale, tile_px=None if name == "bicubic" else 12)
    upscale_slide(tmp_path / "lr.png", tmp_path / "sr.png", engine, options)
    with Image.open(tmp_path / "sr.png") as written:
        np.testing.assert_array_equal(np.asarray(written), to_uint8(torch.from_numpy(scored)
                                      .permute(2, 0, 1)[None])[0])  # fmt: skip

    with open_slide(tmp_path / "lr.png") as slide:
        job = pipeline.plan_job(slide, tmp_path / "sr.png", engine, options)
        renderer = pipeline.Renderer(engine=engine, frame=job.frame, plan=job.plan, rounded=False)
        box = renderer.source_box(job.frame.region)
        source = PlanePixels(lr=pipeline.read_plane(slide, job.plane, box), box=box)
        upscaled = renderer.render(job.frame.region, source).pixels
    assert upscaled.dtype == np.float32
    assert job.frame == plan_frame(lr.shape[-1], lr.shape[-2], scale)
    np.testing.assert_array_equal(scored, upscaled.astype(np.float64) / 255.0)
