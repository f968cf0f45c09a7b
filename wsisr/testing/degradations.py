"""Scanners with known truth, and the suite that a degradation must pass.

`make_scanner` draws one scanner (lens, focus, stain, sensor, compression) and `scan` photographs
any number of fields with it, rendered in the Fourier domain: what a fit must find is exact.
`DegradationTests` is a pytest class to be subclassed with the spec of a degradation.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from wsisr.arrays import Float64Array, UInt8Array
from wsisr.degradation import degrade, lr_size, parse_degradation
from wsisr.degradation.scanner_pairs import RealPair
from wsisr.errors import DegradationError
from wsisr.testing.pair_scenes import synthetic_tissue
from wsisr.testing.rendering import (
    WAVELENGTHS_UM,
    FieldOfView,
    Objective,
    any_part,
    faded,
    jpeg,
    noisy,
    render,
    to_uint8,
)

_MARGIN_PX = 64
RESIDUAL_PX = 0.4
"""Residuals are uniform within this, HR px."""


@dataclass(frozen=True, kw_only=True)
class ScannerTruth:
    """One simulated low-power scanner.

    Attributes
    ----------
    tone_gain : (float, float, float)
    full_well_e, read_levels : float
        Sensor: variance = x 255 / full well + read^2; no noise where `full_well_e` is 0.
    quality : int or None
        JPEG of the LR; None for none.
    full_chroma : bool
        4:4:4 instead of 4:2:0.
    hr_quality : int or None
        JPEG of the HR.
    """

    scale: int = 4
    optics: Objective
    tone_gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    full_well_e: float = 0.0
    read_levels: float = 0.0
    quality: int | None = None
    full_chroma: bool = False
    hr_quality: int | None = None

    def kernel(self, half_px: int = 24) -> Float64Array:
        """True taps on HR pixels, shape (3, k, k), k = 2 half + scale, each plane summing to 1."""
        side = 256
        point = np.zeros((side, side, 3))
        # The LR pixel whose centre is an HR pixel edge (even scale) or centre (odd scale).
        point[side // 2, side // 2] = 1.0
        count = 2 * half_px + self.scale
        taps = np.zeros((3, count, count))
        f = np.fft.fftfreq(side)
        radius = np.hypot(f[:, None], f[None, :])
        box = np.full(self.scale, 1.0 / self.scale)
        for channel, wavelength in enumerate(WAVELENGTHS_UM):
            spread = np.fft.fftshift(np.fft.ifft2(self.optics.transfer(radius, wavelength)).real)
            cut = slice(side // 2 - half_px, side // 2 + half_px + 1)
            plane = np.apply_along_axis(np.convolve, 0, spread[cut, cut], box)
            plane = np.apply_along_axis(np.convolve, 1, plane, box)
            taps[channel] = plane / plane.sum()
        return taps


def make_scanner(seed: int, *, clean: bool = False, scale: int = 4) -> ScannerTruth:
    """Draw a scanner (`Objective.draw`, `ScannerTruth`).

    `clean` leaves tone, noise and both compressions out.
    """
    rng = np.random.default_rng([seed, 77])
    optics = Objective.draw(rng)
    if clean:
        return ScannerTruth(scale=scale, optics=optics)
    gain = rng.uniform(0.9, 1.05, 3)
    return ScannerTruth(
        scale=scale,
        optics=optics,
        tone_gain=(float(gain[0]), float(gain[1]), float(gain[2])),
        gamma=rng.uniform(0.88, 1.12),
        full_well_e=rng.uniform(3000, 12000),
        read_levels=rng.uniform(0.5, 2.0),
        quality=int(rng.integers(70, 93)),
        full_chroma=bool(rng.random() < 0.5),
        hr_quality=int(rng.integers(75, 96)),
    )


def scan(
    truth: ScannerTruth,
    count: int,
    seed: int,
    *,
    lr_px: int = 96,
    scenes: list[Float64Array] | None = None,
) -> list[RealPair]:
    """Photograph fields with a scanner, each with a known sub-pixel residual.

    Parameters
    ----------
    lr_px : int
        Side of the LR, LR px.
    scenes : list of ndarray (H, W, 3), optional
        HR images to photograph; synthetic tissue by default.
    """
    pairs = []
    side = truth.scale * lr_px
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        scene = _scene(scenes, i, side + 2 * _MARGIN_PX, seed * 1000 + i, rng)
        shift = rng.uniform(-RESIDUAL_PX, RESIDUAL_PX, 2)
        centre = (_MARGIN_PX + side / 2 + shift[0], _MARGIN_PX + side / 2 + shift[1])
        view = FieldOfView(linear=truth.scale * np.eye(2), centre=centre, side_px=lr_px)
        seen = render(scene, view, truth.optics)
        seen = 255 * np.clip(seen * truth.tone_gain / 255, 0, 1) ** truth.gamma
        if truth.full_well_e > 0:
            seen = noisy(seen, truth.full_well_e, truth.read_levels, rng)
        lr = to_uint8(seen)
        hr = to_uint8(scene[_MARGIN_PX : _MARGIN_PX + side, _MARGIN_PX : _MARGIN_PX + side])
        if truth.quality is not None:
            lr = jpeg(lr, truth.quality, truth.full_chroma)
        if truth.hr_quality is not None:
            hr = jpeg(hr, truth.hr_quality, True)
        residual = (float(shift[0]), float(shift[1]))
        pairs.append(RealPair(lr=lr, hr=hr, residual_px=residual, grid_px=(0, 0)))
    return pairs


def _scene(
    scenes: list[Float64Array] | None, index: int, size: int, seed: int, rng: np.random.Generator
) -> Float64Array:
    if scenes is None:
        return faded(synthetic_tissue(size, size, seed), fade_px=32)
    return faded(any_part(scenes[index % len(scenes)], size, rng), fade_px=32)


class DegradationTests:
    """What every named degradation must do; subclass it and set `spec`.

    Attributes
    ----------
    scales : tuple of float
        Scales to test.
    keeps_grey : float
        Largest change of the mean of a flat grey image, grey levels.
    """

    spec: ClassVar[str] = "bicubic"
    scales: ClassVar[tuple[float, ...]] = (2.0, 3.0, 4.0)
    keeps_grey: ClassVar[float] = 1.0

    @staticmethod
    def _images(count: int, side: int, seed: int = 0) -> torch.Tensor:
        tiles = [synthetic_tissue(side, side, seed + i) for i in range(count)]
        grey: UInt8Array = to_uint8(np.stack(tiles))
        return torch.as_tensor(grey).permute(0, 3, 1, 2).contiguous()

    def test_sizes_and_type(self) -> None:
        hr = self._images(2, 50)
        for scale in self.scales:
            lr = degrade(hr, self.spec, scale)
            assert lr.dtype == torch.uint8
            assert lr.shape == (2, 3, lr_size(50, scale), lr_size(50, scale))

    def test_draws_depend_on_seed_step_and_slot_alone(self) -> None:
        hr, scale = self._images(3, 48), self.scales[-1]
        whole = degrade(hr, self.spec, scale, seed=5, step=7, slots=[4, 9, 2])
        for i, slot in enumerate((4, 9, 2)):
            alone = degrade(hr[i], self.spec, scale, seed=5, step=7, slots=[slot])
            assert torch.equal(alone, whole[i])
        again = degrade(hr, self.spec, scale, seed=5, step=7, slots=[4, 9, 2])
        assert torch.equal(again, whole)
        if parse_degradation(self.spec).random:
            same = hr[:1].expand(2, -1, -1, -1)
            drawn = degrade(same, self.spec, scale, seed=5, step=7)
            assert not torch.equal(drawn[0], drawn[1])
            assert not torch.equal(drawn[0], degrade(hr[0], self.spec, scale, seed=5, step=8))

    def test_flat_grey_stays_flat_on_average(self) -> None:
        flat = torch.full((4, 3, 64, 64), 180, dtype=torch.uint8)
        for scale in self.scales:
            mean = float(degrade(flat, self.spec, scale).float().mean())
            assert abs(mean - 180.0) <= self.keeps_grey

    def test_float_input_is_the_same_image(self) -> None:
        hr, scale = self._images(1, 48), self.scales[0]
        grey = degrade(hr, self.spec, scale)
        assert torch.equal(degrade(hr.float() / 255.0, self.spec, scale), grey)

    def test_record_rebuilds_the_same_degradation(self) -> None:
        first = parse_degradation(self.spec)
        again = parse_degradation(first.record())
        assert again.stages == first.stages and again.digest == first.digest

    def test_input_outside_its_range_is_refused(self) -> None:
        hr = self._images(1, 32)
        for images, scale in (
            (hr.float(), 2.0),
            (hr.float() / 255.0 - 0.5, 2.0),
            (hr, 0.5),
            (hr, float("nan")),
            (hr[:, :2], 2.0),
            (hr, 40.0),
        ):
            with pytest.raises(DegradationError):
                degrade(images, self.spec, scale)
