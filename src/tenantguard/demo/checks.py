"""What `tenantguard demo --check` looks at: every promise, seen on the running database.

A check returns what it saw, or raises `NotSeenError`. Everything is compared with what the
superuser sees, so that an empty database proves nothing; what a check writes is rolled back, and
the other practice's rows must be the same, to the last byte, after each check.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal
from uuid import UUID

import psycopg
from sqlalchemy import Engine, create_engine, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from tenantguard.catalog import SETTING
from tenantguard.context import tenant_context
from tenantguard.demo.data import PRACTICES
from tenantguard.demo.stage import Stage
from tenantguard.errors import (
    CrossTenantError,
    TenantGuardError,
    TenantNotSetError,
    UnsafeRoleError,
)

__all__ = ["CHECKS", "NotSeenError", "Result", "run_checks"]

_A, _B = (practice.id for practice in PRACTICES)


class NotSeenError(Exception):
    """The check looked, and did not see what it must see."""


@dataclass(frozen=True, slots=True)
class Result:
    """One check's outcome; `unknown` means that it could not look."""

    name: str
    status: Literal["ok", "failed", "unknown"]
    seen: str


@dataclass(frozen=True, slots=True)
class Scene:
    """What a check works with: the stage and a protected engine of the application's role."""

    stage: Stage
    engine: Engine

    @property
    def models(self) -> Any:
        return self.stage.models

    @contextmanager
    def bare(self, tenant: UUID | None) -> Iterator[psycopg.Cursor[Any]]:
        """Yield a cursor of the application's role without the first lock; nothing is committed."""
        address = self.stage.application.set(drivername="postgresql")
        with psycopg.connect(address.render_as_string(hide_password=False)) as connection:
            cursor = connection.cursor()
            if tenant is not None:
                cursor.execute("SELECT set_config(%s, %s, true)", (SETTING, str(tenant)))
            yield cursor
            connection.rollback()

    def foreign_id(self) -> int:
        """Return the number of a patient of practice B."""
        patient = self.models.Patient
        with self.stage.admin.connect() as connection:
            found = connection.scalar(select(func.min(patient.id)).where(patient.tenant_id == _B))
        return int(_expect("patients of practice B exist", actual=found or 0, more_than=0))

    def own_id(self) -> int:
        """Return the number of a patient of practice A."""
        patient = self.models.Patient
        with self.stage.admin.connect() as connection:
            found = connection.scalar(select(func.min(patient.id)).where(patient.tenant_id == _A))
        return int(_expect("patients of practice A exist", actual=found or 0, more_than=0))

    def fingerprint(self) -> list[str]:
        """Return a digest of all rows of practice B, table by table, as the superuser sees them."""
        tables = ("practices", "users", "patients", "orders", "order_items")
        with self.stage.admin.connect() as connection:
            return [str(connection.scalar(_digest(name), {"tenant": str(_B)})) for name in tables]


def _digest(table: str) -> Any:
    key = "id" if table == "practices" else "tenant_id"
    return text(
        f"SELECT count(*) || ':' || md5(string_agg(t::text, '|' ORDER BY t.id)) FROM {table} AS t "  # noqa: S608
        f"WHERE t.{key}::text = :tenant"
    )


def _expect(what: str, *, actual: Any, equal: Any = None, more_than: Any = None) -> Any:
    if more_than is not None and not actual > more_than:
        raise NotSeenError(f"{what}: expected more than {more_than}, saw {actual}")
    if equal is not None and actual != equal:
        raise NotSeenError(f"{what}: expected {_shown(equal)}, saw {_shown(actual)}")
    return actual


def _shown(value: Any) -> str:
    """Return a number as it is, and of anything else, which may hold tenants, only its kind."""
    return str(value) if isinstance(value, int) else f"another {type(value).__name__}"


@contextmanager
def _refused(what: str, *errors: type[Exception]) -> Iterator[None]:
    try:
        yield
    except errors:
        return
    except IntegrityError as error:
        if not isinstance(error.orig, errors):
            raise NotSeenError(f"{what}: refused, but with {type(error.orig).__name__}") from error
        return
    except OperationalError:
        raise
    except Exception as error:
        raise NotSeenError(f"{what}: refused, but with {type(error).__name__}") from error
    raise NotSeenError(f"{what}: was not refused")


def both_practices_have_rows(scene: Scene) -> str:
    """Both practices have rows, as the superuser sees them."""
    counted = []
    for model in (scene.models.Patient, scene.models.Order, scene.models.OrderItem):
        query = select(model.tenant_id, func.count()).group_by(model.tenant_id)
        with scene.stage.admin.connect() as connection:
            found = {row[0]: row[1] for row in connection.execute(query)}
        name = model.__tablename__
        wanted = {tenant: counts[name] for tenant, counts in scene.stage.counts.items()}
        _expect(f"rows of {name} by practice", actual=found, equal=wanted)
        _expect(f"rows of {name}", actual=min(found.get(_A, 0), found.get(_B, 0)), more_than=0)
        counted.append(f"{sum(found.values())} {name}")
    return f"{', '.join(counted)}, of both practices"


def orm_reads_own_rows(scene: Scene) -> str:
    """The ORM reads only A's rows, without a WHERE."""
    own = scene.stage.counts[_A]
    with tenant_context(_A), Session(scene.engine) as session:
        patients = session.scalars(select(scene.models.Patient)).all()
        _expect("patients of A", actual=len(patients), equal=own["patients"])
        _expect("their practices", actual={each.tenant_id for each in patients}, equal={_A})
        orders = session.scalars(select(scene.models.Order).join(scene.models.Patient)).all()
        _expect("orders of A", actual=len(orders), equal=own["orders"])
        _expect("their practices", actual={each.tenant_id for each in orders}, equal={_A})
        foreign = session.get(scene.models.Patient, scene.foreign_id())
        _expect("B's patient, by number", actual=foreign is None, equal=True)
    return f"{own['patients']} patients and {own['orders']} orders; B's patient is not found"


def core_reads_own_rows(scene: Scene) -> str:
    """Core reads only A's rows, without a WHERE."""
    own = scene.stage.counts[_A]
    items = scene.models.OrderItem.__table__
    with tenant_context(_A), scene.engine.connect() as connection:
        tenants = connection.scalars(select(items.c.tenant_id)).all()
        _expect("items of A", actual=len(tenants), equal=own["order_items"])
        _expect("their practices", actual=set(tenants), equal={_A})
        counted = connection.scalar(select(func.count()).select_from(items))
        _expect("counted items", actual=counted, equal=own["order_items"])
    return f"{own['order_items']} order items, and the same number counted"


def rls_alone_reads_own_rows(scene: Scene) -> str:
    """With the first lock removed, the database returns only A's rows."""
    own = scene.stage.counts[_A]
    with scene.bare(_A) as cursor:
        for name in ("patients", "orders", "order_items"):
            cursor.execute(f"SELECT tenant_id, count(*) FROM {name} GROUP BY 1")  # noqa: S608
            _expect(f"rows of {name}", actual=dict(cursor.fetchall()), equal={_A: own[name]})
    return f"a plain psycopg connection got {own['patients']} patients, all of A"


def rls_alone_without_tenant(scene: Scene) -> str:
    """With the first lock removed and no tenant, the database returns nothing."""
    with scene.bare(None) as cursor:
        for name in ("practices", "users", "patients", "orders", "order_items"):
            cursor.execute(f"SELECT count(*) FROM {name}")  # noqa: S608
            _expect(f"rows of {name}", actual=cursor.fetchone(), equal=(0,))
    return "0 rows of 5 tables"


def raw_sql_is_contained(scene: Scene) -> str:
    """Raw SQL, by text() and by a driver's cursor, sees only A's rows."""
    own = scene.stage.counts[_A]["patients"]
    query = "SELECT tenant_id, count(*) FROM patients GROUP BY 1"
    with tenant_context(_A), scene.engine.connect() as connection:
        found = {row[0]: row[1] for row in connection.execute(text(query))}
        _expect("patients by text()", actual=found, equal={_A: own})
        cursor = connection.connection.cursor()
        cursor.execute(query)
        _expect("patients by a cursor", actual=dict(cursor.fetchall()), equal={_A: own})
    return f"{own} patients each way"


def no_tenant_is_an_error(scene: Scene) -> str:
    """Without a tenant, a query raises instead of returning something."""
    with (
        Session(scene.engine) as session,
        _refused("an ORM query without a tenant", TenantNotSetError),
    ):
        session.scalars(select(scene.models.Patient)).all()
    with (
        scene.engine.connect() as connection,
        _refused("a Core query without a tenant", TenantNotSetError),
    ):
        connection.execute(select(scene.models.Order.__table__)).all()
    return "TenantNotSetError, ORM and Core"


def foreign_insert_is_refused(scene: Scene) -> str:
    """A cannot insert a row for B, neither through the models nor with SQL."""
    row = {"first_name": "X", "last_name": "X", "born": date(2000, 1, 1), "tenant_id": _B}
    row |= {"insurance": "", "notes": ""}
    with tenant_context(_A), Session(scene.engine) as session:
        session.add(scene.models.Patient(**row))
        with _refused("an object of B", CrossTenantError):
            session.flush()
    with (
        tenant_context(_A),
        scene.engine.connect() as connection,
        _refused("a Core insert for B", CrossTenantError),
    ):
        connection.execute(insert(scene.models.Patient.__table__), row)
    with (
        scene.bare(_A) as cursor,
        _refused("SQL that inserts for B", psycopg.errors.InsufficientPrivilege),
    ):
        cursor.execute(
            "INSERT INTO patients (tenant_id, first_name, last_name, born, insurance, notes) "
            "VALUES (%(tenant_id)s, %(first_name)s, %(last_name)s, %(born)s, '', '')",
            row,
        )
    return "ORM and Core raise CrossTenantError; SQL is refused by the policy"


def foreign_update_is_refused(scene: Scene) -> str:
    """A cannot update or delete a row of B, neither through the models nor with SQL."""
    patient, id_ = scene.models.Patient, scene.foreign_id()
    with tenant_context(_A), Session(scene.engine) as session:
        statement = update(patient).where(patient.id == id_).values(notes="changed")
        touched = session.execute(statement)
        _expect("rows updated by the ORM", actual=getattr(touched, "rowcount", None), equal=0)
        everything = update(patient).values(notes="changed")
        own = scene.stage.counts[_A]["patients"]
        touched = session.execute(everything)
        _expect(
            "rows an UPDATE without WHERE touched",
            actual=getattr(touched, "rowcount", None),
            equal=own,
        )
        session.rollback()
    with scene.bare(_A) as cursor:
        cursor.execute("UPDATE patients SET notes = 'changed' WHERE id = %s", (id_,))
        _expect("rows updated by SQL", actual=cursor.rowcount, equal=0)
        cursor.execute("DELETE FROM order_items WHERE tenant_id = %s", (_B,))
        _expect("rows deleted by SQL", actual=cursor.rowcount, equal=0)
    return "0 rows of B, by ORM and SQL; an UPDATE without WHERE touched only A's"


def foreign_move_is_refused(scene: Scene) -> str:
    """A cannot give a row to B, neither through the models nor with SQL."""
    id_ = scene.own_id()
    with tenant_context(_A), Session(scene.engine) as session:
        session.get_one(scene.models.Patient, id_).tenant_id = _B
        with _refused("an object given to B", CrossTenantError):
            session.flush()
    with (
        scene.bare(_A) as cursor,
        _refused("SQL that gives a row to B", psycopg.errors.InsufficientPrivilege),
    ):
        cursor.execute("UPDATE patients SET tenant_id = %s WHERE id = %s", (_B, id_))
    return "ORM raises CrossTenantError; SQL is refused by the policy"


def foreign_key_is_refused(scene: Scene) -> str:
    """A's order cannot point at B's patient, neither through the models nor with SQL."""
    id_ = scene.foreign_id()
    with tenant_context(_A), Session(scene.engine) as session:
        session.add(scene.models.Order(patient_id=id_, title="X", due_on=date(2030, 1, 1)))
        with _refused("an order for B's patient", psycopg.errors.ForeignKeyViolation):
            session.flush()
    with (
        scene.bare(_A) as cursor,
        _refused("SQL that points at B's patient", psycopg.errors.ForeignKeyViolation),
    ):
        cursor.execute(
            "INSERT INTO orders (tenant_id, patient_id, title, status, due_on) "
            "VALUES (%s, %s, 'X', 'new', '2030-01-01')",
            (_A, id_),
        )
    return "the composite foreign key refuses it, by ORM and SQL"


def superuser_is_refused(scene: Scene) -> str:
    """A protected engine refuses to work as superuser."""
    engine = create_engine(scene.stage.admin.url, poolclass=NullPool)
    scene.stage.guard.protect(engine)
    with tenant_context(_A), _refused("a superuser's connection", UnsafeRoleError):
        engine.connect().close()
    return "UnsafeRoleError at the first connection"


CHECKS: tuple[Callable[[Scene], str], ...] = (
    both_practices_have_rows,
    orm_reads_own_rows,
    core_reads_own_rows,
    rls_alone_reads_own_rows,
    rls_alone_without_tenant,
    raw_sql_is_contained,
    no_tenant_is_an_error,
    foreign_insert_is_refused,
    foreign_update_is_refused,
    foreign_move_is_refused,
    foreign_key_is_refused,
    superuser_is_refused,
)


def run_checks(stage: Stage, engine: Engine | None = None) -> Iterator[Result]:
    """Yield each check's result; *engine* replaces the protected one, to prove that checks fail."""
    if engine is None:
        engine = create_engine(stage.application)
        stage.guard.protect(engine)
    scene = Scene(stage, engine)
    try:
        before = scene.fingerprint()
        for check in CHECKS:
            yield _run(check, scene, before)
    finally:
        engine.dispose()


def _run(check: Callable[[Scene], str], scene: Scene, before: list[str]) -> Result:
    name = (check.__doc__ or check.__name__).rstrip(".")
    try:
        seen = check(scene)
        _expect("practice B's rows are untouched", actual=scene.fingerprint() == before, equal=True)
    except (OperationalError, psycopg.OperationalError) as error:
        return Result(name, "unknown", f"could not look: {type(error).__name__}")
    except NotSeenError as error:
        return Result(name, "failed", str(error))
    except Exception as error:  # noqa: BLE001  (whatever it was, the promise was not seen)
        # Another library's text may quote a value.
        reason = f": {error}" if isinstance(error, TenantGuardError) else ""
        return Result(name, "failed", f"{type(error).__name__}{reason}")
    return Result(name, "ok", seen)
