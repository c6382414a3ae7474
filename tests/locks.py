"""A database with two tenants, and engines that have some of the locks and not others.

Taking a lock away needs private parts of the guard and a fresh engine: the library has no switch
for it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from drivers import engine_of
from practice import (
    A,
    B,
    Base,
    Material,
    Migration,
    Order,
    Patient,
    Practice,
    Tag,
    User,
    make_guard,
)
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.orm import Session

from tenantguard import Roles, TenantGuard, rls
from tenantguard.guard import _Proof

_numbers = count()
_FILL = 3


@dataclass(frozen=True, slots=True)
class World:
    """A filled and protected database.

    Attributes:
        admin: A superuser's engine, without any lock.
        guard: The guard whose roles and policies the database has.
        app_url: The address of the application's login.
    """

    admin: Engine
    guard: TenantGuard
    app_url: URL

    def dispose(self) -> None:
        self.admin.dispose()

    def rows(self, table: str, tenant: object) -> list[tuple[Any, ...]]:
        """What the database holds of *tenant*, whatever the locks say."""
        column = "id" if table == "practices" else "tenant_id"
        query = text(f"SELECT * FROM {table} WHERE {column} = :tenant ORDER BY 1, 2")
        with self.admin.connect() as connection:
            return [tuple(row) for row in connection.execute(query, {"tenant": tenant})]


class Locks:
    """Fresh engines on one world."""

    def __init__(self, world: World, driver: str = "psycopg") -> None:
        self.world = world
        self.driver = driver
        self._engines: list[Engine] = []

    def both(self, **options: Any) -> Engine:
        """An engine as users have it."""
        engine = self._engine(self.world.app_url, options)
        self.world.guard.protect(engine)
        return engine

    def first_alone(self, *, text_allowed: bool = False, **options: Any) -> Engine:
        """Scoped statements as a superuser, whom no policy holds."""
        engine = self._engine(self.world.admin.url, options)
        guard = self.world.guard
        guard._bind(engine, verify=lambda *_: None)
        guard._scope(engine, text_allowed=lambda: text_allowed)
        return engine

    def second_alone(self, **options: Any) -> Engine:
        """Policies and the bound tenant, with statements as the application wrote them."""
        engine = self._engine(self.world.app_url, options)
        self.world.guard._bind(engine, verify=partial(self.world.guard._verify, proof=_Proof()))
        return engine

    def none(self, **options: Any) -> Engine:
        """No lock: what the attack would get without the library."""
        return self._engine(self.world.admin.url, options)

    def dispose(self) -> None:
        for engine in self._engines:
            engine.dispose()

    def _engine(self, url: URL, options: dict[str, Any]) -> Engine:
        engine = engine_of(url, self.driver, **options)
        self._engines.append(engine)
        return engine


def unique_roles() -> Roles:
    """Roles of their own: roles belong to the whole cluster."""
    prefix = f"tg{os.getpid()}_{next(_numbers)}"
    return Roles(*(f"{prefix}_{name}" for name in ("app", "owner", "maint", "support", "backup")))


def build_world(admin_url: URL) -> World:
    admin = create_engine(admin_url)
    roles = unique_roles()
    guard = make_guard(roles)
    Base.metadata.create_all(admin)
    fill(admin)
    rls.apply(admin, guard.catalog, roles, create_roles=True)
    return World(admin, guard, admin_url.set(username=roles.application))


def fill(admin: Engine) -> None:
    """Give each tenant three patients with an order and a tag each."""
    with Session(admin) as session:
        session.add_all([Practice(id=A, name="Praxis A"), Practice(id=B, name="Praxis B")])
        session.add_all([Material(name="Zirkon"), Migration(version="0001")])
        session.flush()
        for tenant, letter in ((A, "a"), (B, "b")):
            session.add(
                User(
                    tenant_id=tenant, email=f"{letter}@lab.example", password_hash=f"hash-{letter}"
                )
            )
            for number in range(_FILL):
                tag = Tag(tenant_id=tenant, name=f"tag {number}")
                order = Order(tenant_id=tenant, what=f"crown {letter}{number}", cents=number * 100)
                session.add(
                    Patient(tenant_id=tenant, name=f"patient {letter}{number}", orders=[order])
                )
                session.add(tag)
                session.flush()
                session.execute(
                    Base.metadata.tables["order_tags"].insert(),
                    {"tenant_id": tenant, "order_id": order.id, "tag_id": tag.id},
                )
        session.commit()
