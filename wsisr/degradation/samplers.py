"""The stages that reduce HR to LR by a fixed rule: kernels, the papers' degradations, optics."""

from math import log2
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from wsisr.degradation.blur import convolve, gaussian_blur, pillow_gaussian, turned_places
from wsisr.degradation.optics import blur_by_objective
from wsisr.degradation.stage import (
    Amount,
    Context,
    Sigma,
    Stage,
    amount_field,
    highest,
    register_degradation,
    within,
)
from wsisr.device import upload
from wsisr.errors import DegradationError
from wsisr.resize import Kernel, resize, to_grey


class Resampled(Stage):
    """A kernel of `wsisr.resize` alone."""

    samples: ClassVar[bool] = True
    kernel: ClassVar[Kernel]

    def apply(self, x: Tensor, context: Context) -> Tensor:
        return resize(x, context.size, kernel=self.kernel)


@register_degradation
class Bicubic(Resampled):
    """Antialiased bicubic, a = -0.5, half-pixel centres: MATLAB's imresize."""

    kernel: ClassVar[Kernel] = "matlab"
    kind: Literal["bicubic"] = "bicubic"


@register_degradation
class Area(Resampled):
    """Mean over the LR pixel's footprint: an ideal pixel aperture."""

    kernel: ClassVar[Kernel] = "area"
    kind: Literal["area"] = "area"


@register_degradation
class Bilinear(Resampled):
    """Antialiased triangle kernel."""

    kernel: ClassVar[Kernel] = "bilinear"
    kind: Literal["bilinear"] = "bilinear"


@register_degradation
class Nearest(Resampled):
    """The HR pixel at the LR pixel's centre; aliases, and carries a sub-pixel shift."""

    kernel: ClassVar[Kernel] = "nearest"
    kind: Literal["nearest"] = "nearest"


@register_degradation
class Iste(Stage):
    """ISTE's official code: Pillow Gaussian of radius (s - 1) / 2 on HR, then Pillow bicubic."""

    samples: ClassVar[bool] = True
    kind: Literal["iste"] = "iste"

    def apply(self, x: Tensor, context: Context) -> Tensor:
        blurred = pillow_gaussian(to_grey(x), (context.scale - 1.0) / 2.0)
        return resize(blurred, context.size, kernel="pil").float()


@register_degradation
class IstePaper(Stage):
    """ISTE's text: bicubic, then a Gaussian on the LR grid."""

    samples: ClassVar[bool] = True
    kind: Literal["iste-paper"] = "iste-paper"
    sigma_lr_px: Sigma = amount_field(0, 50, "standard deviation in LR px", 0.5)

    def apply(self, x: Tensor, context: Context) -> Tensor:
        small = resize(x, context.size).clamp(0, 255)
        sigma = context.amount(self.sigma_lr_px, "sigma_lr_px")
        return gaussian_blur(small, sigma, highest(self.sigma_lr_px))


@register_degradation
class IsteHalfM(Stage):
    """A Gaussian of m / 2 HR px, then bicubic."""

    samples: ClassVar[bool] = True
    kind: Literal["iste-halfm"] = "iste-halfm"
    sigma_per_scale: Sigma = amount_field(0, 50, "standard deviation in HR px over the scale", 0.5)

    def apply(self, x: Tensor, context: Context) -> Tensor:
        sigma = context.amount(self.sigma_per_scale, "sigma_per_scale") * context.scale
        return resize(
            gaussian_blur(x, sigma, highest(self.sigma_per_scale) * context.scale), context.size
        )


@register_degradation
class Li2021(Stage):
    """Li et al. 2021: Pillow down, bilinear up to full size, Pillow Gaussian of (s - 1) / 2.

    Their image has HR size; the Pillow bicubic reduction to the LR grid at the end is ours.
    """

    samples: ClassVar[bool] = True
    kind: Literal["li2021"] = "li2021"

    def apply(self, x: Tensor, context: Context) -> Tensor:
        full = (int(x.shape[-2]), int(x.shape[-1]))
        small = resize(to_grey(x), context.size, kernel="pil")
        large = resize(small, full, kernel="bilinear")
        blurred = pillow_gaussian(large, (context.scale - 1.0) / 2.0)
        return resize(blurred, context.size, kernel="pil").float()


@register_degradation
class Ftms(Stage):
    """CWT-Net's FTMS: bicubic halving, one to three times (8-bit in between)."""

    samples: ClassVar[bool] = True
    kind: Literal["ftms"] = "ftms"

    def apply(self, x: Tensor, context: Context) -> Tensor:
        if context.scale not in (2.0, 4.0, 8.0):
            raise DegradationError(
                f"ftms halves one to three times, so its scale is 2, 4 or 8, not {context.scale:g}."
            )
        grey = to_grey(x)
        for left in range(int(log2(context.scale)) - 1, -1, -1):
            grey = resize(grey, (context.size[0] << left, context.size[1] << left))
        return grey.float()


@register_degradation
class Pyramid(Stage):
    """The level stored in the slide; it can be read from a store, not computed."""

    samples: ClassVar[bool] = True
    kind: Literal["pyramid"] = "pyramid"

    def apply(self, x: Tensor, context: Context) -> Tensor:
        raise DegradationError(
            "pyramid is the level stored in the slide and cannot be computed from HR; train and "
            "evaluate on the store's own LR (--lr-source native) or choose another degradation."
        )


@register_degradation
class Gaussian(Stage):
    """Gaussian on the HR grid (axes and angle), then the pixel aperture."""

    samples: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {"random": {"sigma_px": (0.8, 3.0)}}
    kind: Literal["gaussian"] = "gaussian"
    sigma_px: Sigma = amount_field(0, 50, "standard deviation in HR px", 1.6)
    aspect: Annotated[Amount, AfterValidator(within(0.1, 10.0))] = amount_field(
        0.1, 10, "ratio of the two axes", 1.0
    )
    angle_deg: Annotated[Amount, AfterValidator(within(-180.0, 180.0))] = amount_field(
        -180, 180, "direction of the first axis", 0.0
    )

    def apply(self, x: Tensor, context: Context) -> Tensor:
        sigma = context.amount(self.sigma_px, "sigma_px")
        if self.aspect == 1.0:
            blurred = gaussian_blur(x, sigma, highest(self.sigma_px))
        else:
            half = max(2, int(4 * highest(self.sigma_px) * max(1.0, highest(self.aspect)) + 1))
            aspect = context.amount(self.aspect, "aspect")
            angle = torch.deg2rad(context.amount(self.angle_deg, "angle_deg"))
            along, across = turned_places(angle, half)
            first = sigma.clamp_min(1e-3)[:, None, None]
            second = (sigma * aspect).clamp_min(1e-3)[:, None, None]
            kernel = torch.exp(-0.5 * ((along / first) ** 2 + (across / second) ** 2))
            blurred = convolve(x, (kernel / kernel.sum((-1, -2), keepdim=True))[:, None])
        return resize(blurred, context.size, kernel="area")


@register_degradation
class Optics(Stage):
    """Objective (NA, wavelength per channel, defocus), then the pixel aperture."""

    samples: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "10x": {"na": (0.25, 0.45), "defocus_um": (0.0, 6.0), "sigma_px": (0.0, 1.0)},
        "20x": {"na": (0.4, 0.5), "defocus_um": (0.0, 2.0), "sigma_px": (0.0, 1.0)},
    }
    kind: Literal["optics"] = "optics"
    na: Annotated[Amount, AfterValidator(within(0.02, 0.98))] = amount_field(
        0.02, 0.98, "numerical aperture in air", 0.3
    )
    defocus_um: Annotated[Amount, AfterValidator(within(-50.0, 50.0))] = amount_field(
        -50, 50, "distance from focus", 0.0
    )
    sigma_px: Sigma = amount_field(0, 50, "extra Gaussian in HR px", 0.0)
    wavelength_nm: tuple[
        Annotated[float, Field(ge=200, le=1200)],
        Annotated[float, Field(ge=200, le=1200)],
        Annotated[float, Field(ge=200, le=1200)],
    ] = Field(default=(620.0, 550.0, 450.0), description="of R, G and B")
    um_per_px: float = Field(default=0.25, gt=0.0, le=50.0, description="HR pixel size")

    def apply(self, x: Tensor, context: Context) -> Tensor:
        wavelength = upload(self.wavelength_nm, x.device, x.dtype) * 1e-3
        blurred = blur_by_objective(
            x,
            na=context.amount(self.na, "na"),
            wavelength_um=wavelength,
            defocus_um=context.amount(self.defocus_um, "defocus_um"),
            sigma_um=context.amount(self.sigma_px, "sigma_px") * self.um_per_px,
            um_per_px=self.um_per_px,
        )
        return resize(blurred, context.size, kernel="area")
