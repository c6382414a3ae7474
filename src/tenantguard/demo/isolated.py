"""The checks of isolation: what one practice reads and writes, by each lock and by both."""

from datetime import date

from sqlalchemy import func, insert, select, text, update

from tenantguard.context import tenant_context
from tenantguard.demo.data import PRACTICES
from tenantguard.demo.scene import Scene, expect, pairs, refused
from tenantguard.errors import CrossTenantError, TenantNotSetError, UnsafeRoleError

__all__ = [
    "both_practices_have_rows",
    "core_reads_own_rows",
    "foreign_insert_is_refused",
    "foreign_key_is_refused",
    "foreign_move_is_refused",
    "foreign_update_is_refused",
    "no_tenant_is_an_error",
    "orm_reads_own_rows",
    "raw_sql_is_contained",
    "rls_alone_reads_own_rows",
    "rls_alone_without_tenant",
    "superuser_is_refused",
]

_A, _B = (practice.id for practice in PRACTICES)
# PostgreSQL's codes, which all drivers report.
_NOT_ALLOWED, _NO_SUCH_ROW = "42501", "23503"


def both_practices_have_rows(scene: Scene) -> str:
    """Both practices have rows, as the superuser sees them."""
    counted = []
    for model in (scene.models.Patient, scene.models.Order, scene.models.OrderItem):
        query = select(model.tenant_id, func.count()).group_by(model.tenant_id)
        with scene.stage.admin.connect() as connection:
            found = pairs(connection.execute(query))
        name = model.__tablename__
        wanted = {tenant: counts[name] for tenant, counts in scene.stage.counts.items()}
        expect(f"rows of {name} by practice", actual=found, equal=wanted)
        expect(f"rows of {name}", actual=min(found.get(_A, 0), found.get(_B, 0)), more_than=0)
        counted.append(f"{sum(found.values())} {name}")
    return f"{', '.join(counted)}, of both practices"


def orm_reads_own_rows(scene: Scene) -> str:
    """The ORM reads only A's rows, without a WHERE."""
    own = scene.stage.counts[_A]
    with scene.session(_A) as session:
        patients = session.scalars(select(scene.models.Patient)).all()
        expect("patients of A", actual=len(patients), equal=own["patients"])
        expect("their practices", actual={each.tenant_id for each in patients}, equal={_A})
        orders = session.scalars(select(scene.models.Order).join(scene.models.Patient)).all()
        expect("orders of A", actual=len(orders), equal=own["orders"])
        expect("their practices", actual={each.tenant_id for each in orders}, equal={_A})
        _, foreign = scene.patients()
        found = session.get(scene.models.Patient, foreign)
        expect("B's patient, by number", actual=found is None, equal=True)
    return f"{own['patients']} patients and {own['orders']} orders; B's patient is not found"


def core_reads_own_rows(scene: Scene) -> str:
    """Core reads only A's rows, without a WHERE."""
    own = scene.stage.counts[_A]
    items = scene.models.OrderItem.__table__
    with scene.connection(_A) as connection:
        tenants = connection.scalars(select(items.c.tenant_id)).all()
        expect("items of A", actual=len(tenants), equal=own["order_items"])
        expect("their practices", actual=set(tenants), equal={_A})
        counted = connection.scalar(select(func.count()).select_from(items))
        expect("counted items", actual=counted, equal=own["order_items"])
    return f"{own['order_items']} order items, and the same number counted"


def rls_alone_reads_own_rows(scene: Scene) -> str:
    """With the first lock removed, the database returns only A's rows."""
    own = scene.stage.counts[_A]
    with scene.bare(_A) as send:
        for name in ("patients", "orders", "order_items"):
            rows = send(f"SELECT tenant_id, count(*) FROM {name} GROUP BY 1")  # noqa: S608
            expect(f"rows of {name}", actual=pairs(rows), equal={_A: own[name]})
    return f"a connection without the guard got {own['patients']} patients, all of A"


def rls_alone_without_tenant(scene: Scene) -> str:
    """With the first lock removed and no tenant, the database returns nothing."""
    with scene.bare(None) as send:
        for name in ("practices", "users", "patients", "orders", "order_items"):
            counted = send(f"SELECT count(*) FROM {name}").scalar()  # noqa: S608
            expect(f"rows of {name}", actual=counted, equal=0)
    return "0 rows of 5 tables"


def raw_sql_is_contained(scene: Scene) -> str:
    """Raw SQL, by text() and by the driver itself, sees only A's rows."""
    own = scene.stage.counts[_A]["patients"]
    query = "SELECT tenant_id, count(*) FROM patients GROUP BY 1"
    with scene.connection(_A) as connection:
        found = pairs(connection.execute(text(query)))
        expect("patients by text()", actual=found, equal={_A: own})
        found = pairs(scene.access.ask_driver(connection, query))
        expect("patients by the driver", actual=found, equal={_A: own})
    return f"{own} patients each way"


def no_tenant_is_an_error(scene: Scene) -> str:
    """Without a tenant, a query raises instead of returning something."""
    with (
        scene.access.session() as session,
        refused("an ORM query without a tenant", TenantNotSetError),
    ):
        session.scalars(select(scene.models.Patient.id)).all()
    with (
        scene.access.connect() as connection,
        refused("a Core query without a tenant", TenantNotSetError),
    ):
        connection.execute(select(scene.models.OrderItem.__table__)).all()
    return "TenantNotSetError, ORM and Core"


def foreign_insert_is_refused(scene: Scene) -> str:
    """A cannot insert a row for B, neither through the models nor with SQL."""
    row = {"first_name": "X", "last_name": "X", "born": date(2000, 1, 1), "tenant_id": _B}
    row |= {"insurance": "", "notes": ""}
    with scene.session(_A) as session:
        session.add(scene.models.Patient(**row))
        with refused("an object of B", CrossTenantError):
            session.flush()
    with (
        scene.connection(_A) as connection,
        refused("a Core insert for B", CrossTenantError),
    ):
        connection.execute(insert(scene.models.Patient.__table__), row)
    with (
        scene.bare(_A) as send,
        refused("SQL that inserts for B", _NOT_ALLOWED),
    ):
        send(
            "INSERT INTO patients (tenant_id, first_name, last_name, born, insurance, notes) "
            "SELECT :tenant, first_name, last_name, born, insurance, notes FROM patients "
            "WHERE id = :id",
            tenant=_B,
            id=scene.patients()[0],
        )
    return "ORM and Core raise CrossTenantError; SQL is refused by the policy"


def foreign_update_is_refused(scene: Scene) -> str:
    """A cannot update or delete a row of B, neither through the models nor with SQL."""
    patient, (_, id_) = scene.models.Patient, scene.patients()
    with scene.session(_A) as session:
        statement = update(patient).where(patient.id == id_).values(insurance="changed")
        touched = session.execute(statement)
        expect("rows updated by the ORM", actual=getattr(touched, "rowcount", None), equal=0)
        everything = update(patient).values(insurance="changed")
        own = scene.stage.counts[_A]["patients"]
        touched = session.execute(everything)
        expect(
            "rows an UPDATE without WHERE touched",
            actual=getattr(touched, "rowcount", None),
            equal=own,
        )
        session.rollback()
    with scene.bare(_A) as send:
        touched = send("UPDATE patients SET insurance = 'changed' WHERE id = :id", id=id_)
        expect("rows updated by SQL", actual=touched.rowcount, equal=0)
        touched = send("DELETE FROM order_items WHERE tenant_id = :tenant", tenant=_B)
        expect("rows deleted by SQL", actual=touched.rowcount, equal=0)
    return "0 rows of B, by ORM and SQL; an UPDATE without WHERE touched only A's"


def foreign_move_is_refused(scene: Scene) -> str:
    """A cannot give a row to B, neither through the models nor with SQL."""
    id_, _ = scene.patients()
    with scene.session(_A) as session:
        session.get_one(scene.models.Patient, id_).tenant_id = _B
        with refused("an object given to B", CrossTenantError):
            session.flush()
    with (
        scene.bare(_A) as send,
        refused("SQL that gives a row to B", _NOT_ALLOWED),
    ):
        send("UPDATE patients SET tenant_id = :tenant WHERE id = :id", tenant=_B, id=id_)
    return "ORM raises CrossTenantError; SQL is refused by the policy"


def foreign_key_is_refused(scene: Scene) -> str:
    """A's order cannot point at B's patient, neither through the models nor with SQL."""
    own, foreign = scene.patients()
    with scene.session(_A) as session:
        session.add(scene.models.Order(patient_id=foreign, title="X", due_on=date(2030, 1, 1)))
        with refused("an order for B's patient", _NO_SUCH_ROW):
            session.flush()
    with (
        scene.bare(_A) as send,
        refused("SQL that points at B's patient", _NO_SUCH_ROW),
    ):
        send(
            "INSERT INTO orders (tenant_id, patient_id, title, status, due_on) "
            "SELECT :tenant, :patient, notes, 'new', '2030-01-01' FROM patients WHERE id = :own",
            tenant=_A,
            patient=foreign,
            own=own,
        )
    return "the composite foreign key refuses it, by ORM and SQL"


def superuser_is_refused(scene: Scene) -> str:
    """A protected engine refuses to work as superuser."""
    superuser = scene.access.to(scene.stage.admin.url)
    scene.stage.guard.protect(superuser.engine)
    with (
        tenant_context(_A),
        refused("a superuser's connection", UnsafeRoleError),
        superuser.connect(),
    ):
        pass
    return "UnsafeRoleError at the first connection"
