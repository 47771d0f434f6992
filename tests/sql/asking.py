"""Everything that a role may ask: each function that it may call, with each argument, and each relation that it may read."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.drain import Session
from tests.sql.tenants import BEE, MARKS, heard

LONG_AGO, NOW = "timestamptz '2024-03-01 00:00+00'", "clock_timestamp()"

# By the name of an argument (of a function, of a type), else by its type: the first is given always, the others one at a time. Of tenant ant, and of bee.
VALUES: dict[str, list[str]] = {
    "recommender": ["'{recommender}'", "'bee-market'"],
    "user_id": ["'ant-user1'", "'bee-user1'", "'bee-user4'", "'nobody'"],
    "item_id": ["'ant-01'", "'bee-01'", "'nothing'"],
    "item_ids": ["'{ant-01,ant-02}'", "'{bee-01,bee-02}'"],
    "user_ids": ["'{ant-user1}'", "'{ant-user1,bee-user1}'"],
    "exclude_items": ["'{}'", "'{ant-03}'"],
    "filter": ["null", "'price > 0'", "'title <> '''''", "'1 / (price - price) > 0'", "'nonsense'"],
    "filter_args": ["'{}'"],
    "from": ["'{since}'", LONG_AGO],
    "to": [NOW],
    "until": ["null", NOW],
    "as_of": [NOW, LONG_AGO, "null"],
    "known_at": [NOW],
    "experiment": ["'trial'", "'nothing'"],
    "recommend.experiment": ["null", "'trial'", "'nothing'"],
    "by_model": ["null", "{model}", "1", "999"],
    "model_version": ["{model}", "1"],
    "baseline": ["1"],
    "by": ["'{model_version}'", "'{surface,experiment,arm,position,day}'"],
    "query": ["'title'", "'\"bee-title\" or lamp'"],
    "query_vector": ["null", "(select array_fill(0.1, array[256])::public.vector)"],
    "category": ["null", "'category'", "'nothing'"],
    "diversity": ["0", "0.5"],
    "exclude_seen": ["false", "true"],
    "impressions": ["""'[{"user_id": "ant-user1", "item_ids": ["ant-01"]}]'"""],
    "surface": ["'home'"],
    "arm": ["null", "'a'"],
    "reward": ["'click'", "'value'"],
    "timeout": ["'0 s'"],
    "within": ["'1 day'", "'365 days'"],
    "click_kinds": ["null", "'{view}'"],
    "conversion_kinds": ["null", "'{bee-kind}'"],
    "kind_weights": ["null", """'{"*": 1}'"""],
    "users": ["null", "2"],
    "bins": ["4"],
    "sample": ["5"],
    "seed": ["0"],
    "backdated": ["false", "true"],
    "user_counts": ["'{1,1}'"],
    "catalogue_size": ["5"],
    "k": ["10"],
    "k integer[]": ["'{10}'"],
    "recommender_id": ["1"],
    "_claim_batch.kind": ["'item'"],
    "base_model": ["null"],
    "alter_recommender.name": ["'{recommender}'"],
    "drop_recommender.name": ["'{recommender}'"],
    "create_recommender.name": ["'another'"],
    "register_encoder.family": ["'hashing'"],
    "items": ["'{schema}.products'"],
    "text_columns": ["'{title}'"],
    "numeric_columns": ["'{price}'"],
    "categorical_columns": ["'{category}'"],
    "relation": ["'{schema}.products'"],
    "type": ["'text'"],
}
BY_TYPE: dict[str, list[str]] = {
    "text": ["'ant-01'", "'bee-01'"],
    "text[]": ["'{ant-01}'", "'{bee-01,bee-user1}'"],
    "integer": ["1"],
    "integer[]": ["'{1}'"],
    "bigint": ["1"],
    "bigint[]": ["'{1}'"],
    "smallint": ["1"],
    "double precision": ["0.5"],
    "double precision[]": ["'{0.5}'"],
    "boolean": ["false", "true"],
    "timestamp with time zone": [NOW],
    "timestamp with time zone[]": ["array[now()]"],
    "interval": ["'1 day'"],
    "jsonb": ["'{}'"],
    "dynrec_data.recommender": ["dynrec._recommender('{recommender}')"],
    "dynrec_data.experiment": ["(select x from dynrec_data.experiment x limit 1)"],
    "dynrec_data.model_version": ["(select m from dynrec_data.model_version m order by m.id limit 1)"],
    "regclass": ["'{schema}.products'", "'{schema}.events'"],
}

FUNCTIONS = """
    select p.oid::regprocedure::text, format('%I.%I', n.nspname, p.proname), p.proname,
        array(select a.name from unnest(p.proargnames, p.proargmodes) with ordinality as a (name, mode, place)
            where coalesce(a.mode, 'i') in ('i', 'v') order by a.place),
        array(select format_type(t.type, null) from unnest(p.proargtypes) with ordinality as t (type, place) order by t.place)
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname in ('dynrec', 'dynrec_data') and p.prokind = 'f' and p.prorettype <> 'trigger'::regtype
        and has_function_privilege(p.oid, 'execute')
    order by 1
"""
STATISTICS = (
    "(select * from pg_stats where schemaname <> 'pg_catalog')",
    "(select * from pg_stats_ext where schemaname <> 'pg_catalog')",
)
RELATIONS = """
    select c.oid::regclass::text from pg_class c
    where c.relnamespace in ('dynrec'::regnamespace, 'dynrec_data'::regnamespace) and c.relkind in ('r', 'p', 'v')
    order by 1
"""


@dataclass(frozen=True)
class Function:
    """A function that may be called."""

    signature: str
    qualified: str
    name: str
    arguments: list[str]
    types: list[str]

    @property
    def is_public(self) -> bool:
        """Whether it is for applications."""
        return self.qualified.startswith("dynrec.") and not self.name.startswith("_")

    def calls(self, given: Mapping[str, object]) -> Iterator[str]:
        """Statements that call it, each argument with each of its values."""
        choices = self._choices(given)
        yield self._statement([values[0] for values in choices])
        for place, choice in enumerate(choices):
            for value in choice[1:]:
                yield self.call(given, {place: value})

    def call(self, given: Mapping[str, object], instead: Mapping[int, str]) -> str:
        """A statement that calls it, with other values in some places."""
        first = [values[0] for values in self._choices(given)]
        return self._statement([instead.get(place, value) for place, value in enumerate(first)])

    def _choices(self, given: Mapping[str, object]) -> list[list[str]]:
        names = self.arguments or [""] * len(self.types)
        return [
            [_filled(value, given) for value in values(self.name, name, kind)]
            for name, kind in zip(names, self.types, strict=True)
        ]

    def _statement(self, chosen: Sequence[str]) -> str:
        names = self.arguments or [""] * len(self.types)
        typed = (
            f'"{name}" => {value}::{kind}' if name else f"{value}::{kind}"
            for name, value, kind in zip(names, chosen, self.types, strict=True)
        )
        return f"select f::text from {self.qualified}({', '.join(typed)}) f"


def values(function: str, name: str, kind: str) -> list[str]:
    """What to give for an argument of a function."""
    for key in (f"{function}.{name}", f"{name} {kind}", name):
        if key in VALUES and not kind.startswith("dynrec_data."):
            return VALUES[key]
    return BY_TYPE.get(kind, ["null"])


def _filled(value: str, given: Mapping[str, object]) -> str:
    for name, thing in given.items():
        value = value.replace("{" + name + "}", str(thing))
    return value


def functions(connection: Session) -> list[Function]:
    """The functions that the current role may call."""
    return [Function(*row) for row in connection.execute(FUNCTIONS).fetchall()]


def relations(connection: Session) -> list[str]:
    """The tables and views of dynrec, whether they may be read or not."""
    return [name for (name,) in connection.execute(RELATIONS).fetchall()]


def asked(connection: Session, given: Mapping[str, object], *, public_only: bool = False) -> dict[str, dict[str, str]]:
    """What the current role hears, by function and statement."""
    return {
        function.signature: {statement: heard(connection, statement) for statement in function.calls(given)}
        for function in functions(connection)
        if function.is_public or not public_only
    }


def relations_read(connection: Session) -> dict[str, str]:
    """All rows of everything that the current role may read, and the planner's statistics."""
    names = [*relations(connection), *STATISTICS]
    return {name: "\n".join(sorted(heard(connection, f"select t::text from {name} t").splitlines())) for name in names}


def leaked(said: str, statement: str) -> str | None:
    """The first line that names something of the other tenant which the statement itself did not name."""
    for own in re.findall(r"bee-\w+", statement):
        said = said.replace(own, "")
    # a number begins with the mark: further on it is chance
    marks = re.compile("|".join(rf"(?<![\d.]){mark}" if mark.isdigit() else mark for mark in MARKS[BEE]))
    return next((line for line in said.splitlines() if marks.search(line)), None)


def leaks(heard_by: dict[str, dict[str, str]]) -> dict[str, str]:
    """The statements whose answers told of the other tenant, with the first line that did."""
    return {
        statement: line
        for said in heard_by.values()
        for statement, text in said.items()
        if (line := leaked(text, statement))
    }
