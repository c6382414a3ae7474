"""What `tenantguard demo --check` looks at: every promise, seen on the running database.

A check returns what it saw, or raises `NotSeenError`. Everything is compared with what the
superuser sees, so that an empty database proves nothing; what a check writes is rolled back, and
the other practice's rows must be the same, to the last byte, after each check.
"""

from collections.abc import Callable, Iterator
from functools import partial

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from tenantguard.demo.access import access_through
from tenantguard.demo.isolated import (
    both_practices_have_rows,
    core_reads_own_rows,
    foreign_insert_is_refused,
    foreign_key_is_refused,
    foreign_move_is_refused,
    foreign_update_is_refused,
    no_tenant_is_an_error,
    orm_reads_own_rows,
    raw_sql_is_contained,
    rls_alone_reads_own_rows,
    rls_alone_without_tenant,
    superuser_is_refused,
)
from tenantguard.demo.scene import NotSeenError, Result, Scene, expect, no_answer
from tenantguard.demo.sealed import (
    ciphertext_at_rest,
    copy_to_another_tenant_is_not_opened,
    found_by_name,
    swapped_values_are_not_opened,
)
from tenantguard.demo.stage import Stage
from tenantguard.errors import TenantGuardError

__all__ = ["CHECKS", "NotSeenError", "Result", "run_checks"]

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
    ciphertext_at_rest,
    found_by_name,
    copy_to_another_tenant_is_not_opened,
    swapped_values_are_not_opened,
)


def run_checks(stage: Stage, engine: Engine | AsyncEngine | None = None) -> Iterator[Result]:
    """Yield each check's result; *engine* replaces the protected one, to prove that checks fail."""
    if engine is None:
        engine = stage.engine()
        stage.guard.protect(engine)
    scene = Scene(stage, access_through(engine))
    try:
        before = scene.fingerprint()
        for check in CHECKS:
            yield _run(check, scene, before)
    finally:
        scene.access.close()


def _run(check: Callable[[Scene], str], scene: Scene, before: list[str]) -> Result:
    name = (check.__doc__ or check.__name__).rstrip(".")
    try:
        seen = scene.access.run(partial(check, scene))
        expect("practice B's rows are untouched", actual=scene.fingerprint() == before, equal=True)
    except NotSeenError as error:
        return Result(name, "failed", str(error))
    except Exception as error:  # noqa: BLE001  (whatever it was, the promise was not seen)
        if no_answer(error):
            return Result(name, "unknown", f"could not look: {type(error).__name__}")
        # Another library's text may quote a value.
        reason = f": {error}" if isinstance(error, TenantGuardError) else ""
        return Result(name, "failed", f"{type(error).__name__}{reason}")
    return Result(name, "ok", seen)
