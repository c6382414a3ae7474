"""What differs between the databases that the second lock is put on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenantguard.rls.citus import distribution_steps, read_distribution, refuse_undistributable
from tenantguard.rls.policies import PolicyForm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tenantguard.catalog import Catalog
    from tenantguard.rls.state import Facts, Run
    from tenantguard.rls.step import Step, Target

__all__ = ["RlsDialect", "dialect_of"]


@dataclass(frozen=True, slots=True)
class RlsDialect:
    """One kind of database.

    Attributes:
        form: How its policies are written.
        refuse: Raises unless it can hold the models' tables.
        steps: What it needs beside everything else.
        read: Returns how the tables are spread over nodes.
    """

    form: PolicyForm = PolicyForm()  # noqa: RUF009  (immutable)
    refuse: Callable[[Catalog], None] = lambda _: None
    steps: Callable[[Catalog], Iterable[Step]] = lambda _: ()
    read: Callable[[Run], dict[Target, Facts]] = lambda _: {}


_DIALECTS = {
    "postgres": RlsDialect(),
    "citus": RlsDialect(
        # Citus refuses sub-selects, and makes the shards' restrictive policies permissive ones.
        PolicyForm("{column} = {tenant}", floors=False),
        refuse_undistributable,
        distribution_steps,
        read_distribution,
    ),
}


def dialect_of(catalog: Catalog) -> RlsDialect:
    """Return what the database of *catalog* needs."""
    return _DIALECTS[catalog.dialect]
