"""One name for one thing: kinds of arrays and classes are defined in one place."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """Every shipped file, parsed."""
    for root in ("wsisr", "cli"):
        for path in sorted((ROOT / root).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_bytes())


def test_a_kind_of_array_is_named_in_one_module() -> None:
    named = {
        path.as_posix()
        for path, module in modules()
        for node in module.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Subscript)
        if ast.unparse(node.value.value) in ("NDArray", "np.ndarray", "numpy.typing.NDArray")
    }
    assert named == {"wsisr/arrays.py"}


def test_a_class_name_means_one_class() -> None:
    """Of public classes, those of the command line too: a search finds the one that is meant."""
    places = defaultdict(list)
    for path, module in modules():
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{path}:{node.lineno}")
    assert len(places) > 500
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
