"""Parses a statement in the embedded engine's dialect into a syntax tree that contains only known parts.

Kinds of nodes, their parts, and functions are allowed by lists. Names are resolved here, too, so that the engine never
resolves a name that could mean something else there.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
from sqlglot import exp, parse_one
from sqlglot.errors import ErrorLevel, OptimizeError, ParseError, SqlglotError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers
from sqlglot.optimizer.qualify_columns import qualify_columns, validate_qualify_columns
from sqlglot.schema import MappingSchema

from micromegas_jupyter.engine.errors import missing_parameter, unknown_name
from micromegas_jupyter.engine.scanner import Kind, Token, quoted, scan
from micromegas_jupyter.engine.workarounds.subquery_syntax import DataFusionSQL
from micromegas_jupyter.errors import InternalError, InvalidStatement, StatementRefused, UnsupportedStatement

_MAX_TOKENS: Final = 20_000
_MAX_DEPTH: Final = 100
_MAX_BRACKETS: Final = 47
_MAX_TYPE_BRACKETS: Final = 6
_MAX_TABLES: Final = 200
# The maximum number of columns from expanded stars and tables, and of nodes from expanded aliases.
_MAX_WRITTEN_OUT: Final = 10_000
_PLAIN_PARTS: Final = frozenset({"this", "expression", "expressions"})

# Allowed node types, and the parts that they may have in addition to `_PLAIN_PARTS`.
_KINDS: Final[Mapping[type[exp.Expr], str]] = {
    exp.Select: "with_ from_ joins laterals where group having qualify windows distinct order limit offset",
    exp.Union: "with_ distinct order limit offset",
    exp.Except: "with_ distinct order limit offset",
    exp.Intersect: "with_ distinct order limit offset",
    exp.Subquery: "with_ alias joins laterals order limit offset",
    exp.From: "",
    exp.Join: "on using side kind method",
    exp.Where: "",
    exp.Group: "grouping_sets rollup cube",
    exp.Rollup: "",
    exp.Cube: "",
    exp.GroupingSets: "",
    exp.Having: "",
    exp.Qualify: "",
    exp.Order: "siblings",
    exp.Ordered: "desc nulls_first",
    exp.Limit: "",
    exp.Offset: "",
    exp.With: "recursive",
    exp.CTE: "alias",
    exp.Table: "alias db catalog joins laterals",
    exp.TableAlias: "columns",
    exp.Lateral: "alias",
    exp.Unnest: "alias",
    exp.Values: "alias",
    exp.Tuple: "",
    exp.Distinct: "on",
    exp.Alias: "alias",
    exp.Identifier: "quoted",
    exp.Column: "table",
    exp.Star: "except_",
    exp.Literal: "is_string",
    exp.Boolean: "",
    exp.Null: "",
    exp.Var: "",
    exp.Parameter: "",
    exp.Interval: "unit",
    exp.Cast: "to safe",
    exp.TryCast: "to safe requires_string",
    exp.DataType: "nested",
    exp.DataTypeParam: "",
    exp.Case: "ifs default",
    exp.If: "true false",
    exp.In: "query",
    exp.Between: "low high",
    exp.Extract: "",
    exp.Substring: "start length",
    exp.StrPosition: "substr",
    exp.Trim: "position",
    exp.Anonymous: "",
    exp.Window: "partition_by order spec over alias first",
    exp.WindowSpec: "kind start start_side end end_side",
    exp.Filter: "",
    exp.Div: "typed safe",
    exp.DPipe: "safe",
    exp.Like: "negate",
    exp.ILike: "negate",
    exp.Is: "negate",
    exp.CurrentDate: "",
    exp.CurrentTimestamp: "",
    **dict.fromkeys(
        (
            exp.Paren, exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Add,
            exp.Sub, exp.Mul, exp.Mod, exp.Neg, exp.Exists, exp.Escape, exp.NullSafeEQ, exp.NullSafeNEQ, exp.RegexpLike,
            exp.Array, exp.Bracket,
        ),
        "",
    ),
}  # fmt: skip
_BRACKET_PARTS: Final = frozenset({"offset", "safe", "returns_list_for_maps", "bracket_notation"})

# Functions by result type: "0" means the first argument's type, and "" means unknown.
# fmt: off
_BY_TYPE: Final = {
    "BIGINT":
        "count row_number rank dense_rank ntile length char_length character_length octet_length bit_length strpos "
        "instr ascii approx_distinct array_length cardinality date_part datepart regexp_count levenshtein gcd lcm "
        "factorial regr_count grouping array_position find_in_set to_unixtime",
    "DOUBLE":
        "avg stddev stddev_samp stddev_pop var var_samp var_pop corr covar_samp covar_pop covar sqrt cbrt exp ln log "
        "log2 log10 power pow sin cos tan asin acos atan atan2 sinh cosh tanh radians degrees pi floor ceil round "
        "trunc signum percent_rank cume_dist random regr_slope regr_intercept regr_r2 regr_avgx regr_avgy cot",
    "VARCHAR":
        "concat concat_ws lower upper replace reverse left right substr lpad rpad repeat split_part ltrim rtrim btrim "
        "trim initcap chr md5 translate string_agg regexp_replace to_hex to_char array_to_string arrow_typeof "
        "substr_index overlay",
    "BOOLEAN":
        "starts_with ends_with contains regexp_like bool_and bool_or isnan iszero array_has array_has_any "
        "array_has_all empty",
    "DATE":
        "make_date to_date",
    "TIMESTAMP":
        "date_trunc datetrunc date_bin to_timestamp to_timestamp_seconds to_timestamp_millis to_timestamp_micros "
        "to_timestamp_nanos from_unixtime",
    "TIMESTAMPTZ":
        "now",
    "0":
        "sum min max coalesce nullif nvl ifnull abs greatest least first_value last_value nth_value lag lead any_value "
        "median approx_median approx_percentile_cont bit_and bit_or bit_xor nanvl",
    "":
        "make_array array_agg array_element array_append array_concat array_distinct array_remove array_slice "
        "array_sort array_reverse array_min array_max flatten get_field nvl2 struct named_struct map map_keys "
        "map_values map_extract sha224 sha256 sha384 sha512 digest encode decode regexp_match string_to_array "
        "arrow_cast unnest element_at property_get properties_length properties_to_dict jsonb_parse jsonb_get "
        "jsonb_as_string jsonb_as_i64 jsonb_as_f64 jsonb_format_json jsonb_path_query_first jsonb_object_keys "
        "make_histogram sum_histograms variance_from_histogram quantile_from_histogram count_from_histogram "
        "sum_from_histogram",
}
# fmt: on
FUNCTIONS: Final = {name: kind for kind, names in _BY_TYPE.items() for name in names.split()}
_SERIES: Final = frozenset({"generate_series", "range"})


def _annotate_call(annotator: Any, call: exp.Anonymous) -> None:
    kind = FUNCTIONS.get(call.name.lower(), "")
    arguments = call.expressions
    typed = [one.type for one in arguments if one.type and not one.is_type("NULL", "UNKNOWN")]
    if arguments and call.name.lower() == "date_trunc" and typed and arguments[-1].is_type("TIMESTAMPTZ"):
        kind = "TIMESTAMPTZ"
    if kind == "0" and not arguments:
        kind = ""
    if kind == "0":
        is_sum = call.name.lower() == "sum" and arguments[0].is_type(*exp.DataType.INTEGER_TYPES)
        widest = next((one for one in typed if one.this in exp.DataType.REAL_TYPES), typed[0] if typed else None)
        kind = "BIGINT" if is_sum else widest or "UNKNOWN"
    annotator._set_type(call, exp.DataType.build(kind or "UNKNOWN"))  # noqa: SLF001


def _annotate_division(annotator: Any, node: exp.Div) -> None:
    sides = (node.this, node.expression)
    is_integer = all(one.is_type(*exp.DataType.INTEGER_TYPES) for one in sides)
    is_decimal = any(one.is_type("DECIMAL") for one in sides) and not any(
        one.is_type("DOUBLE", "FLOAT") for one in sides
    )
    is_known = not any(one.is_type("UNKNOWN") for one in sides)
    kind = "BIGINT" if is_integer else "DECIMAL" if is_decimal else "DOUBLE" if is_known else "UNKNOWN"
    annotator._set_type(node, exp.DataType.build(kind))  # noqa: SLF001


class Embedded(DataFusionSQL):
    """The embedded engine's SQL dialect, with the types of its functions."""

    TABLES_REFERENCEABLE_AS_COLUMNS = False
    EXPRESSION_METADATA = {  # noqa: RUF012 - as sqlglot declares it
        **DataFusionSQL.EXPRESSION_METADATA,
        exp.Anonymous: {"annotator": _annotate_call},
        exp.CurrentTimestamp: {"returns": exp.DType.TIMESTAMPTZ},
        exp.Div: {"annotator": _annotate_division},
        exp.DPipe: {"returns": exp.DType.VARCHAR},
        exp.Extract: {"returns": exp.DType.BIGINT},
        exp.Neg: {"annotator": lambda annotator, node: annotator._set_type(node, node.this.type)},  # noqa: SLF001
    }


# After one of these words, the parser first tries to parse a type, so each nesting level doubles the parsing time.
_TYPES_WITH_BRACKETS: Final = frozenset(
    word.lower() for word, kind in Embedded.Tokenizer.KEYWORDS.items() if kind in Embedded.Parser.TYPE_TOKENS
)
_TYPE_NAMES: Final = "BOOLEAN TINYINT SMALLINT INT BIGINT FLOAT DOUBLE DECIMAL VARCHAR TEXT DATE TIMESTAMP TIMESTAMPTZ"
_TYPES: Final = frozenset(_TYPE_NAMES.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A statement with qualified and typed columns; `tables` maps its unique table names to the original ones."""

    tree: exp.Query
    tables: Mapping[str, str]
    series: Mapping[str, exp.Anonymous]


def parse(sql: str, *, max_bytes: int) -> exp.Query:
    """Parse a single query, checking that it is within the limits and has only allowed parts."""
    scanned = scan(sql) if len(sql) <= max_bytes else None
    if scanned is None or len(scanned.tokens) > _MAX_TOKENS:
        raise StatementRefused(f"The statement has more than {max_bytes} bytes or {_MAX_TOKENS} tokens.")
    _check_brackets(scanned.tokens)
    if not scanned.is_certain:
        raise refused("unusual quotes or comments")
    words = [token.name for token in scanned.tokens[:1]]
    if words and words[0] not in {"select", "with", "values", "("}:
        raise StatementRefused(f"Statements that begin with {words[0][:20].upper()} are not forwarded to the engine.")
    tree = _parsed(sql)
    written = sum(token.kind is Kind.WORD and token.name == "select" for token in scanned.tokens)
    if written != sum(1 for _ in tree.find_all(exp.Select)):
        raise refused("FROM without SELECT")
    if isinstance(tree, exp.Values):
        tree = exp.select("*").from_(tree)
    if not isinstance(tree, exp.Query):
        raise StatementRefused("Only queries are forwarded to the engine.")
    _check(tree)
    return tree


def _check_brackets(tokens: Sequence[Token]) -> None:
    opened: list[bool] = []  # whether each bracket belongs to a list or a type
    before = ""
    for token in tokens:
        if token.kind is Kind.OPEN:
            opened.append(token.text == "[" or before in _TYPES_WITH_BRACKETS)
            if len(opened) > _MAX_BRACKETS:
                raise StatementRefused(f"The statement nests brackets more than {_MAX_BRACKETS} levels deep.")
            if sum(opened) > _MAX_TYPE_BRACKETS:
                raise StatementRefused(
                    f"The statement nests lists or type parameters more than {_MAX_TYPE_BRACKETS} levels deep."
                )
        elif token.kind is Kind.CLOSE and opened:
            opened.pop()
        before = token.name if token.kind is Kind.WORD else ""


def parse_condition(text: str) -> exp.Expr:
    """Parse a row condition."""
    tree = _parsed(text)
    _check(tree)
    if tree.find(exp.Query, exp.Window, exp.Parameter):
        raise refused("a subquery in a condition")
    return tree


def _parsed(sql: str) -> exp.Expr:
    try:
        dialect = Embedded()
        trees = [one for one in dialect.parse(sql) if one is not None]
    except (SqlglotError, RecursionError, ValueError) as error:
        raise InvalidStatement("The statement cannot be parsed.", remedy=_first_line(error)) from error
    if len(trees) != 1:
        raise StatementRefused(
            "The SQL contains no statement or more than one.", remedy="Send one statement at a time."
        )
    return trees[0]


def _first_line(error: BaseException) -> str:
    if not isinstance(error, ParseError) or not error.errors:
        return "It is nested too deeply, or not SQL."
    found = error.errors[0]
    return f"{found.get('description', '')[:100]} (line {found.get('line')}, column {found.get('col')})."


def refused(what: str, remedy: str | None = None) -> UnsupportedStatement:
    """Return the error for a statement that can't be forwarded."""
    return UnsupportedStatement(
        f"The statement has {what}, which is not forwarded to the engine.",
        remedy=remedy or "Rewrite the statement; docs/remote-engine.md lists the supported SQL.",
    )


def _depths(tree: exp.Expr) -> Iterator[tuple[exp.Expr, int]]:
    waiting = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        yield node, depth
        waiting += [(one, depth + 1) for one in node.iter_expressions()]


def _check(tree: exp.Expr) -> None:
    for node, depth in _depths(tree):
        if depth > _MAX_DEPTH:
            raise StatementRefused(
                f"The statement is nested more than {_MAX_DEPTH} levels deep (each operator is a level).",
                remedy="Use IN for many values and VALUES for many rows.",
            )
        parts = _KINDS.get(type(node))
        if parts is None:
            raise refused(node.key.upper())
        allowed = _PLAIN_PARTS | set(parts.split()) | (_BRACKET_PARTS if isinstance(node, exp.Bracket) else set())
        for part, value in node.args.items():
            if part not in allowed and value not in (None, False, []):
                raise refused(f"{part.strip('_')} in {node.key.upper()}")
            # Parts that are not nodes are generated verbatim, without quotes.
            if isinstance(value, str) and type(node) not in _QUOTED and not _PLAIN_TEXT.fullmatch(value):
                raise refused(f"{value[:40]} in {node.key.upper()}")
        node.comments = None
        _check_node(node)


# Matches a keyword or a unit.
_PLAIN_TEXT: Final = re.compile(r"[A-Za-z_]+[0-9]*|CURRENT ROW", re.IGNORECASE)
# Python parses integers of up to 4,300 digits.
_NUMBER: Final = re.compile(r"(?:\d{1,1000}(?:\.\d{0,1000})?|\.\d{1,1000})(?:[eE][+-]?\d{1,9})?", re.ASCII)
_QUOTED: Final = (exp.Identifier, exp.Literal)


def _check_node(node: exp.Expr) -> None:  # noqa: C901, PLR0912 - one per kind
    match node:
        case exp.Anonymous():
            name = node.name.lower()
            is_series = name in _SERIES and isinstance(node.parent, exp.Table)
            if not isinstance(node.this, str) or not (is_series or name in FUNCTIONS):
                raise refused(f"the function {name[:40]}")
            node.set("this", name)
        case exp.Table() if isinstance(node.this, exp.Anonymous):
            if node.this.name.lower() not in _SERIES or node.args.get("db"):
                raise refused(f"the table function {node.this.name.lower()[:40]}")
        case exp.Table():
            outside = (node.text("catalog").lower(), "datafusion"), (node.text("db").lower(), "public")
            if not isinstance(node.this, exp.Identifier) or any(one not in {"", known} for one, known in outside):
                raise refused("a table in another schema")
        case exp.Select() if not node.expressions:
            raise InvalidStatement("SELECT has no columns.")
        case exp.Lateral() if not isinstance(node.this, exp.Subquery):
            raise refused("a lateral function")
        case exp.Limit() | exp.Offset() if not (isinstance(node.expression, exp.Literal) and node.expression.is_int):
            raise refused("a LIMIT or OFFSET that is not a number")
        case exp.Literal() if not node.is_string and not _NUMBER.fullmatch(node.name):
            raise refused(f"the number {node.name[:40]}")
        case exp.DataTypeParam() if not isinstance(node.this, exp.Literal):
            raise refused("a type with a parameter that is not a literal")
        case exp.Extract() if not isinstance(node.this, exp.Var):
            raise refused("EXTRACT of a string", "Omit the quotes around the part.")
        case exp.DataType() if node.this.value not in _TYPES or node.args.get("nested"):
            raise refused(f"the type {node.sql()[:40]}")
        case exp.Distinct() if len(node.expressions) > 1 and isinstance(node.parent, exp.Anonymous):
            raise refused("DISTINCT with several values", "Count the rows of a SELECT DISTINCT.")
        case exp.In() if node.args.get("field") or node.args.get("unnest"):
            raise refused("IN over a list", "Use array_has.")
        case exp.Is() if isinstance(node.this.unnest(), (exp.NullSafeEQ, exp.NullSafeNEQ)):  # sqlglot adds brackets
            raise refused("IS after IS DISTINCT FROM", "Omit it, because IS DISTINCT FROM is never NULL.")
        case exp.NullSafeEQ() | exp.NullSafeNEQ() if _is_left_operand(node):
            raise refused("an operator after IS DISTINCT FROM", "Put a IS DISTINCT FROM b in parentheses.")
        case exp.Expr() if isinstance(node, _COMPARING) and _compares_comparisons(node):
            raise refused("a comparison of comparisons", "Put the inner one in parentheses.")
        case exp.Interval() if not _is_plain_interval(node):
            raise refused("this interval", "Use one number and one unit, such as INTERVAL '3' HOUR.")


_COMPARING: Final = (
    exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.NullSafeEQ, exp.NullSafeNEQ, exp.In, exp.Between, exp.Like,
    exp.ILike, exp.RegexpLike,
)  # fmt: skip


def _compares_comparisons(node: exp.Expr) -> bool:
    """Return whether a comparison depends on operator precedence, which differs between engines and sqlglot."""
    operands = map(node.args.get, ("this", "expression", "low", "high"))
    return any(isinstance(one, (*_COMPARING, exp.Not)) for one in operands)


def _is_left_operand(node: exp.Expr) -> bool:
    """Return whether an operator follows; DataFusion would parse `b AND c` as the right side of IS DISTINCT FROM."""
    while isinstance(node.parent, (exp.Binary, exp.Not)):
        if isinstance(node.parent, exp.Binary) and node.parent.this is node:
            return True
        node = node.parent
    return False


_UNITS: Final = frozenset({"YEAR", "MONTH", "WEEK", "DAY", "HOUR", "MINUTE", "SECOND"})


def _is_plain_interval(node: exp.Interval) -> bool:
    unit = node.text("unit").upper().removesuffix("S")
    return isinstance(node.this, exp.Literal) and bool(re.fullmatch(r"-?[0-9]{1,9}", node.this.name)) and unit in _UNITS


@dataclass(slots=True)
class _Names:
    sql: str
    known: Collection[str]
    tables: dict[str, str] = field(default_factory=dict)
    series: dict[str, exp.Anonymous] = field(default_factory=dict)
    queries: int = 0
    prefix: str = "_c"

    def visit(self, node: exp.Expr, ctes: Mapping[str, str]) -> None:
        """Give the tables and named queries in `node` unique names."""
        if isinstance(node, exp.Table):
            self._rename(node, ctes)
        is_source = isinstance(node, exp.Subquery) and isinstance(node.parent, (exp.From, exp.Join))
        if is_source and not node.alias and isinstance(node.this, exp.Query):
            node.set("alias", exp.TableAlias(this=exp.to_identifier(f"{self.prefix}{self.queries}", quoted=True)))
            self.queries += 1
        with_ = node.args.get("with_")
        if with_ is not None:
            ctes, here = dict(ctes), set()
            for cte in with_.expressions:
                name, own = cte.alias, f"{self.prefix}{self.queries}"
                if name in here:
                    raise InvalidStatement(f"WITH defines {name[:60]} more than once.")
                here.add(name)
                self.queries += 1
                self.visit(cte.this, {**ctes, name: own} if with_.recursive else ctes)
                ctes[name] = own
                cte.args["alias"].set("this", exp.to_identifier(own, quoted=True))
        for child in node.iter_expressions():
            if child is not with_:
                self.visit(child, ctes)

    def _rename(self, node: exp.Table, ctes: Mapping[str, str]) -> None:
        name = node.this.name
        alias = node.args.get("alias") or exp.TableAlias(this=exp.to_identifier(name, quoted=True))
        if isinstance(node.this, exp.Anonymous):
            own = f"_s{len(self.series)}"
            self.series[own] = node.this
        elif name in ctes and not node.args.get("db"):
            own = ctes[name]
        elif name in self.known:
            own = self.tables.setdefault(name, f"_t{len(self.tables)}")
        else:
            raise unknown_name("table", name, map(quoted, self.known), self.sql)
        if alias.args.get("columns"):
            # sqlglot renames the columns of a subquery, but not those of a table.
            inner = exp.select("*").from_(exp.Table(this=exp.to_identifier(own, quoted=True)))
            rest = {part: value for part, value in node.args.items() if part in {"joins", "laterals"}}
            node.replace(exp.Subquery(this=inner, alias=alias, **rest))
        else:
            node.set("this", exp.to_identifier(own, quoted=True))
            node.set("alias", alias)
            node.set("db", None)
            node.set("catalog", None)


def resolve(
    tree: exp.Query,
    *,
    sql: str,
    tables: Mapping[str, pa.Schema],
    taken: Collection[str] = (),
    parameters: Mapping[str, pa.Scalar],
) -> Resolved:
    """Resolve the statement's names against `tables`; no other tables exist.

    Named queries get names with a prefix that neither these tables nor `taken`, the engine's tables, begin with.
    """
    for node in list(tree.find_all(exp.Parameter)):
        node.replace(_value(node.name, parameters))
    tree = normalize_identifiers(tree, dialect=Embedded)
    for values in tree.find_all(exp.Values):
        _name_columns(values)
    for select in tree.find_all(exp.Select):
        _name_outputs(select)
    prefix = "_c"
    while any(name.lower().startswith(prefix) for name in (*tables, *taken)):
        prefix = f"_{prefix}"
    names = _Names(sql=sql, known=tables, prefix=prefix)
    names.visit(tree, {})
    columns = {own: column_types(tables[name]) for name, own in names.tables.items()}
    references = sum(1 for _ in tree.find_all(exp.Table))
    outputs = [one for select in tree.find_all(exp.Select) for one in select.expressions]
    stars = sum(one.is_star for one in outputs)
    written_out = (references + stars) * sum(map(len, columns.values())) + stars * len(outputs)
    columns |= {own: {"value": exp.DataType.build("BIGINT")} for own in names.series}
    if references > _MAX_TABLES or written_out > _MAX_WRITTEN_OUT:
        raise StatementRefused(
            f"The statement references more than {_MAX_TABLES} tables, or its stars expand to too many columns."
        )
    return Resolved(
        tree=typed(tree, columns, sql=sql),
        tables={own: name for name, own in names.tables.items()},
        series=names.series,
    )


def typed(tree: exp.Query, columns: Mapping[str, Mapping[str, exp.DataType]], *, sql: str) -> exp.Query:
    """Qualify the tree's columns, expand its stars, and annotate known types."""
    schema = MappingSchema({name: dict(of) for name, of in columns.items()}, dialect=Embedded, normalize=False)
    selects = list(tree.find_all(exp.Select))
    _check_positions(selects)
    clauses = [_gather_conditions(select) for select in selects]
    try:
        qualified = qualify_columns(tree, schema, expand_alias_refs=False, dialect=Embedded)
        written_out = 0
        # Inner queries come first, because an alias may expand to one.
        for select, kept in zip(reversed(selects), reversed(clauses), strict=True):
            written_out = _expand_aliases(select, written_out)
            _check_conditions(select)
            _part_conditions(select, kept)
        validate_qualify_columns(qualified)
        if (dot := qualified.find(exp.Dot)) is not None:
            raise refused(f"a field of the column {dot.this.name[:40]}")
        annotated: exp.Query = annotate_types(qualified, schema=schema)
    except (OptimizeError, RecursionError) as error:
        raise _unknown_column(str(error), {one for of in columns.values() for one in of}, sql) from error
    return annotated


_LATER: Final = ("where", "having", "qualify")


def _gather_conditions(select: exp.Select) -> list[exp.Expr | None]:
    """Move the conditions of HAVING and QUALIFY into WHERE, the only clause where sqlglot qualifies columns."""
    clauses = [select.args.pop(part, None) for part in _LATER]
    conditions = [exp.true() if clause is None else clause.this for clause in clauses]
    select.set("where", exp.Where(this=exp.Tuple(expressions=conditions)))
    return clauses


def _check_conditions(select: exp.Select) -> None:
    for column in select.args["where"].find_all(exp.Column):
        if not column.table and column.find_ancestor(exp.Select) is select:
            raise OptimizeError(f"Column '{column.name}' could not be resolved")


def _part_conditions(select: exp.Select, clauses: Sequence[exp.Expr | None]) -> None:
    conditions = select.args.pop("where").this.expressions
    for part, clause, condition in zip(_LATER, clauses, conditions, strict=True):
        if clause is not None:
            clause.set("this", condition)
            select.set(part, clause)


def _check_positions(selects: Sequence[exp.Select]) -> None:
    """Check the GROUP BY entries that sqlglot replaces with expressions because they are positions."""
    written_out = 0
    for select in selects:
        group = select.args.get("group")
        places = [one for one in group.expressions if isinstance(one, exp.Literal)] if group is not None else []
        if not places:
            continue
        outputs = select.expressions
        sizes = [_MAX_WRITTEN_OUT + 1 if one.find(exp.Query) else sum(1 for _ in one.walk()) for one in outputs]
        has_star = any(one.is_star for one in outputs)
        for place in (int(one.name) - 1 for one in places if one.is_int):
            written_out += max(sizes) if has_star else sizes[place] if 0 <= place < len(sizes) else 0
            _check_written_out(written_out)


def _check_written_out(count: int) -> None:
    if count > _MAX_WRITTEN_OUT:
        raise StatementRefused(
            "GROUP BY refers to a query by its position, or its aliases and positions expand to too much SQL."
        )


def _expand_aliases(select: exp.Select, written_out: int) -> int:
    """Expand aliases in GROUP BY, HAVING, and QUALIFY; columns with the same name take precedence."""
    outputs = {one.alias: one.this for one in select.expressions if isinstance(one, exp.Alias)}
    for clause in (select.args.get("group"), *select.args["where"].this.expressions[1:]):
        for column in [] if clause is None else list(clause.find_all(exp.Column)):
            if not column.table and column.name in outputs and column.find_ancestor(exp.Select) is select:
                written_out += sum(1 for _ in outputs[column.name].walk())
                _check_written_out(written_out)
                column.replace(exp.paren(outputs[column.name].copy()))
    return written_out


def _unknown_column(text: str, known: Collection[str], sql: str) -> InvalidStatement:
    found = re.search(r"(?:Column|Unknown column:?) '?([^' ]+)'?", text)
    if found and "mbiguous" not in text:
        return unknown_name("column", found[1], map(quoted, known), sql)
    return InvalidStatement(re.sub(r"\s+", " ", re.sub(r"\x1b\[\d*m", "", text))[:120].rstrip(".") + ".")


def _name_columns(values: exp.Values) -> None:
    alias = values.args.get("alias") or exp.TableAlias(this=exp.to_identifier("_values", quoted=True))
    if not alias.args.get("columns") and values.expressions:
        count = len(values.expressions[0].expressions)
        alias.set("columns", [exp.to_identifier(f"column{number + 1}", quoted=True) for number in range(count)])
    values.set("alias", alias)


def _name_outputs(select: exp.Select) -> None:
    """Alias expressions with the embedded engine's names, because the engine would choose different ones."""
    taken: set[str] = set()
    named = []
    for one in select.expressions:
        if not isinstance(one, (exp.Alias, exp.Column, exp.Star)):
            name = one.sql(dialect=Embedded, normalize_functions="lower")[:120]
            if name not in taken:
                one = exp.alias_(one, exp.to_identifier(name, quoted=True), copy=False)  # noqa: PLW2901
            taken.add(name)
        named.append(one)
    select.set("expressions", named)


def column_types(schema: pa.Schema) -> dict[str, exp.DataType]:
    """Return the sqlglot types of a table's columns."""
    # In comparisons, engines cast the largest unsigned integers in ways that may fail.
    kinds = {one.name: "UNKNOWN" if pa.types.is_uint64(one.type) else _type_name(one.type) for one in schema}
    return {one.name: exp.DataType.build(kinds[one.name] + _unit(one.type)) for one in schema}


def _unit(kind: pa.DataType) -> str:
    """Return the time unit of a column; times in other units may be out of range."""
    is_time = pa.types.is_timestamp(kind)
    return f"({ {'s': 0, 'ms': 3, 'us': 6, 'ns': 9}[kind.unit] })" if is_time else ""


def _type_name(kind: pa.DataType) -> str:  # noqa: PLR0911 - one per kind
    types = pa.types
    if types.is_dictionary(kind):
        return _type_name(kind.value_type)
    if types.is_integer(kind):
        return {8: "TINYINT", 16: "SMALLINT", 32: "INT", 64: "BIGINT"}[kind.bit_width]
    if types.is_floating(kind):
        return "DOUBLE" if kind.bit_width == 64 else "FLOAT"  # noqa: PLR2004
    if types.is_decimal(kind):
        return f"DECIMAL({kind.precision}, {kind.scale})"
    if types.is_timestamp(kind):
        return "TIMESTAMP" if kind.tz is None else "TIMESTAMPTZ"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "VARCHAR"
    return "BOOLEAN" if types.is_boolean(kind) else "DATE" if types.is_date(kind) else "UNKNOWN"


def _value(name: str, parameters: Mapping[str, pa.Scalar]) -> exp.Expr:
    """Return a placeholder's value as a literal."""
    scalar = parameters.get(name)
    if scalar is None:
        raise missing_parameter([f"${name}"[:40]])
    kind = _type_name(scalar.type)
    if pa.types.is_null(scalar.type) or not scalar.is_valid:
        return exp.Null() if kind == "UNKNOWN" else exp.cast(exp.Null(), kind)
    if kind == "UNKNOWN":
        raise refused(f"a parameter of type {scalar.type}")
    value = scalar.as_py()
    if kind == "BOOLEAN":
        return exp.Boolean(this=value)
    if kind in {"INT", "BIGINT"}:  # not cast, because it may follow LIMIT
        return exp.Literal.number(value)
    return exp.cast(exp.Literal.string(value.isoformat() if hasattr(value, "isoformat") else str(value)), kind)


def rows_of(name: str, schema: pa.Schema, conditions: tuple[str, ...]) -> exp.Query:
    """Return a query for a table's known columns that selects the rows that meet one of `conditions`."""
    named = exp.to_identifier(name, quoted=True)
    table = exp.Table(this=named, alias=exp.TableAlias(this=named.copy()))
    query = exp.select(*(exp.column(exp.to_identifier(one, quoted=True)) for one in schema.names)).from_(table)
    if conditions:
        trees = [normalize_identifiers(parse_condition(one), dialect=Embedded) for one in conditions]
        either: exp.Expr = trees[0]
        if len(trees) > 1:
            either = exp.or_(*(exp.Is(this=exp.paren(one), expression=exp.true()) for one in trees))
        query = query.where(exp.paren(either))
    return typed(query, {name: column_types(schema)}, sql="")


def behind_barrier(rows: exp.Query, schema: pa.Schema, all_rows: int, *, is_spark: bool) -> exp.Query:
    """Wrap the rows in a barrier, so that DataFusion (also in Sail) evaluates outer expressions only on them.

    An expression that fails on a hidden row would reveal it. `engine.security` explains why both nodes are required.
    """
    extra = "barrier"
    while extra in schema.names:
        extra += "_"
    one = exp.Anonymous(this="array" if is_spark else "make_array", expressions=[exp.true()])
    unnested = exp.Anonymous(this="explode" if is_spark else "unnest", expressions=[one])
    rows = rows.select(exp.alias_(unnested, exp.to_identifier(extra, quoted=True)))
    columns = (exp.column(exp.to_identifier(name, quoted=True)) for name in schema.names)
    return exp.select(*columns).from_(rows.subquery("_rows")).limit(all_rows)


def tables_in(tree: exp.Query) -> list[exp.Table]:
    """Return the tables that a statement reads."""
    return list(tree.find_all(exp.Table))


def put(table: exp.Table, rows: exp.Query) -> None:
    """Replace a table with a query, keeping its alias."""
    rest = {part: value for part, value in table.args.items() if part in {"joins", "laterals"} and value}
    alias = table.args.get("alias") or exp.TableAlias(this=table.this.copy())
    table.replace(exp.Subquery(this=rows, alias=alias, **rest))


def series(call: exp.Anonymous, *, is_spark: bool) -> exp.Query:
    """Return a query for a number series."""
    bounds = [one for one in call.expressions if isinstance(one, exp.Literal) and one.is_int]
    if len(bounds) != len(call.expressions) or not 1 <= len(bounds) <= 3:  # noqa: PLR2004
        raise refused(f"{call.name} with arguments other than integer literals")
    if not is_spark:
        return exp.select(exp.column("value")).from_(exp.Table(this=call))
    if len(bounds) != 2:  # noqa: PLR2004
        raise refused(f"{call.name} without exactly two arguments")
    end = int(bounds[1].name) + (call.name == "generate_series")
    numbers = exp.Anonymous(this="range", expressions=[bounds[0].copy(), exp.Literal.number(end)])
    return exp.select(exp.alias_(exp.column("id"), "value")).from_(exp.Table(this=numbers))


def limited(tree: exp.Query, row_limit: int) -> exp.Query:
    """Limit the query to `row_limit` rows, keeping its order."""
    limit = tree.args.get("limit")
    if limit is not None and int(limit.expression.name) <= row_limit:
        return tree
    return tree.limit(row_limit, copy=False)


def written(tree: exp.Query, *, is_spark: bool) -> str:
    """Return the SQL for the engine, with all names quoted, and check that it parses to the same statement."""
    dialect: Any = "spark" if is_spark else Embedded
    options: dict[str, Any] = {"identify": True, "normalize_functions": "lower", "comments": False}
    try:
        text = tree.sql(dialect=dialect, unsupported_level=ErrorLevel.RAISE, **options)
        found = parse_one(text, dialect=dialect)
    except SqlglotError as error:
        raise refused("something") from error
    if _outline(found) != _outline(tree):
        raise InternalError("The generated statement differs from the checked one, so it was not sent to the engine.")
    return text


def _outline(tree: exp.Expr) -> Counter[str]:
    """Return how often the tree contains each table and some node types."""
    kinds = (exp.Table, exp.Select, exp.SetOperation, exp.Column, exp.Where)
    return Counter(
        f"{node.key} {node.text('catalog')} {node.text('db')} {node.name if isinstance(node, exp.Table) else ''}"
        for node in tree.find_all(*kinds)
    )
