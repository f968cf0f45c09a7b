"""The groups of settings that a manifest consists of (see `wsisr.building.manifest`)."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

SplitName = Literal["train", "val", "test"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Paper(Strict):
    """The publication that a data set comes from."""

    title: str
    authors: str = ""
    year: int | None = None
    doi: str = ""


class ClamRule(Strict):
    """Settings of the tissue method `clam`; lengths and areas stand on the glass."""

    saturation: int = Field(8, ge=0, le=255)
    """Smallest HSV saturation of tissue, 0-255; not used with `otsu`."""
    otsu: bool = True
    median_um: float = Field(112.0, gt=0.0)
    close_um: float = Field(64.0, gt=0.0)
    min_tissue_mm2: float = Field(0.262144, ge=0.0)
    """Smaller pieces of tissue are dropped: 16 fields of 512 px at 0.25 um/px."""
    min_hole_mm2: float = Field(0.065536, ge=0.0)
    """Smaller holes are filled: 4 such fields."""
    max_holes: int = Field(8, ge=0)
    """Holes kept in one piece of tissue, the largest first."""


class TissueRule(Strict):
    """Which part of the glass counts."""

    method: Literal["consensus", "clam-like", "clam", "none"] = "consensus"
    """`clam`: saturation threshold, holes and areas as CLAM describes them (`clam` below);
    `none`: ready-made patches, every pixel counts."""
    min_fraction: Fraction = 0.5
    """Smallest share of tissue in the field; a paper's "more than" is `strict`."""
    strict: bool = False
    """Whether the shares of tissue and label must be exceeded, not just reached."""
    um_per_px: float = Field(8.0, gt=0.0, le=64.0)
    clam: ClamRule | None = None


class Sampling(Strict):
    """Where candidates lie before any rule has looked at them."""

    kind: Literal["grid", "cover", "random", "texture", "nuclei", "points"] = "grid"
    """`texture` and `nuclei` draw places with a probability that follows the tissue overview;
    `cover` takes the fewest evenly spaced fields that leave no pixel out (images)."""
    stride: float = Field(1.0, gt=0.0)
    """Grid pitch in fields of view: 1 touches, 0.5 overlaps by half."""
    snap_tiles: bool = False
    """Grid: put HR patches on the edges of the slide's stored tiles, where the two divide each
    other, with the next larger pitch that fits: the fewest tiles are decoded, and kept by codec
    slide."""
    per_slide: int | None = Field(None, ge=1)
    """How many places are drawn on each slide (random, texture, nuclei)."""
    max_overlap: Fraction = 0.0
    """Largest share of a field that a chosen patch may share with another one."""
    points: str | None = None
    """Points: CSV of `slide,x,y` level-0 centres, relative to SOURCE; `*` stands for any name."""
    unlisted: Literal["none", "grid"] = "none"
    """What a slide gives that no list of points names: nothing, or the grid."""
    max_per_slide: int | None = Field(None, ge=1)
    max_per_patient: int | None = Field(None, ge=1)


class Labels(Strict):
    """Classes of the glass and how pure a patch must be."""

    classes: tuple[str, ...] = ()
    """Names in the order of their numbers, e.g. (normal, tumour); empty: no classes."""
    background: str | None = None
    """The class of tissue that no annotation covers."""
    synonyms: dict[str, tuple[str, ...]] = {}
    """Other names of classes in annotation files, e.g. tumor: [carcinoma, DCIS]; case never counts,
    and tumour, metastases, _0 and _1 mean tumor anyway."""
    min_fraction: Fraction = 0.5
    required: bool = False
    """Whether patches without a pure class are dropped."""


class Filters(Strict):
    """Rules on the pixels themselves."""

    min_texture: float = Field(0.0, ge=0.0)
    rgb_outlier_sd: float | None = Field(None, gt=0.0)
    """Drop patches whose mean colour lies this many standard deviations off the slide's."""


class Registration(Strict):
    """How LR and HR of one place are brought together (design 4)."""

    method: Literal["none", "levels", "ncc-integer", "subpixel", "affine"] = "levels"
    """`levels`: one measured transform per level of a slide. `ncc-integer` (the paper's),
    `subpixel` and `affine`: every pair is searched for by itself. `none`: the file is believed."""
    region_px: int | None = Field(None, ge=1)
    """Side of the HR search region; None: the patch and 13 px on every side."""

    @property
    def per_pair(self) -> bool:
        """Whether every pair is searched for by itself."""
        return self.method not in ("none", "levels")


class RescanRule(Strict):
    """How two scans of one glass find each other: a table, else file names."""

    lr: str = r"(?P<glass>.+?)[ ._-]*(10x|5x|lr|low|moving)"
    """Whole name of an LR scan without suffix (with its folders below SOURCE, if the pattern has
    a slash); the groups `glass`, `glass2` ... are what both scans share, the group `patient` names
    whom it is from."""
    hr: str = r"(?P<glass>.+?)[ ._-]*(40x|20x|hr|high|fixed)"
    table: str = "pairs.csv"
    """CSV with the columns lr,hr (file names or ids), relative to SOURCE."""
    lr_mpp: float | None = Field(None, gt=0.0)
    """Resolution of every LR scan in um/px as the set states it, for files that do not."""
    hr_mpp: float | None = Field(None, gt=0.0)

    @field_validator("lr", "hr")
    @classmethod
    def _pattern(cls, value: str) -> str:
        try:
            groups = re.compile(value).groupindex
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from None
        if "glass" not in groups:
            raise ValueError(f"{value!r} needs a group (?P<glass>...)")
        return value


class Quota(Strict):
    """Patches wanted of each class (or in all, under the name `any`) in one split."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Annotated[int, Field(ge=0)]]

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.__pydantic_extra__)


class Splits(Strict):
    """Who is trained on and who is tested."""

    kind: Literal["patient", "official", "paper-random"] = "patient"
    """`paper-random`: patches are divided one by one, as some papers do; neighbours then stand on
    both sides, and the store is stamped LEAKY with the measured overlap."""
    weights: dict[SplitName, Annotated[float, Field(ge=0.0)]] = {
        "train": 5.0,
        "test": 1.0,
    }
    """Relative shares of patients; without `val` a tenth of the training patients validates.
    `official`: for slides that the source does not assign itself."""
    exact: bool = False
    """Exact counts from one seeded order of the patients, instead of one draw per patient."""
    stratify: Literal["site"] | None = None
    official: bool = False
    """With `paper-random`: keep the split that the source gives an image although patients
    stand on both sides of it."""
    test_sets: int | None = Field(None, ge=2, le=100)
    """Divide the test pairs into this many disjoint sets of equal size (root attribute
    `test_sets`), over which a paper averages."""


class ImagesRule(Strict):
    """Ready-made images or patches as the source, in place of slides."""

    layout: Literal["folder", "pcam", "glas", "consep", "monuseg", "breakhis"] = "folder"
    """How the folder says what an image is: by the names of its folders, or as the data set
    is published."""
    magnification: str | None = None
    """What the images are declared to be, e.g. 20x; None: it follows from their resolution."""
    mpp: float | None = Field(None, gt=0.0)
    """Declared resolution in um/px, for files that state none."""
    stack: bool = False
    """Whether all images of a folder (or file) are rows of one slide: for thousands of
    patches of one size."""


class Expected(Strict):
    """How many slides (or images) and pairs a complete build holds. Where a split `val` is not
    named, `train` counts the validation set too, as papers do."""

    slides: dict[SplitName, Annotated[int, Field(ge=0)]] = {}
    pairs: dict[SplitName, Annotated[int, Field(ge=0)]] = {}
