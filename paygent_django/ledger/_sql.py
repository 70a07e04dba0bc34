"""SQL for the few statements that the ledger is made of, in the words of each database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model

T = TypeVar("T")

Rows = list[tuple[Any, ...]]
_ROWS_MAX = 500


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """*items* in pieces of at most *size*."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


class Sql:
    """Statements on one connection; columns are named as in the models, tables through :meth:`table`."""

    is_pipelined = False  # true: what is asked travels together, and asking ahead saves trips

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.connection = connection
        self.vendor: str = connection.vendor
        self._cursor = connection.cursor()

    def close(self) -> None:
        """Give the cursor back."""
        self._cursor.close()

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Execute."""
        self._cursor.execute(sql, values)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Rows:
        """Execute and fetch everything."""
        self._cursor.execute(sql, values)
        return [tuple(row) for row in self._cursor.fetchall()]

    def ask(self, sql: str, values: Sequence[Any] = ()) -> Callable[[], Rows]:
        """Execute; the rows are fetched by whoever calls what is returned."""
        found = self.rows(sql, values)
        return lambda: found

    def row(self, sql: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """Execute and fetch the first row, if there is one."""
        found = self.rows(sql, values)
        return found[0] if found else None

    # -- names ----------------------------------------------------------------------------------------

    def table(self, model: type[Model]) -> str:
        """The table of *model*, quoted."""
        return self.quoted(model._meta.db_table)

    def quoted(self, name: str) -> str:
        """A name, quoted: some columns are named as SQL's own words are."""
        known = _quoted.get((self.vendor, name))
        if known is None:
            known = _quoted[self.vendor, name] = str(self.connection.ops.quote_name(name))
        return known

    def columns(self, names: Sequence[str]) -> str:
        """Names of columns, quoted, with commas."""
        return ", ".join(map(self.quoted, names))

    def among(self, column: str, values: Sequence[Any]) -> tuple[str, list[Any]]:
        """A condition that *column* is one of *values*, and its parameters."""
        if not values:
            return "1 = 0", []
        if self.vendor == "postgresql":
            kind = "text" if isinstance(values[0], str) else "bigint"
            return f"{column} = ANY(%s::{kind}[])", [array(values)]
        return f"{column} IN ({', '.join(['%s'] * len(values))})", list(values)

    def of_project(
        self, model: type[Model], column: str, project_pk: int, names: Sequence[str], alias: str = ""
    ) -> tuple[str, list[Any]]:
        """
        A condition that a row is the project's, and its *column*, unique in a project, one of *names*.

        PostgreSQL looks up each name: where it knows little of a table it would read a whole project instead.
        """
        own = f"{alias}." if alias else ""
        if self.vendor != "postgresql" or not names:
            named, values = self.among(own + column, names)
            return f"{own}project_id = %s AND {named}", [project_pk, *values]
        one = f"SELECT k.id FROM {self.table(model)} k WHERE k.project_id = %s AND k.{column} = asked.name"  # noqa: S608
        found = f"ARRAY(SELECT ({one}) FROM unnest(%s::text[]) AS asked (name))"  # noqa: S608
        return f"{own}id = ANY({found})", [project_pk, array(names)]

    # -- writing --------------------------------------------------------------------------------------

    def insert(self, model: type[Model], names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert *rows*; one that is there already is an error."""
        self._insert(model, names, rows, "")

    def insert_new(self, model: type[Model], names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert those of *rows* that are not there yet."""
        nothing = "ON CONFLICT DO NOTHING"
        if self.vendor == "mysql":  # an update that changes nothing: IGNORE would pass over every error
            nothing = "ON DUPLICATE KEY UPDATE {0} = {0}".format(self.quoted(model._meta.pk.column))
        self._insert(model, names, rows, nothing)

    def put(
        self, model: type[Model], names: Sequence[str], key: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> None:
        """Insert *rows*; where *key* is there already, the other columns take the new values."""
        if not rows:
            return
        others = {name: "{new}" for name in names if name not in key}
        self._insert(model, names, rows, self._or_update(model, key, others))

    def add(
        self,
        model: type[Model],
        names: Sequence[str],
        key: Sequence[str],
        sums: Sequence[str],
        rows: Sequence[Sequence[Any]],
    ) -> None:
        """Insert *rows*; where *key* is there already, *sums* are added to."""
        changes = dict.fromkeys(sums, "{old} + {new}")
        self._insert(model, names, rows, self._or_update(model, key, changes))

    def _or_update(self, model: type[Model], key: Sequence[str], changes: Mapping[str, str]) -> str:
        new = "VALUES({})" if self.vendor == "mysql" else "excluded.{}"
        parts = []
        for name, rule in changes.items():
            column = self.quoted(name)
            value = rule.format(old=f"{self.table(model)}.{column}", new=new.format(column))
            parts.append(f"{column} = {value}")
        if self.vendor == "mysql":
            return f"ON DUPLICATE KEY UPDATE {', '.join(parts)}"
        return f"ON CONFLICT ({self.columns(key)}) DO UPDATE SET {', '.join(parts)}"

    def _insert(
        self, model: type[Model], names: Sequence[str], rows: Sequence[Sequence[Any]], otherwise: str
    ) -> None:
        beginning = f"INSERT INTO {self.table(model)} ({self.columns(names)})"
        if self.vendor == "sqlite":  # compiled once, and run for each row
            if rows:
                self._cursor.executemany(f"{beginning} VALUES ({_marks(len(names))}) {otherwise}", rows)
            return
        for chunk in chunks(rows, _ROWS_MAX):
            if self.vendor == "postgresql":
                sql = self._arrays(model, names)
                values: list[Any] = [array(column) for column in zip(*chunk, strict=True)]
            else:
                marks = f"({_marks(len(names))})"
                sql, values = f"VALUES {', '.join([marks] * len(chunk))}", [v for row in chunk for v in row]
            self.run(f"{beginning} {sql} {otherwise}", values)

    def _arrays(self, model: type[Model], names: Sequence[str]) -> str:
        """One array per column: a statement of thousands of marks takes PostgreSQL's driver seconds."""
        types = _types_of.get(model)
        if types is None:
            fields = model._meta.concrete_fields
            types = {f.column: str(f.db_type(self.connection)).partition("(")[0] for f in fields}
            _types_of[model] = types
        arrays = ", ".join([f"%s::{types[name]}[]" for name in names])
        return f"SELECT * FROM unnest({arrays})"  # noqa: S608  # types of our own columns

    # -- values ---------------------------------------------------------------------------------------

    def stored(self, model: type[Model], name: str, value: Any) -> Any:
        """*value* as the column of that field stores it."""
        return model._meta.get_field(name).get_db_prep_save(value, self.connection)


_quoted: dict[tuple[str, str], str] = {}  # by vendor and name
_types_of: dict[type[Model], dict[str, str]] = {}  # of PostgreSQL's columns, by their names


def array(values: Sequence[Any]) -> str:
    """*values* as PostgreSQL reads an array: its driver takes ten times as long to write one of a list."""
    if None not in values:
        if type(values[0]) is not str:
            return f"{{{','.join(map(str, values))}}}"
        text = '","'.join(values)
        if "\\" not in text and text.count('"') == 2 * (len(values) - 1):  # nothing needs to be escaped
            return f'{{"{text}"}}'
    return f"{{{','.join([_element(value) for value in values])}}}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    text = value if isinstance(value, str) else str(value)
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


@lru_cache(maxsize=128)
def _marks(count: int) -> str:
    return ", ".join(["%s"] * count)


def json_text(value: Any) -> str:
    """A small value as JSON."""
    return json.dumps(value, separators=(",", ":"))
