"""Networks, degradations and recipes of one's own: how they come in, and what is said of them."""

import hashlib
import importlib
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from training_samples import QUICK, make_store
from typer.testing import CliRunner
from wsisr_cli.main import app

from wsisr import plugins
from wsisr.degradation import degrade, parse_degradation
from wsisr.degradation.describe import describe, describe_names
from wsisr.errors import ConfigError, DegradationError, ModelError, PluginError
from wsisr.models import create_model, list_models, load_model, save_model
from wsisr.models.registry import MODELS
from wsisr.plugins import check_recorded, given, load_plugins
from wsisr.tasks import register_segmenter
from wsisr.tasks.reference import open_reference
from wsisr.testing.degradations import DegradationTests
from wsisr.testing.models import ModelTests
from wsisr.training.recipes import RECIPES

torch.set_num_threads(1)
ROOT = Path(__file__).parent.parent
TEMPLATES = ROOT / "docs" / "plugins"
STAGE = """
from typing import ClassVar, Literal
from wsisr.degradation import Stage, register_degradation

@register_degradation
class Mine(Stage):
    \"\"\"A stage of a test.\"\"\"

    rank: ClassVar[int] = 41
    kind: Literal["mine"] = "mine"

    def apply(self, x, context):
        return BODY
"""


@pytest.fixture(autouse=True)
def apart() -> Iterator[None]:
    """What a test registers is gone after it."""
    registries = list(plugins._REGISTRIES.values())
    kept = [{key: dict(v) for key, v in vars(r).items() if isinstance(v, dict)} for r in registries]
    loaded, known = dict(plugins._GIVEN), set(sys.modules)
    yield
    for registry, tables in zip(registries, kept, strict=True):
        vars(registry).update(tables)
    plugins._GIVEN.clear()
    plugins._GIVEN.update(loaded)
    plugins._SAID.clear()
    for name in set(sys.modules) - known:
        if name.startswith((plugins._FILES, "example_sr")):
            del sys.modules[name]


def stage_file(folder: Path, body: str = "x", name: str = "mine.py") -> Path:
    file = folder / name
    file.write_text(STAGE.replace("BODY", body), encoding="utf-8")
    return file


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, points: str, **modules: str) -> None:
    """A package `example_sr` with entry points, as pip would leave it."""
    site = folder / "site"
    package = site / "example_sr"
    package.mkdir(parents=True, exist_ok=True)
    for name, text in {"__init__": "", **modules}.items():
        (package / f"{name}.py").write_text(text, encoding="utf-8")
    info = site / "example_sr-1.2.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: example-sr\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()


def template(name: str) -> str:
    return (TEMPLATES / f"{name}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["network", "degradation", "recipe"])
def test_the_page_shows_the_templates(name: str) -> None:
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    assert f"```python\n{template(name)}```" in page


class TestTemplate(ModelTests):
    """The template of a network keeps the contract."""

    name, scale = "sketch", 4

    @pytest.fixture(autouse=True)
    def loaded(self, apart: None) -> None:
        load_plugins([str(TEMPLATES / "network.py")])


class TestDegradationTemplate(DegradationTests):
    """So does that of a degradation."""

    spec = "vignette"
    scales = (1.5, 4.0)
    keeps_grey = 20.0  # it darkens

    @pytest.fixture(autouse=True)
    def loaded(self, apart: None) -> None:
        load_plugins([str(TEMPLATES / "degradation.py")])


def test_the_page_shows_the_template_of_a_segmenter_and_it_answers() -> None:
    page = (ROOT / "docs" / "downstream.md").read_text(encoding="utf-8")
    assert f"```python\n{template('segmenter')}```" in page
    load_plugins([str(TEMPLATES / "segmenter.py")])
    reference = open_reference("nuclei=mine", torch.device("cpu"))
    digest = hashlib.sha256(template("segmenter").encode()).hexdigest()[:12]
    assert reference.words == f"mine (segmenter.py {digest})"
    image = np.full((40, 40, 3), 255, np.uint8)
    image[5:15, 5:15], image[20:30, 20:30] = 10, 20
    labels = reference.answer(image, "").labels
    assert labels is not None and labels.max() == 2
    register_segmenter("wrong")(lambda image: image.mean(2))
    with pytest.raises(ModelError, match="one integer for each pixel"):
        open_reference("nuclei=wrong", torch.device("cpu")).answer(image, "")


def test_the_templates_train_evaluate_and_upscale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "pairs.zarr", count=2)
    every = [x for n in ("network", "degradation", "recipe") for x in ("--plugin", file_of(n))]
    settings = [x for s in (*QUICK, "recipe.kind=charbonnier") for x in ("--set", s)]
    run = ["train", "--model", "sketch", "--preset", "tiny", "--steps", "2", *settings]
    assert said(*run, "--lr-source", "vignette", *every)[0] == 0
    record = json.loads(Path("runs/sketch-x4/run.json").read_text())
    found = {(p["what"], p["name"], p["source"]) for p in record["plugins"]}
    assert found == {
        ("model", "sketch", "network.py"),
        ("recipe", "charbonnier", "recipe.py"),
        ("degradation", "vignette", "degradation.py"),
    }
    assert all(len(p["sha256"]) == 64 for p in record["plugins"])
    assert record["lr_origin"] == "simulated:vignette"
    card = Path("runs/sketch-x4/card.md").read_text()
    assert "- recipe `charbonnier`: recipe.py, SHA-256" in card
    code, text = said(*run, "--resume", *every)
    assert code == 0, text
    evaluate = ["eval", "--scales", "4", "--limit", "1", "--figures", "0", "--no-cost"]
    code, text = said(*evaluate, "--lr-source", "vignette", *every)
    results = json.loads(Path("eval/results.json").read_text())
    assert code == 0 and not results["failed"], text
    assert results["entries"][1]["plugins"][0]["source"] == "network.py"
    assert "sketch; network.py, SHA-256" in Path("eval/index.html").read_text()
    assert results["columns"][0]["degradation"]["plugins"][0]["name"] == "vignette"
    picture = tmp_path / "in.png"
    from PIL import Image

    Image.new("RGB", (20, 16), (200, 120, 160)).save(picture)
    code, text = said("upscale", "in.png", "--model", "runs/sketch-x4", "-o", "o.png", *every[:2])
    assert code == 0 and Image.open("o.png").size == (80, 64), text


def file_of(name: str) -> str:
    return str(TEMPLATES / f"{name}.py")


def said(*words: str) -> tuple[int, str]:
    """Exit code and words of a command, whose errors are those that the script would print."""
    result = CliRunner().invoke(app, list(words))
    text = result.output + (f"wsisr: {result.exception}" if result.exception else "")
    return (2 if isinstance(result.exception, ConfigError | ModelError) else result.exit_code), text


def test_a_run_folder_never_makes_code_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_plugins([file_of("network")])
    folder = tmp_path / "got" / "sketch"
    save_model(create_model("sketch", scale=2, preset="tiny"), folder)
    for registry in plugins._REGISTRIES.values():
        registry.remove("sketch")
    trap = "import pathlib\npathlib.Path('ran').touch()\n" + template("network")
    monkeypatch.chdir(tmp_path)
    for place in (folder, tmp_path):
        (place / "network.py").write_text(trap, encoding="utf-8")
        (place / "sketch.py").write_text(trap, encoding="utf-8")
    with pytest.raises(PluginError) as caught:
        load_model(folder)
    words = str(caught.value)
    assert "needs the model sketch" in words and "give --plugin network.py" in words
    assert "\n" not in words and not (tmp_path / "ran").exists()
    code, text = said("upscale", "in.png", "--model", str(folder), "-o", "out.png")
    assert code == 2 and not (tmp_path / "ran").exists(), text


def test_a_changed_source_is_said_and_not_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "network.py"
    file.write_text(template("network"), encoding="utf-8")
    load_plugins([str(file)])
    save_model(create_model("sketch", scale=2, preset="tiny"), tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    first = config["plugins"]
    MODELS.remove("sketch")
    file.write_text(template("network") + "# another\n", encoding="utf-8")
    load_plugins([str(file)])
    assert load_model(tmp_path / "saved").info.name == "sketch"
    assert load_model(tmp_path / "saved").info.name == "sketch"
    lines = [r.getMessage() for r in caplog.records if "results may differ" in r.getMessage()]
    assert len(lines) == 1 and first[0]["sha256"][:12] in lines[0]
    assert check_recorded(first, "saved")
    second = MODELS.record("sketch")
    assert check_recorded([second], "saved") == []


def test_a_resumed_run_names_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/sketch-x4").mkdir(parents=True)
    load_plugins([file_of("network")])
    record = {
        "format": "wsisr-run", "format_version": 1, "model": "sketch", "preset": "tiny", "seed": 0,
        "scale": 4, "scale_range": [4, 4], "state": "running", "step": 1, "steps": 2, "store": {},
        "kind": "fixed", "lr_origin": "reduced", "degradation": None, "patients": [], "groups": [],
        "plugins": [MODELS.record("sketch")],
    }  # fmt: skip
    Path("runs/sketch-x4/run.json").write_text(json.dumps(record))
    MODELS.remove("sketch")
    code, text = said("train", "--model", "sketch", "--resume")
    assert code == 2 and "runs/sketch-x4 needs the model sketch" in text.replace(os.sep, "/")
    code, text = said("train", "--model", "sketch")
    assert code == 2 and "one of your own: --plugin" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\n", "registers nothing"),
        ("import wsisr.models\n", "registers nothing"),
        ("def f(:\n", r"SyntaxError in line 1"),
        ("a = 1\nb = a / 0\n", r"ZeroDivisionError in line 2"),
        ("import no_such_thing\n", r"ModuleNotFoundError in line 1"),
        ("raise SystemExit(3)\n", "ends the program"),
        (STAGE.replace('"mine"', '"jpeg"'), r"degradation named 'jpeg' is there already \(built"),
        (STAGE.replace('"mine"', '"a+b"'), "without any of"),
        (STAGE.replace("= 41", "= 30"), "rank 30"),
        (STAGE.replace("apply", "aply"), r"no apply\(self"),
        (STAGE.replace('"""A stage of a test."""', "pass"), "docstring"),
        (
            "from wsisr.training import Recipe, register_recipe\n"
            "@register_recipe\nclass A(Recipe):\n    kind = 'a'\n",
            "no step",
        ),
    ],
)
def test_a_bad_plugin_is_refused_in_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    before = [set(registry) for registry in plugins._REGISTRIES.values()]
    modules = set(sys.modules)
    file = tmp_path / "bad.py"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(PluginError, match=says) as caught:
        load_plugins([str(file)])
    words = str(caught.value)
    assert words.startswith(f"--plugin {file}: ") and "\n" not in words
    assert [set(registry) for registry in plugins._REGISTRIES.values()] == before
    assert not [m for m in set(sys.modules) - modules if m.startswith(plugins._FILES)]
    assert given() == ()


def test_what_a_broken_plugin_had_registered_is_forgotten(tmp_path: Path) -> None:
    file = stage_file(tmp_path)
    file.write_text(file.read_text() + "\nraise ValueError('late')\n", encoding="utf-8")
    with pytest.raises(PluginError, match=r"ValueError in line 15 \(late\)"):
        load_plugins([str(file)])
    with pytest.raises(DegradationError, match="no degradation is named 'mine'"):
        parse_degradation("mine")


@pytest.mark.parametrize("name", ["nothing.py", "folder/nothing", "no_such_module", "json"])
def test_what_is_no_plugin_is_named(name: str) -> None:
    with pytest.raises(PluginError, match=f"--plugin {name}: "):
        load_plugins([name])


def test_a_plugin_given_twice_is_one(tmp_path: Path) -> None:
    file = stage_file(tmp_path)
    load_plugins([str(file), str(file)])
    assert given() == (str(file),)
    other = stage_file(tmp_path, "x + 1", "other.py")
    with pytest.raises(PluginError, match=r"'mine' is there already \(of mine\.py\)"):
        load_plugins([str(other)])


def test_what_is_built_in_is_nobodys() -> None:
    load_plugins([file_of("degradation"), file_of("network"), file_of("recipe")])
    assert [n for n in MODELS if MODELS.record(n)] == ["sketch"]
    assert [n for n in RECIPES if RECIPES.record(n)] == ["charbonnier"]
    record = parse_degradation("bicubic+vignette").record()
    assert [p["name"] for p in record["plugins"]] == ["vignette"]
    assert "plugins" not in parse_degradation("bicubic+jpeg").record()


def test_a_degradation_of_ones_own_is_a_name_like_any_other(tmp_path: Path) -> None:
    load_plugins([file_of("degradation")])
    first = parse_degradation("jpeg+vignette:strength=0.5+area")
    assert [stage.kind for stage in first.stages] == ["area", "vignette", "jpeg"]
    assert parse_degradation("vignette").random and not first.random
    assert "degradation.py, SHA-256" in describe("vignette")
    assert dict(describe_names())["vignette"].endswith("[degradation.py]")
    white = torch.full((2, 3, 16, 16), 200, dtype=torch.uint8)
    lr = degrade(white, "vignette:strength=0.5", 2)
    assert (int(lr[0, 0, 3, 3]), int(lr[0, 0, 0, 0])) == (198, 100)
    drawn = degrade(white, "vignette", 2, seed=1)
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[1:], degrade(white[1:], "vignette", 2, seed=1, slots=[1]))
    # Its file is a degradation too, and says what it needs where that is missing.
    file = tmp_path / "d.json"
    first.write(file)
    assert parse_degradation(file).digest == first.digest
    for registry in plugins._REGISTRIES.values():
        registry.remove("vignette")
    for content in (file, json.loads(file.read_text())):
        with pytest.raises(PluginError, match=r"needs the degradation vignette.*--plugin degr"):
            parse_degradation(content)


def test_the_source_is_part_of_what_a_degradation_is(tmp_path: Path) -> None:
    load_plugins([str(stage_file(tmp_path, "x"))])
    first = parse_degradation("mine").digest
    for registry in plugins._REGISTRIES.values():
        registry.remove("mine")
    load_plugins([str(stage_file(tmp_path, "x / 2"))])
    assert parse_degradation("mine").digest != first


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("x + context.draws.uniform('a')[:, None, None, None]", "`random` denies it"),
        ("x + context.draws.within('a').normals('b', x.shape[1:])", "`random` denies it"),
        ("x[..., 1:]", r"shape \(1, 3, 8, 7\); .* \(1, 3, 8, 8\)"),
        ("x.byte()", "torch.uint8"),
        ("x / 0 * 0", "no numbers"),
    ],
)
def test_a_stage_that_breaks_its_word_is_refused(tmp_path: Path, body: str, says: str) -> None:
    load_plugins([str(stage_file(tmp_path, body))])
    with pytest.raises(DegradationError, match=f"mine.*{says}"):
        degrade(torch.full((1, 3, 16, 16), 9, dtype=torch.uint8), "mine", 2)


def test_an_error_inside_a_plugin_names_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image
    from wsisr_cli.main import main

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (16, 16)).save("in.png")
    file = stage_file(tmp_path, "x.no_such_thing()")
    words = ["degrade", "apply", "in.png", "--kind", "mine", "--scale", "2", "-o", "out.png"]
    monkeypatch.setattr(sys, "argv", ["wsisr", *words, "--plugin", str(file)])
    with pytest.raises(SystemExit) as stop:
        main()
    text = capsys.readouterr().err
    assert stop.value.code == 2 and not Path("out.png").exists()
    assert "wsisr: a plug-in broke: mine.py, line 13, in apply: AttributeError (" in text
    assert "Traceback" not in text


def _digest(spec: str) -> str:
    return parse_degradation(spec).digest


def test_processes_that_are_started_see_them() -> None:
    load_plugins([file_of("degradation")])
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, load_plugins, (given(),)) as pool:
        assert pool.submit(_digest, "vignette").result() == _digest("vignette")


POINTS = """[wsisr.models]
sketch = example_sr.network
[wsisr.degradations]
vignette = example_sr.degradation
[wsisr.recipes]
charbonnier = example_sr.recipe
"""


def test_installed_packages_are_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("network", "degradation", "recipe")
    install(tmp_path, monkeypatch, POINTS, **{name: template(name) for name in names})
    assert "sketch" not in list_models()
    assert create_model("sketch", scale=3).info.name == "sketch"
    assert MODELS.record("sketch") | {"sha256": ""} == {
        "what": "model", "name": "sketch", "source": "example_sr.network",
        "package": "example-sr 1.2", "sha256": "",
    }  # fmt: skip
    assert RECIPES.get("charbonnier").kind == "charbonnier"
    assert parse_degradation("vignette").plugins[0]["package"] == "example-sr 1.2"
    record = MODELS.record("sketch")
    assert (
        record is not None
        and record["sha256"] == parse_degradation("vignette").plugins[0]["sha256"]
    )
    assert "from example-sr 1.2" in said("models", "list")[1]
    assert "[example-sr 1.2]" in said("degrade", "list")[1]
    assert "install example-sr 1.2" in plugins.missing(record, "runs/x")
    # The same module by --plugin is the same thing.
    load_plugins(["example_sr.network"])


@pytest.mark.parametrize(
    ("points", "text", "says"),
    [
        ("[wsisr.models]\nsketch = example_sr.gone\n", "", "finds no module 'example_sr.gone'"),
        ("[wsisr.models]\nsketch = example_sr.net\n", "x = 1\n", "registers nothing"),
        ("[wsisr.models]\nsketch = example_sr.net\n", "1 / 0\n", "ZeroDivisionError in line 1"),
        ("[wsisr.models]\nother = example_sr.net\n", None, r"registers no model of that name \(sk"),
        ("[wsisr.models]\nedsr = example_sr.net\n", None, "of that name is there already"),
    ],
)
def test_a_broken_package_is_named_where_it_is_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points: str, text: str | None, says: str
) -> None:
    install(tmp_path, monkeypatch, points, net=template("network") if text is None else text)
    name = points.split("\n")[1].partition(" ")[0]
    assert create_model("edsr", scale=2, preset="tiny").info.name == "edsr"  # unharmed
    if name != "edsr":
        with pytest.raises(PluginError, match=says) as caught:
            create_model(name, scale=2)
        assert "example-sr 1.2" in str(caught.value) and "\n" not in str(caught.value)
    code, listed = said("models", "list")
    assert code == 0 and "not usable: the entry point" in listed and "edsr" in listed
