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


MOST_PARAMETERS = 6
MORE_PARAMETERS = {
    # Calls of users, most of whom give one or two of the options; those belong to no common value.
    "wsisr/slides/opening.py:open_slide",
    "wsisr/store/reader.py:PairStore.read",
    "wsisr/registration/pair.py:register_pair",
    "wsisr/degradation/apply.py:degrade",
    "wsisr/inference/images.py:super_resolve",
    "wsisr/testing/camelyon.py:write_camelyon16_like",
    # Layers of networks: keywords are hyperparameters, each given once, by a network's settings.
    "wsisr/models/layers/deformable.py:DeformableAttention.__init__",
    "wsisr/models/layers/hybrid.py:HybridBlock.__init__",
}


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every function with its parameters, methods without self or cls."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            given = child.args
            names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            yield prefix + child.name, [one for one in names if one not in ("self", "cls")]
        name = getattr(child, "name", None)
        yield from functions(child, f"{prefix}{name}." if isinstance(name, str) else prefix)


def test_what_travels_together_is_one_value() -> None:
    """Functions of the library take few parameters; a command has one for each of its options."""
    found = {
        f"{path.as_posix()}:{name}": given
        for path, module in modules()
        if path.parts[0] == "wsisr"
        for name, given in functions(module)
    }
    assert len(found) > 3000
    assert {
        name for name, given in found.items() if len(given) > MOST_PARAMETERS
    } == MORE_PARAMETERS
