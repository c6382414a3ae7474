"""Errors of the database tell what went wrong, and no value: not A's, and above all not B's."""

from __future__ import annotations

import pickle
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg2
import pytest
from drivers import DRIVERS, engine_of
from locks import unique_roles
from practice import A, B
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, Text, Uuid, create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from tenantguard import TenantGuard, rls, tenant_context
from tenantguard.engines import hide_parameters
from tenantguard.engines.driver_errors import hide_values
from tenantguard.errors import sqlstate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Engine

MINE, THEIRS = "canary-mine", "canary-theirs"
SECRETS = ("canary", "4711", "1947", "zzz", str(A), str(B))

TABLES = """
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE TABLE practices (id uuid PRIMARY KEY);
CREATE TABLE books (
    id int PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES practices,
    slug text NOT NULL CONSTRAINT one_slug UNIQUE,
    pages int4range,
    price int CONSTRAINT not_dear CHECK (price < 100),
    short varchar(5),
    UNIQUE (tenant_id, id),
    CONSTRAINT no_overlap EXCLUDE USING gist (pages WITH &&)
);
CREATE TABLE loans (
    id int PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES practices,
    book_id int,
    CONSTRAINT of_book FOREIGN KEY (tenant_id, book_id) REFERENCES books (tenant_id, id) DEFERRABLE
);
CREATE FUNCTION complain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'slug % is like canary-theirs of another', NEW.slug
    USING DETAIL = 'canary-theirs', HINT = 'canary-theirs', ERRCODE = TG_ARGV[0];
END $$;
CREATE TRIGGER a BEFORE INSERT ON books FOR EACH ROW WHEN (NEW.price = 1)
EXECUTE FUNCTION complain('P0001');
CREATE TRIGGER b BEFORE INSERT ON books FOR EACH ROW WHEN (NEW.price = 2)
EXECUTE FUNCTION complain('23514');
CREATE FUNCTION dynamic(slug text) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'SELECT ''' || slug || '''::int';
    RETURN 1;
END $$;
"""


@dataclass(frozen=True, slots=True)
class Mistake:
    """A statement as A that fails, what it is refused by, and whether the error shows a value."""

    code: str
    sql: str
    constraint: str | None = None
    shows: bool = True


def book(**values: str) -> str:
    columns = {"id": "47110", "tenant_id": f"'{A}'", "slug": f"'{MINE}'", **values}
    return f"INSERT INTO books ({', '.join(columns)}) VALUES ({', '.join(columns.values())})"


def loan(book: int) -> str:
    return f"INSERT INTO loans (id, tenant_id, book_id) VALUES (47111, '{A}', {book})"


def cast(value: str, kind: str) -> str:
    # By a text, so that it is PostgreSQL that reads the value.
    return f"SELECT CAST(CAST('{value}' AS text) AS {kind})"


MISTAKES = {
    "unique": Mistake("23505", book(slug=f"'{THEIRS}'"), "one_slug"),
    "primary key": Mistake("23505", book(id="4711002"), "books_pkey"),
    "exclusion": Mistake("23P01", book(pages="'[4711500,4711501)'"), "no_overlap"),
    "foreign key, another's": Mistake("23503", loan(4711002), "of_book"),
    "foreign key, nobody's": Mistake("23503", loan(4711999), "of_book"),
    "foreign key, still used": Mistake("23503", "DELETE FROM books WHERE id = 4711001", "of_book"),
    "check": Mistake("23514", book(price="4711"), "not_dear"),
    "not null": Mistake("23502", book(slug="NULL", short="'zzz'")),
    "truncation": Mistake("22001", book(short=f"'{MINE}'"), shows=False),
    "trigger": Mistake("P0001", book(price="1")),
    "trigger with another code": Mistake("23514", book(price="2")),
    "integer": Mistake("22P02", cast(MINE, "int")),
    "integer with quotes": Mistake("22P02", cast(f'7" {MINE} "7', "int")),
    "out of range": Mistake("22003", cast("99999994711", "int")),
    "overflow": Mistake("22003", "SELECT 4711471147::bigint * 9223372036854775807", shows=False),
    "division": Mistake("22012", f"SELECT length('{MINE}') / 0", shows=False),
    "enumeration": Mistake("22P02", cast(MINE, "mood")),
    "json": Mistake("22P02", cast(f'{{"a": {MINE}}}', "json")),
    "date": Mistake("22007", cast(MINE, "date")),
    "date out of range": Mistake("22008", cast("1947-13-45", "date")),
    "uuid": Mistake("22P02", cast(MINE, "uuid")),
    "array": Mistake("22P02", cast("{canary", "int[]")),
    "time zone": Mistake("22023", f"SELECT now() AT TIME ZONE '{MINE}'"),
    "regular expression": Mistake("2201B", f"SELECT 'x' ~ '{MINE}('", shows=False),
    "syntax": Mistake("42601", f"SELECT 1 '{MINE}' 1"),
    "open quote": Mistake("42601", f"SELECT '{MINE}"),
    "type name": Mistake("42704", cast("canarymine", "regtype")),
    "inside a function": Mistake("22P02", f"SELECT dynamic('{MINE}')"),
}

pytestmark = pytest.mark.parametrize("driver", DRIVERS)
SILENT = {name for name, mistake in MISTAKES.items() if not mistake.shows}
# PostgreSQL itself does not show the key or row of a table whose policies hold the role.
HELD = {"unique", "primary key", "exclusion", "check", "not null"} | {
    name for name in MISTAKES if name.startswith("foreign key")
}


@dataclass(slots=True)
class Library:
    """A database with a book of A's, which is lent, and one of B's."""

    admin: Engine
    guard: TenantGuard
    app_url: URL


@pytest.fixture(scope="module")
def library(admin_url: URL) -> Iterator[Library]:
    metadata = MetaData()
    Table("practices", metadata, Column("id", Uuid, primary_key=True))
    for name in ("books", "loans"):
        table = Table(name, metadata, Column("id", Integer, primary_key=True))
        table.append_column(Column("tenant_id", Uuid, ForeignKey("practices.id")))
    metadata.tables["books"].append_column(Column("slug", Text))
    admin = create_engine(admin_url)
    with admin.begin() as connection:
        connection.execute(text(TABLES.replace(":", "\\:")))
        connection.exec_driver_sql(f"INSERT INTO practices VALUES ('{A}'), ('{B}')")
        connection.exec_driver_sql(
            f"INSERT INTO books VALUES (4711001, '{A}', 'other', NULL), "
            f"(4711002, '{B}', '{THEIRS}', '[4711400,4711600)')"
        )
        connection.exec_driver_sql(f"INSERT INTO loans VALUES (1, '{A}', 4711001)")
    roles = unique_roles()
    guard = TenantGuard(metadata, tenants="practices", roles=roles)
    rls.apply(admin, guard.catalog, roles, create_roles=True)
    yield Library(admin, guard, admin_url.set(username=roles.application))
    admin.dispose()


@contextmanager
def first_alone(library: Library, driver: str) -> Iterator[Engine]:
    """Yield an engine that hides values, of a role to whom PostgreSQL shows all."""
    engine = engine_of(library.admin.url, driver)
    library.guard._bind(engine, verify=lambda *_: None)
    library.guard._scope(engine, text_allowed=lambda: True)
    hide_parameters(engine, hide=True, guarded=library.guard._is_guarded)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def protected(library: Library, driver: str, **options: Any) -> Iterator[Engine]:
    engine = engine_of(library.app_url, driver)
    library.guard.protect(engine, **options)
    try:
        yield engine
    finally:
        engine.dispose()


def failing(engine: Engine, name: str) -> DBAPIError:
    """Return the error of the mistake *name*, made by A."""
    statement = text(MISTAKES[name].sql.replace(":", "\\:"))
    with (
        tenant_context(A),
        engine.connect() as connection,
        pytest.raises(DBAPIError) as caught,
    ):
        connection.execute(statement)
    return caught.value


def chain(error: BaseException) -> list[Any]:
    """*error* and all that it was raised from, handles or wraps."""
    waiting: list[Any] = [error]
    found: list[Any] = []
    while waiting:
        each = waiting.pop()
        if each is not None and all(each is not other for other in found):
            found.append(each)
            waiting += [each.__cause__, each.__context__, getattr(each, "orig", None)]
    return found


def shown(error: BaseException) -> str:
    """All that *error*, and what it was raised from, shows; without the statement itself."""
    parts: list[Any] = []
    for each in chain(error):
        parts += [*traceback.format_exception_only(each), str(each), repr(each), each.args]
        # SQLAlchemy's error has the parameters, which its texts do not show.
        own = {**vars(each), "params": ()}
        parts += [*own.values(), *map(partial(getattr, each), FIELDS & set(dir(each)))]
        for holder, names in (("diag", None), ("cursor", {"query", "statusmessage"})):
            held = getattr(each, holder, None)
            public = {name for name in dir(held) if not name.startswith("_")}
            parts += [getattr(held, name) for name in (public if names is None else names & public)]
        if hasattr(each, "as_dict"):
            parts += each.as_dict().values()
    found = "\n".join(map(str, parts))
    for mistake in MISTAKES.values():
        # psycopg2 has it as bytes, and SQLAlchemy's repr with quotes escaped.
        found = found.replace(mistake.sql, "").replace(repr(mistake.sql)[1:-1], "")
    return found


FIELDS = {"pgerror", "detail", "driver_exception", "hint", "context", "message"}


def leaked(error: BaseException) -> list[str]:
    found = shown(error)
    return [secret for secret in SECRETS if secret in found]


@pytest.mark.parametrize("lock", ["both", "first_alone"])
def test_no_value_is_shown(library: Library, driver: str, lock: str) -> None:
    """Neither in a text of the error, nor in what it was raised from, nor in a driver's fields."""
    locked = protected if lock == "both" else first_alone
    with locked(library, driver) as engine:
        errors = {name: failing(engine, name) for name in MISTAKES}
    assert {name: leaked(error) for name, error in errors.items() if leaked(error)} == {}
    codes = {name: sqlstate(error) for name, error in errors.items()}
    assert codes == {name: each.code for name, each in MISTAKES.items()}


def test_a_parameter_is_not_shown(library: Library, driver: str) -> None:
    """psycopg2 puts it into the statement, which its errors' cursor has."""
    statement = text("SELECT CAST(CAST(:value AS text) AS int)")
    with (
        protected(library, driver) as engine,
        tenant_context(A),
        engine.connect() as connection,
        pytest.raises(DBAPIError) as caught,
    ):
        connection.execute(statement, {"value": MINE})
    assert leaked(caught.value) == []


def test_without_the_guard_values_are_shown(library: Library, driver: str) -> None:
    """The positive control: a plain engine's errors show one, where PostgreSQL gives one."""
    engine = engine_of(library.admin.url, driver)
    try:
        clean = {name for name in MISTAKES if not leaked(failing(engine, name))}
    finally:
        engine.dispose()
    assert clean == SILENT


def test_show_parameters_shows_them(library: Library, driver: str) -> None:
    """Who asks for parameters gets the texts as PostgreSQL wrote them."""
    with protected(library, driver, show_parameters=True) as engine:
        clean = {name for name in MISTAKES if not leaked(failing(engine, name))}
    # psycopg2's errors have the whole message, with the tenant in it.
    assert clean <= SILENT | HELD


def test_what_applications_look_at_stays(library: Library, driver: str) -> None:
    """The classes, the code, and the names of constraint, table and column."""
    plain = engine_of(library.admin.url, driver)
    try:
        expected = {name: failing(plain, name) for name in MISTAKES}
    finally:
        plain.dispose()
    with protected(library, driver) as engine:
        errors = {name: failing(engine, name) for name in MISTAKES}
    for name, error in errors.items():
        assert type(error) is type(expected[name])
        assert isinstance(error.orig, type(expected[name].orig))
        assert _names(error) == _names(expected[name])
        assert MISTAKES[name].constraint in (None, _names(error)["constraint_name"])


def _names(error: DBAPIError) -> dict[str, Any]:
    found = getattr(error.orig, "diag", None) or error.orig.__cause__  # type: ignore[union-attr]
    wanted = ("constraint_name", "table_name", "column_name", "schema_name", "sqlstate")
    return {each: getattr(found, each) for each in wanted}


@pytest.mark.parametrize("name", ["unique", "integer"])
def test_errors_can_still_be_pickled(library: Library, driver: str, name: str) -> None:
    """A job queue may pickle them; no value goes with them."""
    with protected(library, driver) as engine:
        error = failing(engine, name)
    original: Any = error.orig
    pickled = pickle.dumps(original)
    without_statement = pickled.replace(MISTAKES[name].sql.encode(), b"")
    assert [secret for secret in SECRETS if secret.encode() in without_statement] == []
    again = pickle.loads(pickled)
    assert isinstance(again, type(original).__mro__[1])
    assert str(again) == str(original)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("unique", 'violates unique constraint "one_slug"'),
        ("not null", 'null value in column "slug" of relation "books"'),
        ("integer", "invalid input syntax for type integer"),
        ("truncation", "value too long for type character varying(5)"),
        ("trigger", "A function or trigger of the database raised an error"),
    ],
)
def test_the_text_still_says_what_is_wrong(
    library: Library, driver: str, name: str, says: str
) -> None:
    """And how to see the values."""
    with protected(library, driver) as engine:
        error = failing(engine, name)
    assert says in str(error)
    hidden = name not in SILENT | HELD
    assert ("protect(show_parameters=True) shows them" in str(error)) is hidden


@pytest.mark.parametrize("show", [True, False])
def test_a_foreign_key_is_explained(
    library: Library,
    driver: str,
    show: bool,  # noqa: FBT001
) -> None:
    """Another tenant's row and no row are the same to A; handlers of IntegrityError still work."""
    books = library.guard.catalog.metadata.tables["books"]
    with protected(library, driver, show_parameters=show) as engine:
        texts = set()
        for name in ("foreign key, another's", "foreign key, nobody's"):
            error = failing(engine, name)
            assert isinstance(error, IntegrityError)
            texts.add(str(error.orig))
        with (
            tenant_context(A),
            Session(engine) as session,
            pytest.raises(IntegrityError, match="still referred to"),
        ):
            session.execute(books.delete())
    assert all("does not exist or belongs to another tenant" in each for each in texts)
    assert len(texts) == 1


@pytest.mark.parametrize("kind", [psycopg.DataError, psycopg2.DataError])
def test_a_value_that_the_driver_cannot_read_is_hidden(driver: str, kind: Any) -> None:
    """The drivers' own errors of data, which have no code, are cut like PostgreSQL's."""
    error = kind("date too large (after year 10K): '12345-canary'")
    hide_values(error)
    assert leaked(error) == []
    assert str(error).startswith("date too large (after year"), driver


def test_an_error_at_commit_is_hidden(library: Library, driver: str) -> None:
    """What fails at COMMIT has no statement, and is hidden all the same."""
    with protected(library, driver) as engine, tenant_context(A), engine.connect() as connection:
        connection.execute(text("SET CONSTRAINTS ALL DEFERRED"))
        connection.execute(text(loan(4711999)))
        with pytest.raises(IntegrityError) as caught:
            connection.commit()
    assert leaked(caught.value) == []
    assert "belongs to another tenant" in str(caught.value)
