"""Models: fast forms against plain ones, and tiny presets against bicubic.

    python benchmarks/models.py forms            time and peak memory on this machine's CPU
    python benchmarks/models.py overfit DATA     tiny presets on four real patches of DATA

Every number is a ratio of two forms that run side by side in one process, with the same weights;
absolute times mean little on a shared machine. `DATA` is a folder of RGB images.
"""

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from wsisr import __version__
from wsisr.models import create_model, model_spec
from wsisr.models.layers.coordinates import gather_cells
from wsisr.models.layers.retrieval import transfer, transfer_texture
from wsisr.models.losses import cwt_loss
from wsisr.resize import resize
from wsisr.testing.naive_models import naive_fusion, naive_transfer_texture


def header() -> None:
    """The machine and the versions."""
    print(f"wsisr {__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    print(f"{platform.machine()}, {platform.system()} {platform.release()}, 1 thread")


def cpu_seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """Median CPU seconds of a call."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def stf_case(scale: int, lr_px: int = 48, width: int = 256) -> tuple[Callable[[], Tensor], ...]:
    """Self-texture fusion of one corner on a full grid: (fast, plain), forward and backward."""
    torch.manual_seed(0)
    net = create_model("iste", preset="paper", encoder="edsr", encoder_size="tiny").net
    rows = torch.randn(1, lr_px * lr_px, width, requires_grad=True)
    textures = torch.randn(1, (lr_px * scale) ** 2, width, requires_grad=True)
    y, x = torch.meshgrid(*(torch.arange(lr_px * scale) // scale,) * 2, indexing="ij")
    index = (y * lr_px + x).view(1, -1)

    def fast() -> Tensor:
        found, confidence = transfer(rows, textures)
        fused = rows + net.fusion(torch.cat((rows, found), dim=-1)) * confidence
        out = gather_cells(fused, index)
        out.sum().backward()
        return out

    def plain() -> Tensor:
        out = naive_fusion(net, gather_cells(rows, index), textures)
        out.sum().backward()
        return out

    return fast, plain


def texture_case(side: int) -> tuple[Callable[[], Tensor], ...]:
    """CWT-Net's texture transfer at a side: (fast, plain), forward and backward."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 64, side, side, requires_grad=True) for _ in "qkv")

    def run(form: Callable[..., tuple[Tensor, Tensor]]) -> Callable[[], Tensor]:
        def call() -> Tensor:
            texture, confidence = form(q, k, v)
            (texture * confidence).sum().backward()
            return texture

        return call

    return run(transfer_texture), run(naive_transfer_texture)


CASES = {
    "stf-x2": lambda: stf_case(2),
    "stf-x3": lambda: stf_case(3),
    "stf-x4": lambda: stf_case(4),
    "texture-48": lambda: texture_case(48),
    "texture-96": lambda: texture_case(96),
    "texture-128": lambda: texture_case(128),
}


def measure(case: str, form: int) -> None:
    """In a process of its own: CPU seconds and growth of the peak memory."""
    torch.set_num_threads(1)
    run = CASES[case]()[form]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = cpu_seconds(run, repeats=1)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{seconds:.3f} {(after - before) / 1024:.1f}")


def forms(cases: list[str]) -> None:
    """Fast against plain forms, each in a fresh process."""
    header()
    print(f"{'case':12} {'fast s':>8} {'plain s':>8} {'speed':>7} {'fast MiB':>9} {'plain MiB':>9}")
    for case in cases:
        rows = []
        for form in ("0", "1"):
            done = subprocess.run(
                [sys.executable, __file__, "measure", case, form],
                capture_output=True,
                text=True,
                check=True,
            )
            rows.append([float(word) for word in done.stdout.split()])
        (fast_s, fast_mib), (plain_s, plain_mib) = rows
        ratio = plain_s / fast_s
        print(
            f"{case:12} {fast_s:8.2f} {plain_s:8.2f} {ratio:6.1f}x {fast_mib:9.0f} {plain_mib:9.0f}"
        )


FAMILIES = {
    "masrnet": (4, 2e-3, 400),
    "cwtnet": (4, 2e-3, 150),
    "iste": (4, 2e-3, 200),
    "mihatp": (4, 1e-3, 300),
}
"""Scale, learning rate and steps for each family's tiny preset (masrgan is masrnet's network)."""


def four_patches(folder: Path, side: int = 64) -> Tensor:
    """Central crops of the first four images that have twice the side, (4, 3, side, side)."""
    import numpy as np
    from PIL import Image

    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".tif"):
            continue
        rgb = np.asarray(Image.open(path).convert("RGB"))
        height, width = rgb.shape[:2]
        top, left = (height - side) // 2, (width - side) // 2
        crop = rgb[top : top + side, left : left + side]
        if min(height, width) >= 2 * side and crop.std() > 25:
            found.append(torch.from_numpy(crop.copy()).permute(2, 0, 1))
        if len(found) == 4:
            return torch.stack(found).float() / 255
    raise SystemExit(f"{folder} has no four textured images of at least {2 * side} px")


def psnr(image: Tensor, hr: Tensor) -> float:
    """Mean over patches of the RGB PSNR of clamped images, dB."""
    error = (image.clamp(0, 1) - hr).square().mean(dim=(1, 2, 3))
    return float(-10 * error.log10().mean())


def overfit(
    name: str, hr: Tensor, scale: int, rate: float, steps: int
) -> tuple[float, float, float]:
    """Train a tiny preset on a fixed batch: (dB over bicubic, bicubic dB, CPU seconds)."""
    torch.manual_seed(0)
    fixed = model_spec(name).kind == "fixed"
    model = create_model(name, scale=scale if fixed else None, preset="tiny").train()
    extra = {} if fixed else {"scale": float(scale)}
    lr_side = hr.shape[-1] // scale
    lr = resize(hr, (lr_side, lr_side))
    reference = resize(hr, (2 * lr_side, 2 * lr_side))
    optimiser = torch.optim.Adam(model.parameters(), rate)
    start = time.process_time()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / steps) + 1e-5
        if name == "cwtnet":
            outputs = model.training_step_outputs(lr, reference, feed_wr=step % 2 == 0)
            loss = cwt_loss(outputs, hr)
        else:
            loss = F.l1_loss(model(lr, **extra), hr)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    seconds = time.process_time() - start
    with torch.no_grad():
        gained = psnr(model.eval()(lr, **extra), hr)
    bicubic = psnr(resize(lr, (hr.shape[-2], hr.shape[-1])), hr)
    return gained - bicubic, bicubic, seconds


def overfit_all(folder: Path, names: list[str]) -> None:
    """Every family's tiny preset on four real patches, against bicubic."""
    header()
    torch.set_num_threads(1)
    hr = four_patches(folder)
    for name in names:
        scale, rate, steps = FAMILIES[name]
        gain, bicubic, seconds = overfit(name, hr, scale, rate, steps)
        print(
            f"{name:8} x{scale}, {steps} steps: {gain:+.2f} dB over bicubic ({bicubic:.2f} dB), "
            f"{seconds:.0f} CPU s",
            flush=True,
        )


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["forms", "overfit", "measure"])
    parser.add_argument("rest", nargs="*")
    given = parser.parse_args()
    if given.what == "forms":
        # stf-x4 is for the asking: its plain form takes minutes and many GiB.
        forms(given.rest or [case for case in CASES if case != "stf-x4"])
    elif given.what == "measure":
        measure(given.rest[0], int(given.rest[1]))
    else:
        if not given.rest:
            parser.error("overfit needs a folder of images")
        overfit_all(Path(given.rest[0]), given.rest[1:] or list(FAMILIES))


if __name__ == "__main__":
    main()
