"""Ways around the policies: each is found, and refused, before a connection is handed out."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from attacking import BINDING
from practice import A
from sqlalchemy import Column, MetaData, String, Table, Uuid, select, text

from tenantguard import ConfigurationError, PolicyDriftError, TenantGuard, rls, tenant_context

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from shapes import ShapeStage

pytest_plugins = ["shape_staging"]

# Each makes a way to everybody's rows; then what is found, and the name by which they are read.
WAYS = {
    "partition": (
        "INSERT INTO readings_rest SELECT id, '2031-01-01', tenant_id, name FROM readings",
        "partition-open",
        "readings_rest",
    ),
    "partition of a partition": (
        (
            "CREATE TABLE readings_32 PARTITION OF readings FOR VALUES FROM ('2032-01-01') "
            "TO ('2033-01-01') PARTITION BY LIST (day);"
            "CREATE TABLE readings_32_all PARTITION OF readings_32 DEFAULT;"
            "INSERT INTO readings SELECT id, '2032-01-01', tenant_id, name FROM readings"
        ),
        "partition-open",
        "readings_32_all",
    ),
    "child by INHERITS": (
        "INSERT INTO guests SELECT id + 1000, tenant_id, name FROM people",
        "partition-open",
        "guests",
    ),
    "view of the owner": (
        "CREATE VIEW everyone AS SELECT name FROM people",
        "view-of-owner",
        "everyone",
    ),
    "view of a view": (
        (
            "CREATE VIEW inner_view WITH (security_invoker) AS SELECT name FROM people;"
            "CREATE VIEW everyone AS SELECT name FROM inner_view"
        ),
        "view-of-owner",
        "everyone",
    ),
    "view of a partition": (
        "CREATE VIEW everyone AS SELECT name FROM readings_2025",
        "view-of-owner",
        "everyone",
    ),
    "materialised view": (
        "CREATE MATERIALIZED VIEW everyone AS SELECT name FROM people",
        "view-materialised",
        "everyone",
    ),
    "view of the models": (
        "ALTER VIEW reading_list RESET (security_invoker)",
        "view-of-owner",
        "reading_list",
    ),
    "default privileges": (
        (
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;"
            "CREATE TABLE readings_33 PARTITION OF readings FOR VALUES FROM ('2033-01-01') "
            "TO ('2034-01-01');"
            "INSERT INTO readings SELECT id, '2033-01-01', tenant_id, name FROM readings"
        ),
        "partition-open",
        "readings_33",
    ),
}


_UNDO = (
    "DROP VIEW IF EXISTS inner_view CASCADE",
    "DROP TABLE IF EXISTS readings_32, readings_33",
    "ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM PUBLIC",
    "DELETE FROM readings_rest",
    "DELETE FROM guests",
    "ALTER VIEW reading_list SET (security_invoker = true)",
    'REVOKE ALL ON readings_rest, guests FROM "{app}"',
)
_KINDS = {"v": "VIEW", "m": "MATERIALIZED VIEW", "r": "TABLE"}


@contextmanager
def _changed(shapes: ShapeStage, statements: str) -> Iterator[None]:
    """Run *statements* as a superuser; afterwards everything is as it was."""
    _run(shapes, statements.split(";"))
    try:
        yield
    finally:
        with shapes.world.admin.connect() as admin:
            kind = admin.scalar(
                text("SELECT relkind::text FROM pg_class WHERE relname = 'everyone'")
            )
        dropped = [f"DROP {_KINDS[kind]} IF EXISTS everyone CASCADE"] if kind else []
        _run(shapes, [*dropped, *(each.format(app=_application(shapes)) for each in _UNDO)])


def _run(shapes: ShapeStage, statements: Iterable[str]) -> None:
    with shapes.world.admin.begin() as admin:
        for statement in ("SET LOCAL lock_timeout = '5s'", *statements):
            admin.execute(text(statement))


def _application(shapes: ShapeStage) -> str:
    return str(shapes.world.guard.roles.application)


@pytest.mark.parametrize("lock", BINDING)
@pytest.mark.parametrize("way", WAYS)
def test_a_way_around_the_policies_is_refused(shapes: ShapeStage, way: str, lock: str) -> None:
    """A part, or a view of its owner, that the application reaches, is refused with its mending."""
    made, code, relation = WAYS[way]
    fresh, connected = getattr(shapes.locks, lock)(), shapes.engine(lock)
    with tenant_context(A):
        connected.connect().close()
        with _changed(shapes, f'{made}; GRANT SELECT ON {relation} TO "{_application(shapes)}"'):
            with connected.connect() as before:
                assert before.scalar(text(f"SELECT count(*) FROM {relation}")) >= 6
            with pytest.raises(PolicyDriftError, match=rf"{relation}.*Mend: (REVOKE|ALTER VIEW)"):
                fresh.connect()
            found = {(each.code, each.object) for each in _findings(shapes)}
            assert (code, f"public.{relation}") in found
        fresh.connect().close()


def _findings(shapes: ShapeStage) -> list[rls.Finding]:
    engine = shapes.locks._engine(shapes.world.app_url, {})
    raw = engine.raw_connection()
    try:
        return rls.verify(
            raw.dbapi_connection, shapes.world.guard.catalog, shapes.world.guard.roles
        )
    finally:
        raw.close()


CALLERS = (
    "CREATE VIEW everyone WITH (security_invoker) AS SELECT name FROM people;"
    'GRANT SELECT ON everyone TO "{app}"'
)


@pytest.mark.parametrize(
    "made",
    [
        CALLERS,
        "CREATE VIEW everyone AS SELECT name FROM people",
        "CREATE MATERIALIZED VIEW everyone AS SELECT name FROM people",
    ],
)
def test_what_is_no_way_around_is_allowed(shapes: ShapeStage, made: str) -> None:
    """Positive control: a view that asks as its caller, or that nobody was granted, is no fault."""
    with _changed(shapes, made.format(app=_application(shapes))):
        assert _findings(shapes) == []
        with tenant_context(A), shapes.locks.both().connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM people")) == 6


def _guard_of(shapes: ShapeStage, *, view: bool, **options: object) -> TenantGuard:
    metadata = MetaData()
    registry = shapes.world.guard.catalog.registry.table
    assert registry is not None
    registry.to_metadata(metadata)
    Table(
        "everyone",
        metadata,
        Column("tenant_id", Uuid),
        Column("name", String),
        info={"is_view": view},
    )
    roles = shapes.world.guard.roles
    return TenantGuard(metadata, tenants="practices", roles=roles, **options)  # type: ignore[arg-type]


VIEW = "CREATE VIEW everyone AS SELECT tenant_id, name FROM people"
COPY = "CREATE MATERIALIZED VIEW everyone AS SELECT tenant_id, name FROM people"
REFUSED = {
    "view that the models call a table": (VIEW, False, "is a view in the database"),
    "table that the models call a view": (
        "CREATE TABLE everyone (tenant_id uuid)",
        True,
        "is a table in the database",
    ),
    "materialised view with a tenant": (COPY, True, "a copy without policies"),
}


@pytest.mark.parametrize("made", REFUSED)
def test_apply_refuses_what_it_cannot_protect(shapes: ShapeStage, made: str) -> None:
    """`rls apply` says what a relation is, and what to do, before it changes anything."""
    statement, view, message = REFUSED[made]
    guard = _guard_of(shapes, view=view)
    with _changed(shapes, statement), pytest.raises(ConfigurationError, match=message):
        rls.apply(shapes.world.admin, guard.catalog, guard.roles)


def test_apply_makes_a_view_ask_as_its_caller(shapes: ShapeStage) -> None:
    """A view of the models is mended by `rls apply`, which a second time finds nothing to do."""
    guard = _guard_of(shapes, view=True)
    with _changed(shapes, VIEW):
        steps = rls.apply(shapes.world.admin, guard.catalog, guard.roles)
        assert "public.everyone security invoker" in [str(step) for step in steps]
        assert rls.apply(shapes.world.admin, guard.catalog, guard.roles) == []
        engine = shapes.locks._engine(shapes.world.app_url, {})
        guard.protect(engine)
        with tenant_context(A), engine.connect() as connection:
            view = guard.catalog.metadata.tables["everyone"]
            assert set(connection.scalars(select(view.c.name))) == {"a0", "a1", "a2"}
            assert set(connection.scalars(text("SELECT name FROM everyone"))) == {"a0", "a1", "a2"}


@pytest.mark.parametrize("made", [VIEW, COPY])
def test_a_view_may_be_shared_with_a_reason(shapes: ShapeStage, made: str) -> None:
    """Positive control: what all tenants may read is declared, with the reason, and readable."""
    guard = _guard_of(shapes, view=True, shared={"everyone": "who works where is public"})
    with _changed(shapes, made):
        rls.apply(shapes.world.admin, guard.catalog, guard.roles)
        engine = shapes.locks._engine(shapes.world.app_url, {})
        guard.protect(engine)
        with tenant_context(A), engine.connect() as connection:
            view = guard.catalog.metadata.tables["everyone"]
            assert len(set(connection.scalars(select(view.c.name)))) == 6


def test_a_new_connection_sees_a_view_opened(shapes: ShapeStage) -> None:
    """A view of the models that stops asking as its caller is noticed by the next connection."""
    engine = shapes.locks.both()
    with tenant_context(A), engine.connect():
        with (
            _changed(shapes, "ALTER VIEW reading_list RESET (security_invoker)"),
            pytest.raises(PolicyDriftError, match="reading_list"),
        ):
            engine.connect()
        engine.connect().close()
