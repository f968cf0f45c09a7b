"""The import contracts name every module that they are about."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_contract_of_layers_names_every_other_module_of_models() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (contract,) = (c for c in contracts if c.get("source_modules") == ["wsisr.models.layers"])
    there = {
        f"wsisr.models.{path.stem}"
        for path in (ROOT / "wsisr" / "models").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    missing = there - {"wsisr.models.__init__", "wsisr.models.layers"}
    assert len(missing) > 30 and missing <= set(contract["forbidden_modules"])


NAMES = {
    "google-crc32c": "google_crc32c", "lazy-loader": "lazy_loader", "opencv-python-headless": "cv2",
    "openslide-python": "openslide", "pillow": "PIL", "pyyaml": "yaml", "scikit-image": "skimage",
}  # fmt: skip
"""Distribution -> module, where they are called differently."""
WITHOUT_MODULE = {"openslide-bin"}
"""What another dependency loads: openslide-python its library."""
ASKED_FOR = {
    "boto3", "h5py", "obstore", "onnxruntime", "pandas", "pytest", "spandrel", "wsidicom",
    "wsidicomizer", "wsisr", "wsisr_cli",
}  # fmt: skip
"""Of extras, of the user's own, or named in a message where it is missing."""


def imported_modules() -> set[str]:
    """Top names of all that shipped code imports, also within functions."""
    found = set()
    for root in ("wsisr", "cli"):
        for path in (ROOT / root).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.partition(".")[0])
    return found


def test_every_dependency_is_imported_and_every_import_is_a_dependency() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    needed = {re.split(r"[<>=\[;]", text)[0] for text in project["dependencies"]}
    modules = {NAMES.get(name, name) for name in needed - WITHOUT_MODULE}
    imported = imported_modules()
    assert modules <= imported, f"never imported: {modules - imported}"
    others = imported - modules - sys.stdlib_module_names - ASKED_FOR
    assert not others, f"imported and not required: {others}"
