"""Pages of the site that nobody writes: one of the API for each package, from its public names.

A hook of mkdocs; `make docs` runs it. The names are read and nothing is imported, so that the
site needs neither torch nor a slide library.
"""

import ast
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "slides": "Slides",
    "building": "Building pairs",
    "store": "Stores",
    "registration": "Registration",
    "selection": "Tissue, annotations, splits",
    "degradation": "Degradations",
    "metrics": "Metrics",
    "models": "Models",
    "inference": "Inference",
    "training": "Training",
    "tasks": "Downstream tasks",
    "evaluation": "Evaluation",
    "studies": "Studies",
    "upscaling": "Upscaling",
    "reporting": "Pages",
    "testing": "Generated slides and conformance tests",
}


def public_names(package: str) -> list[str]:
    """Full names of what ``from wsisr.PACKAGE import ...`` offers, where each is defined."""
    folder = ROOT / "wsisr" / package
    stub = folder / "__init__.pyi"
    tree = ast.parse((stub if stub.is_file() else folder / "__init__.py").read_bytes())
    offered: set[str] | None = None
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            module = f"wsisr.{package}.{node.module}" if node.level else node.module
            found |= {name.asname or name.name: f"{module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            offered = set(ast.literal_eval(node.value))
    return [full for name, full in sorted(found.items()) if offered is None or name in offered]


def page(package: str, title: str) -> str:
    """The text of a page of the API."""
    parts = [f"# {title}: `wsisr.{package}`"]
    parts += [f"::: {name}" for name in public_names(package)]
    return "\n\n".join(parts) + "\n"


def on_config(config: Any) -> Any:
    """Put the pages into the menu."""
    config.nav.append({"Python": [f"api/{package}.md" for package in PACKAGES]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages."""
    from mkdocs.structure.files import File

    for package, title in PACKAGES.items():
        files.append(File.generated(config, f"api/{package}.md", content=page(package, title)))
    return files
