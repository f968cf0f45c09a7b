"""Parameters of every degradation stage: typed, strict, versioned, serialisable.

A quantity that may vary from sample to sample is an `Amount`: one number, or ``[low, high]``
for a uniform draw. Lengths say their unit: ``px`` is a pixel of the image that the stage sees
(HR before sampling, LR after it).
"""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Amount = float | tuple[float, float]
Triple = tuple[float, float, float]


def _within(low: float, high: float) -> Callable[[Amount], Amount]:
    def check(value: Amount) -> Amount:
        ends = value if isinstance(value, tuple) else (value, value)
        if not low <= ends[0] <= ends[1] <= high:
            raise ValueError(f"must lie in {low:g}..{high:g}, a range as low..high")
        return value

    return check


def _amount(low: float, high: float, text: str, default: Amount) -> Any:
    return Field(default=default, description=f"{text} ({low:g}..{high:g})")


Sigma = Annotated[Amount, AfterValidator(_within(0.0, 50.0))]
Quality = Annotated[Amount, AfterValidator(_within(1.0, 100.0))]
Fraction = Annotated[Amount, AfterValidator(_within(0.0, 1.0))]


class Stage(BaseModel):
    """One step of a degradation.

    Class attributes
    ----------------
    rank
        Place in the physical order; compositions are sorted by it.
    samples
        Whether the stage reduces HR to LR; a degradation has exactly one that does.
    presets
        Named sets of parameters, e.g. ``realesrgan2:mild``.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=False, allow_inf_nan=False, ser_json_inf_nan="null"
    )

    rank: ClassVar[int] = 30
    samples: ClassVar[bool] = False
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    kind: str = ""
    version: Literal[1] = 1


class Bicubic(Stage):
    """Antialiased bicubic, a = -0.5, half-pixel centres: MATLAB's imresize."""

    samples: ClassVar[bool] = True
    kind: Literal["bicubic"] = "bicubic"


class Area(Stage):
    """Mean over the LR pixel's footprint: an ideal pixel aperture."""

    samples: ClassVar[bool] = True
    kind: Literal["area"] = "area"


class Bilinear(Stage):
    """Antialiased triangle kernel."""

    samples: ClassVar[bool] = True
    kind: Literal["bilinear"] = "bilinear"


class Nearest(Stage):
    """The HR pixel at the LR pixel's centre; aliases, and carries a sub-pixel shift."""

    samples: ClassVar[bool] = True
    kind: Literal["nearest"] = "nearest"


class Iste(Stage):
    """ISTE's official code: Pillow Gaussian of radius (s - 1) / 2 on HR, then Pillow bicubic."""

    samples: ClassVar[bool] = True
    kind: Literal["iste"] = "iste"


class IstePaper(Stage):
    """ISTE's text: bicubic, then a Gaussian on the LR grid."""

    samples: ClassVar[bool] = True
    kind: Literal["iste-paper"] = "iste-paper"
    sigma_lr_px: Sigma = _amount(0, 50, "standard deviation in LR px", 0.5)


class IsteHalfM(Stage):
    """A Gaussian of m / 2 HR px, then bicubic."""

    samples: ClassVar[bool] = True
    kind: Literal["iste-halfm"] = "iste-halfm"
    sigma_per_scale: Sigma = _amount(0, 50, "standard deviation in HR px over the scale", 0.5)


class Li2021(Stage):
    """Li et al. 2021: Pillow down, bilinear up to full size, Pillow Gaussian of (s - 1) / 2.

    Their image has HR size; the Pillow bicubic reduction to the LR grid at the end is ours.
    """

    samples: ClassVar[bool] = True
    kind: Literal["li2021"] = "li2021"


class Ftms(Stage):
    """CWT-Net's FTMS: bicubic halving, one to three times (8-bit in between)."""

    samples: ClassVar[bool] = True
    kind: Literal["ftms"] = "ftms"


class Pyramid(Stage):
    """The level stored in the slide; it can be read from a store, not computed."""

    samples: ClassVar[bool] = True
    kind: Literal["pyramid"] = "pyramid"


class Gaussian(Stage):
    """Gaussian on the HR grid (axes and angle), then the pixel aperture."""

    samples: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {"random": {"sigma_px": (0.8, 3.0)}}
    kind: Literal["gaussian"] = "gaussian"
    sigma_px: Sigma = _amount(0, 50, "standard deviation in HR px", 1.6)
    aspect: Annotated[Amount, AfterValidator(_within(0.1, 10.0))] = _amount(
        0.1, 10, "ratio of the two axes", 1.0
    )
    angle_deg: Annotated[Amount, AfterValidator(_within(-180.0, 180.0))] = _amount(
        -180, 180, "direction of the first axis", 0.0
    )


class Optics(Stage):
    """Objective (NA, wavelength per channel, defocus), then the pixel aperture."""

    samples: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "10x": {"na": (0.25, 0.45), "defocus_um": (0.0, 6.0), "sigma_px": (0.0, 1.0)},
        "20x": {"na": (0.4, 0.5), "defocus_um": (0.0, 2.0), "sigma_px": (0.0, 1.0)},
    }
    kind: Literal["optics"] = "optics"
    na: Annotated[Amount, AfterValidator(_within(0.02, 0.98))] = _amount(
        0.02, 0.98, "numerical aperture in air", 0.3
    )
    defocus_um: Annotated[Amount, AfterValidator(_within(-50.0, 50.0))] = _amount(
        -50, 50, "distance from focus", 0.0
    )
    sigma_px: Sigma = _amount(0, 50, "extra Gaussian in HR px", 0.0)
    wavelength_nm: tuple[
        Annotated[float, Field(ge=200, le=1200)],
        Annotated[float, Field(ge=200, le=1200)],
        Annotated[float, Field(ge=200, le=1200)],
    ] = Field(default=(620.0, 550.0, 450.0), description="of R, G and B")
    um_per_px: float = Field(default=0.25, gt=0.0, le=50.0, description="HR pixel size")


class RealEsrgan2(Stage):
    """Two rounds of blur, resize, noise and JPEG with sinc filters (Real-ESRGAN).

    Everything is drawn per sample, on the device. Poisson noise is its normal approximation with
    the same variance at 256 levels.
    """

    samples: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        # For slides: sigma in LR px, no enlargement, no grey noise (spec section 5).
        "mild": {
            "sigma_unit": "lr-px",
            "sigma_1": (0.2, 1.2),
            "sigma_2": (0.2, 0.6),
            "second_blur": 0.3,
            "sinc": 0.0,
            "final_sinc": 0.0,
            "resize_1": (0.5, 1.0),
            "resize_2": (0.7, 1.0),
            "noise_1": (0.5, 4.0),
            "noise_2": (0.5, 3.0),
            "poisson_1": (0.02, 0.3),
            "poisson_2": (0.02, 0.2),
            "grey_noise": 0.0,
            "quality_1": (75.0, 95.0),
            "quality_2": (60.0, 95.0),
        }
    }
    kind: Literal["realesrgan2"] = "realesrgan2"
    sigma_unit: Literal["px", "lr-px"] = Field(
        default="px", description="unit of sigma_1 and sigma_2: the stage's own px, or LR px"
    )
    sigma_1: Sigma = _amount(0, 50, "first blur", (0.2, 3.0))
    sigma_2: Sigma = _amount(0, 50, "second blur", (0.2, 1.5))
    second_blur: Fraction = _amount(0, 1, "probability of the second blur", 0.8)
    sinc: Fraction = _amount(0, 1, "probability that a blur is a sinc", 0.1)
    final_sinc: Fraction = _amount(0, 1, "probability of a last sinc", 0.8)
    resize_1: Annotated[Amount, AfterValidator(_within(0.05, 2.0))] = _amount(
        0.05, 2, "first random resize", (0.15, 1.5)
    )
    resize_2: Annotated[Amount, AfterValidator(_within(0.05, 2.0))] = _amount(
        0.05, 2, "second random resize, times 1 / scale", (0.3, 1.2)
    )
    noise_1: Sigma = _amount(0, 50, "first normal noise, grey levels", (1.0, 30.0))
    noise_2: Sigma = _amount(0, 50, "second normal noise, grey levels", (1.0, 25.0))
    poisson_1: Sigma = _amount(0, 50, "first Poisson noise, factor", (0.05, 3.0))
    poisson_2: Sigma = _amount(0, 50, "second Poisson noise, factor", (0.05, 2.5))
    grey_noise: Fraction = _amount(0, 1, "probability of equal noise in all channels", 0.4)
    quality_1: Quality = _amount(1, 100, "first JPEG quality", (30.0, 95.0))
    quality_2: Quality = _amount(1, 100, "second JPEG quality", (30.0, 95.0))


class Stain(Stage):
    """Haematoxylin, eosin and residual in optical density: gain and offset per stain."""

    rank: ClassVar[int] = 10
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "light": {"gain": 0.05, "offset_od": 0.01},
        "strong": {"gain": 0.3, "offset_od": 0.03},
    }
    kind: Literal["stain"] = "stain"
    gain: float = Field(default=0.15, ge=0.0, le=0.9, description="largest relative change")
    offset_od: float = Field(default=0.02, ge=0.0, le=0.5, description="largest offset, OD")


class Chroma(Stage):
    """Lateral colour: red and blue shifted and magnified against green."""

    rank: ClassVar[int] = 20
    kind: Literal["chroma"] = "chroma"
    shift_px: Annotated[Amount, AfterValidator(_within(0.0, 20.0))] = _amount(
        0, 20, "length of the shift, HR px; its direction is drawn", (0.0, 1.0)
    )
    magnification: float = Field(
        default=5e-4, ge=0.0, le=0.05, description="largest relative change"
    )


class Illumination(Stage):
    """Uneven light: a second-order polynomial gain over the image.

    It is applied on the LR grid; on so smooth a field that equals lighting the scene.
    """

    rank: ClassVar[int] = 40
    kind: Literal["illumination"] = "illumination"
    strength: Annotated[Amount, AfterValidator(_within(0.0, 0.9))] = _amount(
        0, 0.9, "largest relative change of the gain", (0.0, 0.03)
    )


class Colour(Stage):
    """White balance and tone: ``255 (gain x / 255 + offset / 255) ^ gamma`` per channel."""

    rank: ClassVar[int] = 45
    kind: Literal["colour"] = "colour"
    gain: Triple = Field(default=(1.0, 1.0, 1.0))
    offset: Triple = Field(default=(0.0, 0.0, 0.0), description="grey levels")
    gamma: float = Field(default=1.0, gt=0.1, lt=10.0)


class Sensor(Stage):
    """Shot and read noise: variance = x 255 / full well + read^2, x in grey levels."""

    rank: ClassVar[int] = 50
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "random": {"full_well_e": (3000.0, 12000.0), "read_levels": (0.5, 2.0)}
    }
    kind: Literal["sensor"] = "sensor"
    full_well_e: Annotated[Amount, AfterValidator(_within(1.0, 1e9))] = _amount(
        1, 1e9, "electrons at 255", 8000.0
    )
    read_levels: Sigma = _amount(0, 50, "read noise, grey levels", 1.0)
    bayer: bool = Field(default=False, description="sample through an RGGB mosaic and demosaic")


class Stitch(Stage):
    """A stitching seam: beyond a drawn line the image is displaced. For robustness sets."""

    rank: ClassVar[int] = 60
    kind: Literal["stitch"] = "stitch"
    shift_px: Annotated[Amount, AfterValidator(_within(0.0, 20.0))] = _amount(
        0, 20, "displacement, LR px; its direction is drawn", (0.5, 3.0)
    )


class Jpeg(Stage):
    """JPEG as libjpeg does it, bit for bit."""

    rank: ClassVar[int] = 70
    presets: ClassVar[dict[str, dict[str, Any]]] = {"random": {"quality": (60.0, 95.0)}}
    kind: Literal["jpeg"] = "jpeg"
    quality: Quality = _amount(1, 100, "libjpeg quality", 80.0)
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:2:0"


class Fitted(Stage):
    """A scanner's own degradation, fitted to registered pairs (`wsisr degrade fit`)."""

    samples: ClassVar[bool] = True
    kind: Literal["fitted"] = "fitted"
    scale: int = Field(ge=1, le=64, description="the only scale at which the fit holds")
    kernel: tuple[tuple[tuple[float, ...], ...], ...] = Field(
        description="taps (1 or 3, k, k) on HR pixels; each plane sums to 1"
    )
    tone: tuple[tuple[float, ...], ...] = Field(
        description="(3, 10): 1, R, G, B, RR, GG, BB, RG, GB, BR (units of 255) to grey levels"
    )
    shot: float = Field(default=0.0, ge=0.0, description="noise variance per grey level")
    read_variance: float = Field(default=0.0, ge=0.0, description="noise variance at zero")
    quality: int | None = Field(default=None, ge=1, le=100, description="JPEG, none if null")
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:4:4"

    @model_validator(mode="after")
    def _check_shapes(self) -> "Fitted":
        side = len(self.kernel[0]) if self.kernel else 0
        square = all(
            len(plane) == side and all(len(r) == side for r in plane) for plane in self.kernel
        )
        if len(self.kernel) not in (1, 3) or not square or side < self.scale:
            raise ValueError("kernel must be (1 or 3, k, k) with k at least the scale")
        if (side - self.scale) % 2:
            raise ValueError("kernel side and scale must both be even or both odd")
        if any(abs(sum(map(sum, plane)) - 1.0) > 1e-3 for plane in self.kernel):
            raise ValueError("each plane of the kernel must sum to 1")
        if len(self.tone) != 3 or any(len(row) != 10 for row in self.tone):
            raise ValueError("tone must be (3, 10)")
        return self


STAGES: dict[str, type[Stage]] = {
    str(stage.model_fields["kind"].default): stage
    for stage in (
        *(Bicubic, Area, Bilinear, Nearest, Iste, IstePaper, IsteHalfM, Li2021, Ftms, Pyramid),
        *(Gaussian, Optics, RealEsrgan2, Stain, Chroma, Illumination, Colour, Sensor),
        *(Stitch, Jpeg, Fitted),
    )
}

AnyStage = Annotated[
    Bicubic
    | Area
    | Bilinear
    | Nearest
    | Iste
    | IstePaper
    | IsteHalfM
    | Li2021
    | Ftms
    | Pyramid
    | Gaussian
    | Optics
    | RealEsrgan2
    | Stain
    | Chroma
    | Illumination
    | Colour
    | Sensor
    | Stitch
    | Jpeg
    | Fitted,
    Field(discriminator="kind"),
]
