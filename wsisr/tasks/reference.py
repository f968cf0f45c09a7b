"""Who answers: a reference that was fitted here, one of each fold, or a program of one's own."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsisr.arrays import UInt8Array
from wsisr.errors import ConfigError, ModelError, damage_is_clear
from wsisr.files import file_sha256, read_document
from wsisr.inference.trained import BEST, LAST, WEIGHTS_NAME
from wsisr.models.foreign.containers import read_safetensors
from wsisr.plugins import OPTION, Registry
from wsisr.tasks.hovernet import SUFFIXES, find_nuclei, read_hovernet
from wsisr.tasks.kinds import KINDS, Answer, Kind, Maps
from wsisr.tasks.networks import TaskModel, build_network

RECORD_NAME = "task.json"
FORMAT = "wsisr-task"
FORMAT_VERSION = 1
FOLD = "fold-"
Segmenter = Callable[[UInt8Array], Any]
"""``segmenter(image) -> labels``, or ``(labels, types)``: image (H, W, 3) uint8, labels (H, W)
integer, types a mapping of label to name; for `classes` a mapping of class to probability."""
SEGMENTERS: Registry[Segmenter] = Registry("segmenter", "wsisr.segmenters", ConfigError)
"""Programs of one's own by name."""


def register_segmenter(name: str) -> Callable[[Segmenter], Segmenter]:
    """Make a function known by a name (a decorator), for ``--task nuclei=NAME``.

    The function sees one image at a time and decides itself where it runs: a wrapper around
    HoVer-Net, StarDist or Cellpose is a few lines.
    """

    def keep(function: Segmenter) -> Segmenter:
        SEGMENTERS.add(name, function)
        return function

    return keep


class Reference(ABC):
    """Answers for images.

    Attributes
    ----------
    words : str
        What it is, with a digest: scores of two different ones are never mixed.
    """

    kind: Kind
    words: str
    classes: tuple[str, ...] = ()

    @abstractmethod
    def answer(self, image: UInt8Array, patient: str) -> Answer:
        """For an image (H, W, 3) of a patient."""

    def seen(self, patients: Iterable[str]) -> list[str]:
        """Which of the patients it cannot answer for, because it was fitted on them; if known."""
        return []


class Own(Reference):
    """A registered function; what it was fitted on is not known."""

    def __init__(self, kind: Kind, name: str, function: Segmenter, classes: Sequence[str]) -> None:
        self.kind, self.name, self.function, self.classes = kind, name, function, tuple(classes)
        record = SEGMENTERS.record(name) or {}
        self.words = f"{name} ({record.get('source', 'built in')} {record.get('sha256', '')[:12]})"

    def answer(self, image: UInt8Array, patient: str) -> Answer:
        given = self.function(image)
        found = given[0] if isinstance(given, tuple) else given
        if not isinstance(self.kind, Maps):
            return Answer(classes={str(k): float(v) for k, v in dict(found).items()})
        labels = np.asarray(found)
        if labels.shape != image.shape[:2] or not np.issubdtype(labels.dtype, np.integer):
            raise ModelError(
                f"{self.name}: gave {labels.dtype} of shape {labels.shape} for an image of "
                f"{image.shape[:2]}; a label map has one integer for each pixel"
            )
        said = given[1] if isinstance(given, tuple) and len(given) > 1 else None
        types = {int(k): str(v) for k, v in said.items()} if isinstance(said, Mapping) else None
        return Answer(labels=labels.astype(np.int32), types=types)


class Weights(Reference):
    """HoVer-Net with a file of weights; what it was fitted on is not known.

    Parameters
    ----------
    classes : sequence of str
        Of the store: names of the file's types where there are as many, which the file itself does
        not name.
    """

    kind = KINDS["nuclei"]

    def __init__(self, path: Path, classes: Sequence[str], device: torch.device) -> None:
        self.model = read_hovernet(path).to(device)
        self.device = device
        self.names = tuple(classes) if len(classes) == self.model.types - 1 else ()
        types = f", types taken to be {', '.join(self.names)}" if self.names else ""
        self.words = (
            f"HoVer-Net ({'fast' if self.model.fast else 'original'}) with weights "
            f"{file_sha256(path)[:12]}, fitted on nobody knows whom{types}"
        )

    def answer(self, image: UInt8Array, patient: str) -> Answer:
        return find_nuclei(self.model, image, self.names, self.device)


class FittedReference(Reference):
    """A run of `wsisr train --task`, or its folds: each patient is answered by the network that
    was fitted without it."""

    def __init__(self, folders: Sequence[Path], device: torch.device, all_of: bool) -> None:
        self.members = [_Member(folder, device) for folder in folders]
        first = self.members[0]
        self.kind, self.classes = first.kind, first.classes
        if any((m.kind.name, m.classes) != (self.kind.name, self.classes) for m in self.members):
            raise ConfigError(f"{folders[0].parent}: its folds are of different tasks")
        if all_of and len(self.members) != first.folds:
            raise ConfigError(
                f"{folders[0].parent} has {len(self.members)} of {first.folds} folds: train on "
                "with --resume"
            )
        digests = ", ".join(member.digest[:12] for member in self.members)
        folds = f"out of fold ({len(self.members)} networks), " if all_of else ""
        self.words = f"{first.words}, {folds}weights {digests}"

    def answer(self, image: UInt8Array, patient: str) -> Answer:
        return self._member(patient).answer(image)

    def seen(self, patients: Iterable[str]) -> list[str]:
        return sorted({p for p in patients if all(p in m.patients for m in self.members)} - {""})

    def _member(self, patient: str) -> "_Member":
        unseen = [m for m in self.members if patient not in m.patients]
        # A patient of no fold at all: any network will do, and always the same one.
        return (unseen or self.members)[0]


class _Member:
    def __init__(self, folder: Path, device: torch.device) -> None:
        document = read_record(folder)
        path = folder / RECORD_NAME
        with damage_is_clear(path, ConfigError, "copy it again from where it was written"):
            self.kind = KINDS[document["task"]]
            self.classes = tuple(document["classes"])
            self.patients = frozenset(document["patients"])
            fold = document["fold"]
            self.folds = int(fold[1]) if fold else 0
            seen = document["images"]
            self.words = (
                f"{document['network']} fitted on {seen} of {len(self.patients)} patients, "
                f"{document['step']} steps, seed {document['seed']}"
            )
            settings, network = dict(document["settings"]), str(document["network"])
        if document["state"] != "finished":
            raise ConfigError(f"{folder} is not finished (step {document['step']}): --resume it")
        # Out of fold there is nothing to choose a best step on but the patients to be tested.
        name = LAST if fold or not (folder / BEST).is_dir() else BEST
        weights = folder / name / WEIGHTS_NAME
        tensors = read_safetensors(weights)
        self.model: TaskModel = build_network(
            network, self.kind.channels(self.classes), settings, seed=0
        )
        try:
            self.model.load_state_dict(tensors)
        except RuntimeError as error:
            raise ModelError(f"{weights} does not fit its record; copy the run again") from error
        self.digest = file_sha256(weights)
        self.device = device
        # Channels last: half the time of a U-Net on a field of 1000 px, on a CPU too.
        self.model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def answer(self, image: UInt8Array) -> Answer:
        return ask(self.model, self.kind, image, self.classes, self.device)


@torch.no_grad()
def ask(
    model: TaskModel, kind: Kind, image: UInt8Array, classes: Sequence[str], device: torch.device
) -> Answer:
    """What a network says of an image (H, W, 3) uint8, seen as a whole."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).permute(2, 0, 1)[None]
    out = model(pixels.float() / 255.0)[0].float().cpu().numpy()
    return kind.read(out, classes)


def open_reference(text: str, device: torch.device, classes: Sequence[str] = ()) -> Reference:
    """A reference by what a user calls it.

    Parameters
    ----------
    text : str
        ``nuclei`` (the folder ``tasks/nuclei``), a folder of a run or of folds, or
        ``nuclei=FOLDER``, ``nuclei=NAME`` of a registered function, ``nuclei=FILE`` with weights of
        HoVer-Net.
    classes : sequence of str
        Of the store, for functions.

    Raises
    ------
    ConfigError
        There is nothing of that name, or it is another task's.
    """
    task, equals, where = text.partition("=")
    if not equals:
        task, where = (text, str(Path("tasks") / text)) if text in KINDS else ("", text)
    if task and task not in KINDS:
        raise ConfigError(f"--task {text}: tasks are {', '.join(KINDS)}")
    function = SEGMENTERS.find(where) if task else None
    if function is not None:
        return Own(KINDS[task], where, function, classes)
    folder = Path(where)
    if folder.suffix.lower() in SUFFIXES and folder.is_file():
        if task != "nuclei":
            raise ConfigError(f"--task {text}: a file of weights is HoVer-Net's; nuclei={where}")
        return Weights(folder, classes, device)
    one = (folder / RECORD_NAME).is_file()
    folders = [folder] if one else fold_folders(folder)
    if not folders:
        raise ConfigError(
            f"--task {text}: {folder} holds no {RECORD_NAME} and no folds, and no function of that "
            f"name is registered; fit one with wsisr train --task {task or 'nuclei'}, or give "
            f"{OPTION} FILE.py"
        )
    reference = FittedReference(folders, device, all_of=not one)
    if task and reference.kind.name != task:
        raise ConfigError(f"--task {text}: {folder} was fitted for {reference.kind.name}")
    return reference


def fold_folders(folder: Path) -> list[Path]:
    """Runs of folds directly in a folder, in order."""
    found = [p.parent for p in folder.glob(f"{FOLD}*/{RECORD_NAME}")]
    return sorted(found, key=lambda p: (len(p.name), p.name))


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a run of `wsisr train --task`.

    Raises
    ------
    ConfigError
        There is none, or it is of another kind or version.
    """
    what = "a run of wsisr train --task"
    return read_document(folder / RECORD_NAME, what, FORMAT, FORMAT_VERSION)
