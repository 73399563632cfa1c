"""Reads the steps of DataFusion's plans, and defines classes for changing their protobuf form.

Only the fields that the workarounds need are declared; messages keep other fields unchanged.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from datafusion import SessionContext
from datafusion.plan import LogicalPlan
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# For each message in DataFusion's datafusion.proto, the field numbers and types; field number n is named `f<n>`. `Node`
# is DataFusion's `LogicalPlanNode`, `Expr` its `LogicalExprNode`.
_MESSAGES: Final[Mapping[str, Mapping[int, str]]] = {
    "Leaf": {},
    "Scan": {2: "string", 3: "string", 6: "Expr", 14: "Reference"},
    "Reference": {1: "Name"},
    "Name": {1: "string"},
    "Node": {
        **dict.fromkeys((10, 16, 32), "Leaf"),  # empty relation, values, recursive query work table
        1: "Scan",
        3: "Projection",
        4: "Filter",
        **dict.fromkeys((5, 19, 21, 23, 30), "Inner"),  # limit, union, alias, …
        6: "Aggregate",
        7: "Join",
        8: "Sort",
        13: "Window",
        31: "Recursive",
    },
    "Projection": {1: "Node", 2: "Expr"},
    "Filter": {1: "Node", 2: "Expr"},
    "Aggregate": {1: "Node", 2: "Expr", 3: "Expr"},
    "Sort": {1: "Node", 2: "First"},
    "Window": {1: "Node", 2: "Expr"},
    "Inner": {1: "Node"},
    "Join": {1: "Node", 2: "Node", 3: "int32", 8: "Expr"},
    "Recursive": {2: "Node", 3: "Node"},
    "Expr": {
        1: "Leaf",  # column
        2: "Alias",
        3: "Literal",
        4: "Binary",
        **dict.fromkeys((6, 7, 8, 11, 13, 17, *range(25, 31)), "First"),  # IS NULL, NOT, CAST, and similar
        9: "Between",
        10: "Case",
        14: "InList",
        18: "Windowing",
        19: "Aggregation",
        20: "Function",
        36: "Subquery",
    },
    "Alias": {1: "Expr", 2: "string"},
    "First": {1: "Expr"},
    "Literal": {33: "Leaf"},  # the value NULL
    "Binary": {1: "Expr", 3: "string"},
    "Between": {1: "Expr", 3: "Expr", 4: "Expr"},
    "Case": {1: "Expr", 2: "Branch", 3: "Expr"},
    "Branch": {1: "Expr", 2: "Expr"},
    "InList": {1: "Expr", 2: "Expr", 3: "bool"},
    "Function": {2: "Expr"},
    "Windowing": {4: "Expr", 5: "Expr", 6: "First"},
    "Aggregation": {2: "Expr", 3: "Expr", 4: "First"},
    "Subquery": {1: "Inner"},
}
_STEP: Final = re.compile(r'(\d+)\[shape=box label="([^"]*)"\]|(\d+) -> (\d+) \[')
_REPEATED: Final = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED


#: Rules of DataFusion's optimizer that create empty relations, which lack their columns in the protobuf form.
EMPTYING_RULES: Final = ("eliminate_filter", "eliminate_limit", "propagate_empty_relation")


@dataclass(slots=True)
class Step:
    """One step of a plan as text, with `_` for quotes, and the steps `below` it, including those of subqueries."""

    text: str
    below: "list[Step]" = field(default_factory=list)

    def walk(self) -> "Iterator[Step]":
        """Return this step and all steps below it."""
        yield self
        for one in self.below:
            yield from one.walk()


def find_steps(plan: LogicalPlan) -> list[Step]:
    """Return the steps of a plan; the last one runs first.

    Only in this form can't text within a step, such as a line break in a literal, look like another step.
    """
    steps: dict[str, Step] = {}
    graph, _, _ = plan.display_graphviz().partition('[label="Detailed LogicalPlan"]')
    for number, text, above, below in _STEP.findall(graph):
        if number:
            steps[number] = Step(text)
        else:
            steps[above].below.append(steps[below])
    return [*steps.values()]


@functools.cache
def optimizer_without(*rules: str) -> SessionContext:
    """Return a session that optimizes plans without some rules, to be used for nothing else."""
    context = SessionContext()
    for rule in rules:
        context.remove_optimizer_rule(rule)
    return context


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="plan.proto", package="plan")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, kind in fields.items():
            # A field that occurs only once in DataFusion has the same encoding.
            field = message.field.add(name=f"f{number}", number=number, label=_REPEATED)
            if kind in _MESSAGES:
                field.type_name = f".plan.{kind}"
            else:
                field.type = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


@functools.cache
def message_class(name: str) -> Any:
    """Return the class of one of `_MESSAGES`, which preserves unknown fields."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"plan.{name}"))


def type_of(field: Any) -> str | None:
    """Return the name of a field's message type, or None for a plain value."""
    return field.message_type.name if field.message_type is not None else None


def operands(body: Any) -> Iterator[Any]:
    """Yield the direct subexpressions of a node or an expression."""
    for field_of_body, values in body.ListFields():
        match type_of(field_of_body):
            case "Expr":
                yield from values
            case "First" | "Branch":
                for value in values:
                    yield from (*value.f1, *getattr(value, "f2", ()))
