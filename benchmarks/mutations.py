"""The small faults that a function may have, read off its syntax tree."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
OTHER_NAMES = {
    name: other
    for pair in (
        ("mean", "sum"), ("nanmean", "nansum"), ("min", "max"), ("amin", "amax"), ("minimum", "maximum"),
        ("argmin", "argmax"), ("any", "all"), ("log_softmax", "softmax"), ("zeros", "ones"), ("sin", "cos"),
    )
    for name, other in (pair, pair[::-1])
}  # fmt: skip
# Functions of one array that may be forgotten: what goes in comes out.
REMOVABLE = {"abs", "clamp", "clip", "relu", "sqrt", "square", "log", "exp", "detach", "nan_to_num", "fabs", "sign"}
# Their arguments may change places and nothing else changes.
SYMMETRIC = {"max", "min", "maximum", "minimum", "isclose", "allclose", "equal", "isinstance", "add", "multiply"}
AXES = {"axis", "dim"}
# Numbers up to this guard against rounding; twice as much guards as well.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Mutant:
    """One fault: the text from ``begin`` to ``end``, bytes of the module, becomes ``text``."""

    module: str
    function: str
    what: str
    line: int
    begin: int
    end: int
    text: str
    nth: int = 0

    @property
    def identity(self) -> str:
        """Names the fault without line numbers; equal texts of one function are counted."""
        again = f" ({self.nth + 1})" if self.nth else ""
        return f"{self.module} {self.function}: {self.what}{again}"

    def applied_to(self, source: str) -> str:
        data = source.encode()
        return (data[: self.begin] + self.text.encode() + data[self.end :]).decode()


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Every mutant of the functions of a module, in their order in the file."""
    starts = [0]
    for line in source.encode().split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)
    data, seen = source.encode(), Counter[tuple[str, str]]()
    found = []
    for function, node, around in expressions(ast.parse(source)):
        begin, end = (starts[line - 1] + column for line, column in (first(node), last(node)))
        # A number says little without what it stands in.
        shown = around if isinstance(node, ast.Constant) and isinstance(around, ast.expr) else node
        left, right = (starts[line - 1] + column for line, column in (first(shown), last(shown)))
        for other in changes(node):
            after = ast.unparse(other)
            text = after if isinstance(node, ast.stmt | ast.Constant) else f"({after})"
            whole = (data[left:begin] + (after if shown is node else text).encode() + data[end:right]).decode()
            what = f"{one_line(data[left:right].decode())} → {one_line(whole)}"
            found.append(Mutant(module, function, what, node.lineno, begin, end, text, seen[function, what]))
            seen[function, what] += 1
    return found


def first(node: ast.stmt | ast.expr) -> tuple[int, int]:
    return node.lineno, node.col_offset


def last(node: ast.stmt | ast.expr) -> tuple[int, int]:
    assert node.end_lineno is not None and node.end_col_offset is not None, "a parsed node has an end"
    return node.end_lineno, node.end_col_offset


def one_line(text: str) -> str:
    return " ".join(text.split())


def expressions(
    tree: ast.AST, inside: str = "", function: bool = False
) -> Iterator[tuple[str, ast.expr | ast.AugAssign, ast.AST]]:
    """What functions compute, each with what it stands in: no records, decorators, annotations or sentences."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Raise | ast.JoinedStr | ast.Assert):
            continue
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            name = f"{inside}.{child.name}" if inside else child.name
            body = copy.copy(child)
            body.decorator_list = []
            if isinstance(body, ast.FunctionDef):
                body.returns = None
            yield from expressions(body, name, isinstance(child, ast.FunctionDef))
        elif isinstance(child, ast.arg):
            continue
        elif isinstance(child, ast.AnnAssign):
            if child.value is not None:
                yield from expressions(ast.Expr(child.value), inside, function)
        else:
            if function and isinstance(child, ast.expr | ast.AugAssign):
                yield inside, child, tree
            yield from expressions(child, inside, function)


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """The node with one fault in it, for each fault that it may have."""
    match node:
        case ast.Compare(ops=ops):
            for at, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield changed(node, ops=[*ops[:at], other(), *ops[at + 1 :]])
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in ARITHMETIC:
            yield changed(node, op=ARITHMETIC[type(op)]())
        case ast.BoolOp(op=op):
            yield changed(node, op=ast.And() if isinstance(op, ast.Or) else ast.Or())
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield operand
        case ast.IfExp(body=body, orelse=orelse):
            yield changed(node, body=orelse, orelse=body)
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() as value):
            yield ast.Constant(value + 1)
        case ast.Constant(value=float() as value) if value == 0 or value > TOLERANCE:
            yield ast.Constant(2 * value if value else 1.0)
        case ast.Call():
            yield from changed_calls(node)


def changed_calls(call: ast.Call) -> Iterator[ast.AST]:
    """Another function, none, another axis, or the first two arguments in the other order."""
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in OTHER_NAMES:
        other = OTHER_NAMES[name]
        yield changed(call, func=changed(call.func, **{"attr" if owner else "id": other}))
    if name in REMOVABLE:
        module = isinstance(owner, ast.Name) and owner.id in {"np", "torch", "F", "math"}
        if call.args and (module or owner is None):
            yield call.args[0]
        elif owner is not None:
            yield owner
    for at, keyword in enumerate(call.keywords):
        if keyword.arg in AXES and isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, int):
            moved = ast.keyword(keyword.arg, ast.Constant(int(keyword.value.value == 0)))
            yield changed(call, keywords=[*call.keywords[:at], moved, *call.keywords[at + 1 :]])
    if len(call.args) > 1 and name not in SYMMETRIC and not any(isinstance(a, ast.Starred) for a in call.args[:2]):
        first, second, *rest = call.args
        if ast.dump(first) != ast.dump(second):
            yield changed(call, args=[second, first, *rest])


def changed(node: ast.AST, **fields: object) -> ast.AST:
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other
