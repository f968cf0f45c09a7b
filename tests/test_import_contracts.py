"""The import contracts name every module that they are about."""

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
