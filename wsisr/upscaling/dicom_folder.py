"""A DICOM whole-slide folder made from the finished tiles, by wsidicomizer (extra `dicom-out`).

The tiles wait as a lossless TIFF, so frames are compressed once. wsidicomizer streams them and
writes ImageType ORIGINAL and the time of day; what a network made is DERIVED, and the same run is
to give the same bytes, so both are replaced in place. Nobody is identified: patient, accession and
container stay empty or "Unknown", dates are wsidicom's placeholder of 1970, UIDs are hashes of what
was done; where the input is DICOM its instances are referenced by their UIDs.
"""

import struct
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsisr.errors import ConfigError, SlideError
from wsisr.files import sync_tree
from wsisr.slides.dicom_files import series_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from wsisr.upscaling.sinks import Output

HEADER_BYTES = 1 << 16
_NAMESPACE = uuid.UUID("8d6f3a0e-27c4-5f58-b1a9-64c2e0d9f713")
_CORRECTED: dict[bytes, bytes | None] = {
    b"\x08\x00\x08\x00CS": None,
    b"\x08\x00\x07\x90CS": None,
    b"\x08\x00\x23\x00DA": b"19700101",
    b"\x08\x00\x33\x00TM": b"000000.000000 ",
}
"""ImageType and FrameType, as explicit little-endian headers spell them, which become DERIVED;
ContentDate and ContentTime, and what they are to say."""
_ICC_DATE = struct.pack(">6H", 1970, 1, 1, 0, 0, 0)
"""When a profile was made: bytes 24 to 35 of its header."""
_LONGEST_TEXT = 1024
"""Characters of a DerivationDescription (ST)."""


def check_dicom_writer() -> None:
    """Refuse (ConfigError) before any work where the extra is not installed."""
    try:
        import wsidicomizer  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "Writing DICOM needs wsidicomizer: pip install 'wsisr[dicom-out]'; or name the output "
            f".ome.tiff ({error})."
        ) from error


def write_dicom_folder(folder: Path, tiff: Path, output: "Output") -> None:
    """Write one instance a level into an empty folder.

    Parameters
    ----------
    tiff : Path
        The pyramid, lossless.

    Raises
    ------
    SlideError
        If an instance does not state its kind where it should.
    """
    from pydicom.dataset import Dataset
    from pydicom.uid import UID
    from wsidicom.codec import Channels, Jpeg2kSettings, JpegSettings, Subsampling
    from wsidicomizer import WsiDicomizer
    from wsidicomizer.wsidicomizer import SourceIdentifier

    assert output.frames is not None
    made = 0

    def uid() -> UID:
        nonlocal made
        made += 1
        # UUIDs as UIDs (PS3.5, B.2); pydicom's own would be random ones.
        return UID(f"2.25.{uuid.uuid5(_NAMESPACE, f'{output.identity}/{made}').int}")

    def describe(dataset: Dataset, _: Any) -> Dataset:
        dataset.DerivationDescription = output.summary[:_LONGEST_TEXT]
        dataset.Manufacturer = "wsisr"
        dataset.SoftwareVersions = output.software[:64]
        dataset.BurnedInAnnotation = "NO"
        # Once lossy, always lossy: the input's own compression counts as well.
        if output.lossy_input:
            dataset.LossyImageCompression = "01"
        if output.icc is None:
            for path in dataset.OpticalPathSequence:
                if "ICCProfile" not in path:
                    continue
                # wsidicom's sRGB, made at this time of day.
                path.ICCProfile = path.ICCProfile[:24] + _ICC_DATE + path.ICCProfile[36:]
        if output.references:
            dataset.SourceImageSequence = [_reference(*pair) for pair in output.references]
        return dataset

    if output.frames.lossless:
        colours = Channels.GRAYSCALE if output.codec.grey else Channels.RGB
        encoding: Any = Jpeg2kSettings(levels=0, channels=colours)
    elif output.codec.grey:
        encoding = JpegSettings(
            quality=output.frames.quality, channels=Channels.GRAYSCALE, subsampling=None
        )
    else:
        full = output.frames.subsampling == (1, 1)
        encoding = JpegSettings(
            quality=output.frames.quality,
            subsampling=Subsampling.R444 if full else Subsampling.R420,
        )
    folder.mkdir()
    WsiDicomizer.convert(
        tiff,
        output_path=folder,
        preferred_source=SourceIdentifier.TIFFSLIDE,
        metadata_post_processor=describe,
        encoding=encoding,
        uid_generator=uid,
        include_label=False,
        include_overview=False,
        include_thumbnail=False,
        include_confidential=False,
    )
    for path in sorted(folder.iterdir()):
        _correct(path)
    sync_tree(folder)


def instances_of(path: Path) -> tuple[tuple[str, str], ...]:
    """SOP class and instance UIDs of a DICOM slide's files; empty for any other input."""
    from pydicom import dcmread

    files = series_of(path) if path.is_file() else sorted(path.iterdir())
    tags = ["SOPClassUID", "SOPInstanceUID"]
    headers = [dcmread(f, specific_tags=tags, stop_before_pixels=True) for f in files]
    return tuple((str(h.SOPClassUID), str(h.SOPInstanceUID)) for h in headers)


def _reference(class_uid: str, instance_uid: str) -> "Dataset":
    from pydicom.dataset import Dataset

    reference = Dataset()
    reference.ReferencedSOPClassUID = class_uid
    reference.ReferencedSOPInstanceUID = instance_uid
    return reference


def _correct(path: Path) -> None:
    """ORIGINAL becomes DERIVED and the date a fixed one, in place: a level may be gigabytes."""
    with open(path, "r+b") as file:
        head = file.read(HEADER_BYTES)
        for tag, value in _CORRECTED.items():
            at = head.find(tag)
            length = int.from_bytes(head[at + 6 : at + 8], "little")
            if value is None:
                value = _derived(head[at + 8 : at + 8 + length])
            if at < 0 or not value or len(value) != length:
                raise SlideError(f"{path.name}: the DICOM writer did not say what the image is.")
            file.seek(at + 8)
            file.write(value)


def _derived(kind: bytes) -> bytes:
    """``ORIGINAL\\...`` as ``DERIVED\\...`` of the same length; empty for anything else."""
    if not kind.startswith((b"ORIGINAL\\", b"DERIVED\\")):
        return b""
    return kind.replace(b"ORIGINAL", b"DERIVED", 1).rstrip().ljust(len(kind))
