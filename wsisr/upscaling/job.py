"""Everything decided about one output before a pixel is read."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wsisr import __version__
from wsisr.errors import ConfigError, MppError, refuse_remote_output
from wsisr.geometry import Box
from wsisr.inference.engine import Engine
from wsisr.inference.tiles import Frame, Tiling, plan_frame, plan_tiles
from wsisr.inference.trained import TrainedModel
from wsisr.magnification import PLAUSIBLE_UM_PER_PX, nominal_magnification
from wsisr.slides.discovery import IMAGE_SUFFIXES
from wsisr.slides.icc import profile_of
from wsisr.slides.protocol import Level, Slide
from wsisr.upscaling.codecs import Codec, make_codec
from wsisr.upscaling.dicom_folder import check_dicom_writer, instances_of
from wsisr.upscaling.ome import NOTICE, NOTICE_INTERPOLATED, OmeFacts, ome_xml
from wsisr.upscaling.sinks import Output, container_of
from wsisr.upscaling.source import Plane, plan_plane, plane_region


@dataclass(frozen=True, kw_only=True)
class UpscaleOptions:
    """How to upscale; the same for every slide of a folder.

    Attributes
    ----------
    scale : float or None
        Output px per input px; None takes a fixed-scale model's own.
    magnification : float or None
        Read the level of this nominal magnification, e.g. 10.
    level_um_per_px : float or None
        Read the level of this resolution instead.
    mpp : float or None
        Resolution of level 0, um/px, where the file does not state it or is wrong.
    region : Box or None
        Part to upscale, level-0 px.
    tile_px : int or None
        Side of what one run of the network is responsible for, input px; None chooses.
    halo_px : int or None
        Context around it, input px; None takes the model's recommendation.
    compression : str or None
        None: JPEG in a TIFF, zstd in an OME-Zarr.
    mask : bool
        Fill background by bicubic.
    threads : int or None
        Threads that compress tiles; None: one per core, at most 8.
    white : float or None
        Sample value that is white, for images of more than 8 bits.
    focal_plane : int or None
        Of several focal planes, counted from 1; None takes the middle one.
    rgb : bool
        Write RGB for a grey input all the same.
    """

    scale: float | None = None
    magnification: float | None = None
    level_um_per_px: float | None = None
    mpp: float | None = None
    region: Box | None = None
    tile_px: int | None = None
    halo_px: int | None = None
    compression: str | None = None
    quality: int = 90
    mask: bool = True
    overwrite: bool = False
    threads: int | None = None
    white: float | None = None
    focal_plane: int | None = None
    rgb: bool = False


@dataclass(frozen=True, kw_only=True)
class UpscaleJob:
    """What `plan_job` decided; `identity` is what the pixels depend on."""

    plane: Plane
    frame: Frame
    plan: Tiling
    scale: float
    output: Output
    identity: dict[str, Any]
    messages: tuple[str, ...]


def plan_job(slide: Slide, path: Path, engine: Engine, options: UpscaleOptions) -> UpscaleJob:
    """Decide level, sizes, metadata; reads no pixels."""
    info, model = slide.info, engine.trained
    scale = settle_scale(model, options.scale)
    plan = plan_tiles(engine.needs, scale, options.tile_px, options.halo_px)
    container = container_of(path) or "tiff"
    grey = info.grey and not options.rgb and path.suffix.lower() != ".webp"  # it has no grey
    codec = replace(make_codec(options.compression, options.quality, container), grey=grey)
    plane = plan_plane(
        info, magnification=options.magnification, level_um_per_px=options.level_um_per_px
    )
    if info.mpp is None and not _is_picture(slide):
        why = info.mpp_problem.split(";")[0].rstrip(". ") or f"{info.path.name} states none"
        raise MppError(
            f"{info.path}: its resolution is needed for the output's metadata and for finding "
            f"tissue ({why}); give --mpp (um per level-0 px)."
        )
    part = None if options.region is None else plane_region(plane, options.region)
    frame = plan_frame(plane.width_px, plane.height_px, scale, part)
    um = None
    if plane.um_per_px is not None:
        um = (plane.um_per_px[0] / frame.scale_x, plane.um_per_px[1] / frame.scale_y)
    messages = list(info.quirks) if info.backend == "image" else []
    if um is not None and min(um) < PLAUSIBLE_UM_PER_PX[0]:
        messages.append(
            f"The output states its {min(um):.4g} um/px, which wsisr itself will not read back: "
            f"below {PLAUSIBLE_UM_PER_PX[0]:g} um/px it takes a resolution for a mistaken unit."
        )
    if options.region is not None:
        messages.append(_cut(options.region, info.levels[0]))
    mean_um = None if um is None else (um[0] * um[1]) ** 0.5
    messages.append(doubts(model, scale, plane.origin, mean_um))
    provenance = {
        **provenance_of(engine),
        "scale": f"{scale:g}",
        "input": info.path.name,
        "input_fingerprint": info.fingerprint,
        "input_level": f"{plane.level} reduced {plane.reduction:.12g} times"
        if plane.reduction != 1.0
        else str(plane.level),
        "compression": codec.describe(),
        "wsisr": software(),
    }
    if plane.um_per_px is not None:
        provenance["input_um_per_px"] = f"{plane.um_per_px[0]:.6g}"
    if options.focal_plane is not None:
        provenance["input_focal_plane"] = str(options.focal_plane)
    if options.white is not None:
        provenance["input_white"] = f"{options.white:g}"
    if options.region is not None:
        provenance["region_level0_px"] = str(options.region)
    notice = NOTICE if model.is_network else NOTICE_INTERPOLATED
    description = ome_xml(
        OmeFacts(
            name=f"{info.path.name} x{scale:g}",
            width_px=frame.region.width,
            height_px=frame.region.height,
            um_per_px=um,
            magnification=None if mean_um is None else nominal_magnification(mean_um),
            notice=notice,
            provenance=provenance,
            channels=codec.channels,
        )
    )
    is_dicom = container == "dicom"
    if is_dicom and um is None:
        raise MppError(f"{info.path}: DICOM states the resolution; give --mpp (um per level-0 px).")
    identity = {
        **provenance,
        "format": 3,
        "size_px": [frame.region.width, frame.region.height],
        "mask": options.mask,
        "tiling": asdict(plan),
        "device": engine.device.split(":")[0],
        "um_per_px": None if um is None else list(um),
        "channels": codec.channels,
    }
    return UpscaleJob(
        plane=plane,
        frame=frame,
        plan=plan,
        scale=scale,
        output=Output(
            path=path,
            width_px=frame.region.width,
            height_px=frame.region.height,
            um_per_px=um,
            description=description,
            software=software(),
            codec=Codec(name="zstd", grey=grey) if is_dicom else codec,
            frames=codec if is_dicom else None,
            identity=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
            summary=f"{notice}; " + ", ".join(f"{k} {v}" for k, v in provenance.items()),
            references=instances_of(info.path) if is_dicom and info.backend == "dicom" else (),
            lossy_input=any(
                level.compression.generations > 0 or level.compression.codec == "unknown"
                for level in info.levels
            ),
            icc=profile_of(slide.icc_profile(), grey=grey),
        ),
        identity=identity,
        messages=tuple(filter(None, messages)),
    )


def check_output(output: Path, options: UpscaleOptions) -> None:
    """Refuse (ConfigError) an output that cannot be written, before the input is opened."""
    refuse_remote_output(output)
    container = container_of(output)
    if container is None:
        raise ConfigError(
            f"{output}: name the output .ome.tiff, .ome.zarr or .dcm (a folder; any size), or "
            ".png, .jpg, .bmp, .webp (small pictures)."
        )
    if container == "dicom":
        check_dicom_writer()
    if not output.parent.is_dir():
        raise ConfigError(f"{output}: its folder {output.parent} does not exist; make it first.")
    if output.exists() and not options.overwrite:
        raise ConfigError(f"{output} exists; give --overwrite to replace it, or another name.")
    make_codec(options.compression, options.quality, container)


def _cut(region: Box, level: Level) -> str:
    """What of a region lies outside the slide, as a sentence; empty where all of it is inside."""
    inside = region.within(Box(x=0, y=0, width=level.width_px, height=level.height_px))
    if inside == region:
        return ""
    return (
        f"--region reaches outside the slide of {level.width_px} x {level.height_px} px; what lies "
        f"inside is made: {inside}."
    )


def _is_picture(slide: Slide) -> bool:
    """Plain images need no resolution: PNG and the like, and flat TIFFs."""
    info = slide.info
    return (
        info.backend == "image"
        or info.path.suffix.lower() in IMAGE_SUFFIXES
        or (info.vendor in ("generic-tiff", "unknown") and len(info.levels) == 1)
    )


def provenance_of(engine: Engine) -> dict[str, str]:
    """The model, for the metadata of the output."""
    model = engine.trained
    facts = {"model": model.model, "preset": model.preset, "weights_sha256": model.weights_sha256}
    facts["pooling"] = engine.pooling
    if model.is_network:
        from wsisr.models.registry import MODELS

        plugin = MODELS.record(model.model) or {}
        facts["network_from"] = plugin.get("source", "")
        facts["network_source_sha256"] = plugin.get("sha256", "")
        facts["trained_on_lr"] = model.lr_origin or "not recorded"
        facts["trained_on_degradation"] = model.degradation or "not recorded"
        facts["precision"] = engine.precision
    return {key: value for key, value in facts.items() if value}


def settle_scale(model: TrainedModel, scale: float | None) -> float:
    """The scale to use; ConfigError if the model has another, or needs one and none is given."""
    if model.scale is not None:
        if scale is not None and scale != model.scale:
            raise ConfigError(
                f"{model.model} was trained for x{model.scale} and cannot do x{scale:g}; leave "
                "--scale out, or take an arbitrary-scale model (`wsisr models list`)."
            )
        return float(model.scale)
    if scale is None:
        raise ConfigError(f"{model.model} works at any scale: give one with --scale, e.g. 4.")
    return scale


def doubts(model: TrainedModel, scale: float, origin: str, output_um_per_px: float | None) -> str:
    """One sentence on how the input differs from what the model was trained on; else empty."""
    if not model.is_network:
        return ""
    found = []
    low, high = model.scale_range
    if not low - 1e-9 <= scale <= high + 1e-9:
        found.append(f"for scales {low:g} to {high:g}, not {scale:g}")
    if model.lr_origin and model.lr_origin != origin and model.lr_origin != "rescan":
        from wsisr.degradation.spec import SEPARATOR  # with torch, which bicubic does without

        ways = model.lr_origin.count(SEPARATOR) + 1
        was = model.lr_origin if ways == 1 else f"simulated in {ways} ways"
        found.append(f"on LR that was {was}, while this input is {origin}")
    given = nominal_magnification(output_um_per_px) if output_um_per_px else None
    if model.hr_magnification and given and given != model.hr_magnification:
        found.append(f"to give {model.hr_magnification:g}x, while this gives {given}x")
    if not found:
        return ""
    return f"{model.model} was trained {'; '.join(found)}: details may be invented or missed."


def software() -> str:
    """This program with its version."""
    return f"wsisr {__version__}"
