"""What a user may call a model: a run, a saved model, or a file of weights of another program."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsisr.errors import ConfigError
from wsisr.files import file_sha256
from wsisr.inference.trained import (
    CARD_NAME,
    CONFIG_NAME,
    RUN_NAME,
    TrainedModel,
    is_own_file,
    open_trained,
)

if TYPE_CHECKING:
    from wsisr.models.importing import Imported, WeightsAnswers


def open_model(text: str | Path, runs: Path | None = None) -> TrainedModel:
    """As `open_trained`, which knows what is ours; and files that other programs wrote.

    Raises
    ------
    ModelError, ConfigError
        There is nothing of that name, or it is broken; one sentence.
    """
    path = Path(text)
    known = is_own_file(path) and any((path.parent / n).is_file() for n in (RUN_NAME, CONFIG_NAME))
    if not path.is_file() or known:
        return open_trained(text, runs)
    from wsisr.models import import_weights

    imported = import_weights(path)
    info = imported.model.info
    return TrainedModel(
        name=path.stem,
        model=info.name,
        preset=info.preset,
        scale=info.scale,
        scale_range=info.scale_range,
        folder=path.parent,
        saved=path,
        document={"imported": describe_import(imported, path)},
    )


def import_model(path: Path, folder: Path, said: "WeightsAnswers") -> "Imported":
    """Turn a file of another program into a saved model of ours, with a card.

    Parameters
    ----------
    path : Path
        The file.
    folder : Path
        To write; it must not hold anything yet.
    said : WeightsAnswers
        As for `wsisr.models.import_weights`.

    Raises
    ------
    ModelError
        What is wrong with the file, or what has to be said about it.
    ConfigError
        The folder is in use.
    """
    from wsisr.models import import_weights, save_model

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already and not empty; name another folder with -o")
    imported = import_weights(path, said)
    record = describe_import(imported, path)
    save_model(imported.model, folder, {"imported": record})
    (folder / CARD_NAME).write_text(import_card(imported, record), encoding="utf-8")
    return imported


def describe_import(imported: "Imported", path: Path) -> dict[str, Any]:
    """Where a model comes from, as plain values; without the folder of the file."""
    return {
        "file": path.name,
        "sha256": file_sha256(path),
        "layout": imported.layout,
        "part": imported.part,
        "notes": list(imported.notes),
    }


def describe_trained(trained: TrainedModel) -> str:
    """A trained model in several lines: network, origin of its weights, settings, checksum."""
    from wsisr.inference.loading import load_trained
    from wsisr.models.registry import settings_dict
    from wsisr.plugins import words as plugin_words

    weights, model = trained.weights, load_trained(trained)
    reach = f"x{trained.scale}" if trained.scale else "any scale"
    low, high = trained.scale_range
    settings = settings_dict(model.settings)
    lines = [
        f"{trained.name}: {trained.model} {reach}, {model.parameter_count:,} parameters",
        f"paper       {model.info.citation}",
        f"scales      x{low:g}" + (f" to x{high:g}" if high != low else ""),
        f"weights     {weights.name}, SHA-256 {trained.weights_sha256}",
    ]
    if trained.state:
        lines.append(f"run         {trained.state}, step {trained.step:,} of {trained.steps:,}")
    lines.append(f"trained on  {trained.lr_origin or 'LR of unknown origin'}")
    imported = trained.document.get("imported")
    if isinstance(imported, dict):
        lines.append(f"from        {imported.get('file')}: {imported.get('layout')}")
        lines += [f"            {note}" for note in imported.get("notes") or ()]
    lines += [f"{p['what']:12}{p['name']} from {plugin_words(p)}" for p in trained.plugins]
    lines.append("settings    " + (", ".join(f"{k}={v}" for k, v in settings.items()) or "none"))
    return "\n".join(lines)


def import_card(imported: "Imported", record: dict[str, Any]) -> str:
    """The ``README.md`` of an imported model."""
    from wsisr.models.weights import NOT_FOR_DIAGNOSIS, front_matter

    info = imported.model.info
    reach = f"x{info.scale}" if info.scale else "any scale"
    part = f", its part `{record['part']}`" if record["part"] else ""
    lines = [
        f"# {info.name} {reach}",
        "",
        NOT_FOR_DIAGNOSIS,
        "",
        "## What it is",
        "",
        f"- network: `{info.name}`, {imported.model.parameter_count:,} parameters; {info.citation}",
        f"- weights: the file `{record['file']}`{part} (layout: {record['layout']}), "
        f"SHA-256 `{record['sha256']}`",
        "- trained on: not recorded here; ask whoever published the file, for its licence too",
        "",
        "## Limits and readings",
        "",
        *(f"- {note}" for note in imported.notes or ("none recorded",)),
    ]
    return front_matter(info.name) + "\n".join(lines) + "\n"
