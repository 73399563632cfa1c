"""Changes statements as a hurried or hostile user would: words moved, left out, doubled, or replaced by others."""

from micromegas_jupyter.engine.scanner import Kind, scan
from tests.unit.gateway.corpus import CORPUS

SELECTS = [sql for sql in CORPUS if sql.lower().startswith(("select ", "with "))]
# No number is large: none of these statements is to run long.
LITERALS = (
    "0", "1", "-1", "2.5", "1e3", "''", "'x'", "'('", "'z%('", "'[a'", "'(.{0,1000}){0,900}x'", "'2024-01-01'",
    "'1 hour'", "NULL", "true", "interval '1 hour'", "x'0a'", "$1", "make_array(1, NULL)", "'%'", "'\\'",
    "DATE '2024-02-30'", "TIMESTAMP '2024-01-01'", "struct(1, 'a')", "now()", "'é'", "CAST(NULL AS INT)",
    "'NaN'::DOUBLE", "9223372036854775807",
)  # fmt: skip
OPERATORS = (
    "=", "<>", "<", ">=", "+", "-", "*", "/", "%", "||", "~", "!~*", "LIKE", "ILIKE", "SIMILAR TO",
    "IS DISTINCT FROM", "AND", "OR", "&", "|", "^", "<<", "::", "NOT IN", "IN", "BETWEEN", "@>", "->", "NOT LIKE",
    "IS NOT DISTINCT FROM",
)  # fmt: skip
CALLS = (
    "count({0})", "sum({0})", "avg({0})", "max({0})", "array_agg({0})", "coalesce({0}, {1})", "nullif({0}, {1})",
    "abs({0})", "round({0}, {1})", "lower({0})", "substr({0}, {1})", "date_trunc({0}, {1})", "regexp_like({0}, {1})",
    "concat({0}, {1})", "regexp_replace({0}, {1}, {0})", "CAST({0} AS INT)", "TRY_CAST({0} AS DATE)",
    "CAST({0} AS INTERVAL)", "({0}, {1})", "CASE WHEN {0} THEN {1} END", "(SELECT {0})", "(SELECT max(id) FROM t)",
    "EXISTS (SELECT {0} FROM u WHERE u.id = t.id)", "{0} IN (SELECT id FROM u)", "{0} NOT IN ({1}, NULL)",
    "row_number() OVER (ORDER BY {0})", "lag({0}, {1}) OVER ()", "sum({0}) OVER (PARTITION BY {1})", "unnest({0})",
    "make_array({0}, {1})", "{0}[{1}]", "extract(day FROM {0})", "date_bin({0}, {1})", "to_timestamp({0})",
    "approx_percentile_cont({0}, {1})", "first_value({0} ORDER BY {1})", "string_agg({0}, {1})",
    "count(DISTINCT {0}) FILTER (WHERE {1})", "property_get({0}, {1})", "jsonb_parse({0})",
    "nth_value({0}, {1}) OVER (ORDER BY id)", "ntile({0}) OVER ()", "GROUPING({0})", "encode({0}, {1})",
    "decode({0}, 'hex')", "array_element({0}, {1})", "named_struct({0}, {1})", "split_part({0}, {1}, 1)", "chr({0})",
    "arrow_cast({0}, {1})", "power({0}, {1})", "ln({0})", "corr({0}, {1})", "median({0})", "stddev({0})",
    "array_sort({0})", "array_slice({0}, {1}, 2)",
)  # fmt: skip
CLAUSES = (
    "WHERE {0}", "GROUP BY {0}", "HAVING {0}", "ORDER BY {0}", "LIMIT 1", "OFFSET 1", "UNION ALL SELECT {0}",
    "EXCEPT SELECT {0}", "JOIN u ON {0}", "LEFT JOIN u ON {0}", "FULL JOIN u USING (id)", "CROSS JOIN u",
    "NATURAL JOIN u", "QUALIFY {0}", "GROUP BY ROLLUP ({0})", "GROUP BY GROUPING SETS (({0}), ())",
    "FROM (VALUES ((SELECT max(id) FROM t))) v(x)", "FROM t, LATERAL (SELECT {0})",
    "LEFT JOIN LATERAL (SELECT {0}) q ON true", "DISTINCT ON ({0})", "FROM unnest({0}) AS q(x)",
    "FROM generate_series(1, {0})", "FETCH FIRST 1 ROWS ONLY", "WINDOW w AS (ORDER BY {0})", "INTERSECT SELECT {0}",
)  # fmt: skip
_KEYWORDS = frozenset({
    "all", "and", "as", "asc", "between", "by", "case", "cross", "desc", "distinct", "else", "end", "except",
    "exists", "false", "first", "from", "full", "group", "having", "in", "inner", "intersect", "is", "join", "last",
    "left", "like", "limit", "natural", "not", "null", "nulls", "offset", "on", "or", "order", "outer", "over",
    "partition", "right", "select", "then", "true", "union", "using", "values", "when", "where", "with",
})  # fmt: skip


def _is_value(words, index):
    """Return whether a word is a name or constant that is an operand, as far as its neighbors show."""
    (token, *_) = scan(words[index]).tokens or [None]
    is_value = token is not None and token.kind in {Kind.WORD, Kind.NUMBER, Kind.STRING}
    before = words[index - 1].lower() if index else ""
    after = words[index + 1] if index + 1 < len(words) else ""
    return (
        is_value
        and words[index].lower() not in _KEYWORDS
        and before not in {"from", "join", "as", "."}
        and after not in {"(", "."}
    )


class Mutator:
    """Makes statements of others; the same randomness gives the same ones."""

    def __init__(self, random, corpus=SELECTS):
        self._random = random
        self._corpus = corpus

    def one(self):
        """Return a statement with one to four changes."""
        words = self._words(self._random.choice(self._corpus))
        # Mostly those after which it can still be parsed.
        broken = (self._drop, self._double, self._swap, self._insert, self._splice)
        for _ in range(self._random.choice((1, 1, 1, 2, 3))):
            change = self._random.choice((self._replace, *[self._wrap] * 7, self._random.choice(broken)))
            words = change(words) or ["SELECT"]
        return " ".join(words)

    @staticmethod
    def _words(sql):
        tokens = scan(sql).tokens
        ends = [*(token.start for token in tokens[1:]), len(sql)]
        return [sql[token.start : end].strip() for token, end in zip(tokens, ends, strict=True)]

    def _place(self, words):
        return self._random.randrange(len(words))

    def _drop(self, words):
        start = self._place(words)
        return words[:start] + words[start + self._random.choice((1, 1, 2, 4)) :]

    def _double(self, words):
        start = self._place(words)
        return words[:start] + words[start : start + self._random.choice((1, 3))] + words[start:]

    def _swap(self, words):
        words = list(words)
        first, second = self._place(words), self._place(words)
        words[first], words[second] = words[second], words[first]
        return words

    def _replace(self, words):
        words = list(words)
        place = self._place(words)
        (token, *_) = scan(words[place]).tokens or [None]
        kind = token.kind if token is not None else Kind.OTHER
        words[place] = self._random.choice(OPERATORS) if kind is Kind.OPERATOR else self._value()
        return words

    def _wrap(self, words):
        """Put a value into a call, or an operator and another value behind it."""
        words = list(words)
        places = [index for index, word in enumerate(words) if _is_value(words, index)] or [0]
        place = self._random.choice(places)
        if self._random.random() < 0.6:
            words[place] = self._random.choice(CALLS).format(words[place], self._value())
        else:
            words[place] += f" {self._random.choice(OPERATORS)} {self._value()}"
        return words

    def _insert(self, words):
        place = self._random.choice([len(words), self._place(words)])
        return [*words[:place], self._random.choice(CLAUSES).format(self._value()), *words[place:]]

    def _splice(self, words):
        other = self._words(self._random.choice(self._corpus))
        start = self._place(other)
        return words[: self._place(words)] + other[start : start + self._random.randint(1, 8)]

    def _value(self):
        column = self._random.choice(("id", "g", "name", "price", "day", "at", "shown", "t.id", "u.label", "secret"))
        return self._random.choice((column, column, self._random.choice(LITERALS)))
