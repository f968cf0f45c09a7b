"""Rules over columns, such as ``spread<0.25 and ncc_band>0.85``: parsed, never executed.

Python's own grammar, cut down to names of columns, numbers, comparisons, and/or/not, + - * / and
abs(); anything else is refused with the place where it stands.
"""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final

import numpy as np

from wsisr.arrays import AnyArray, BoolArray
from wsisr.errors import StoreError
from wsisr.store.schema import COLUMNS
from wsisr.words import closest

MAX_LENGTH: Final = 1000
WORDS: Final[Mapping[str, float]] = {"accept": 1.0, "reject": 0.0, "true": 1.0, "false": 0.0}

_COMPARE: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A checked rule.

    Attributes
    ----------
    text : str
        With single spaces.
    columns : tuple of str
        What it reads, sorted.
    """

    text: str
    columns: tuple[str, ...]
    _tree: ast.expr

    def apply(self, columns: Mapping[str, AnyArray], rows: int) -> BoolArray:
        """Evaluate the rule, shape (rows,). Comparisons with NaN are false."""
        values = {name: np.asarray(columns[name], np.float64) for name in self.columns}
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            result = _evaluate(self._tree, values)
        return np.broadcast_to(np.asarray(result, bool), (rows,)).copy()


def parse_rule(text: str, columns: Sequence[str]) -> Rule:
    """Parse and check a rule.

    Parameters
    ----------
    text : str
        E.g. ``"spread < 0.25 and ncc_band > 0.85"``.
    columns : sequence of str
        Names that may be used; ``accept`` and ``reject`` stand for the values of ``verdict``.

    Raises
    ------
    StoreError
        If it is no such rule; an unknown column is answered with the nearest known one.
    """
    if len(text) > MAX_LENGTH:
        raise StoreError(f"The rule is longer than {MAX_LENGTH} characters.")
    try:
        tree = ast.parse(" ".join(text.split()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as err:
        what = err.msg if isinstance(err, SyntaxError) else "not readable"
        raise StoreError(
            f"{text!r} is no rule ({what}). Write one like 'spread<0.25 and ncc_band>0.85'."
        ) from err
    known = sorted({*columns, *WORDS})
    used: set[str] = set()
    if not _check(tree, text, known, used):
        raise StoreError(f"{text!r} compares nothing: write e.g. 'ncc>0.9'.")
    used -= WORDS.keys() - set(columns)
    return Rule(text=" ".join(text.split()), columns=tuple(sorted(used)), _tree=tree)


def _check(node: ast.expr, text: str, known: Sequence[str], used: set[str]) -> bool:
    """Refuse what is not allowed; True where the expression is a truth, False for a number."""

    def number(part: ast.expr) -> None:
        if _check(part, text, known, used):
            raise StoreError(f"In {text!r}: {ast.unparse(part)!r} is a comparison, not a number.")

    def truth(part: ast.expr) -> None:
        if not _check(part, text, known, used):
            raise StoreError(f"In {text!r}: {ast.unparse(part)!r} compares nothing.")

    match node:
        case ast.BoolOp():
            for part in node.values:
                truth(part)
            return True
        case ast.UnaryOp(op=ast.Not()):
            truth(node.operand)
            return True
        case ast.Compare() if all(type(op) in _COMPARE for op in node.ops):
            for part in (node.left, *node.comparators):
                number(part)
            return True
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            number(node.left)
            number(node.right)
            return False
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            number(node.operand)
            return False
        case ast.Call(func=ast.Name(id="abs"), args=[argument], keywords=[]):
            number(argument)
            return False
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return False
        case ast.Name():
            if node.id not in known:
                raise StoreError(f"In {text!r}: no column {node.id!r}; {closest(node.id, known)}")
            used.add(node.id)
            return _is_truth(node.id)
    raise StoreError(
        f"In {text!r}: {ast.unparse(node)!r} is not allowed. A rule has columns, numbers, "
        "comparisons, and, or, not, + - * /, abs()."
    )


def _is_truth(name: str) -> bool:
    """Whether a column holds true or false; it may then stand alone."""
    return any(
        name == column.name or name.startswith(f"{column.name}_")
        for column in COLUMNS.values()
        if column.dtype.kind == "b"
    )


def _evaluate(node: ast.expr, columns: Mapping[str, AnyArray]) -> Any:
    match node:
        case ast.BoolOp():
            parts = [np.asarray(_evaluate(part, columns), bool) for part in node.values]
            return reduce(np.logical_and if isinstance(node.op, ast.And) else np.logical_or, parts)
        case ast.Compare():
            result = np.asarray(True)
            left = _evaluate(node.left, columns)
            for op, part in zip(node.ops, node.comparators, strict=True):
                right = _evaluate(part, columns)
                result = np.logical_and(result, _COMPARE[type(op)](left, right))
                left = right
            return result
        case ast.BinOp():
            left, right = _evaluate(node.left, columns), _evaluate(node.right, columns)
            return _ARITHMETIC[type(node.op)](np.float64(left), np.float64(right))
        case ast.UnaryOp(op=ast.Not()):
            return np.logical_not(np.asarray(_evaluate(node.operand, columns), bool))
        case ast.UnaryOp():
            operand = _evaluate(node.operand, columns)
            return -operand if isinstance(node.op, ast.USub) else operand
        case ast.Call():
            return np.abs(_evaluate(node.args[0], columns))
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Name():
            return columns[node.id] if node.id in columns else WORDS[node.id]
    raise AssertionError("checked by parse_rule")
