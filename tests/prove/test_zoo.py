"""Every kind of table is proven, and nothing of it remains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from zoo import MORE, ZOO, Zoo, build_zoo

from tenantguard.prove import State
from tenantguard.prove.probes import PROBES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

    from tenantguard.prove import TableProof

Proven = dict[str, "TableProof"]

EVERY = {probe.name for probe in PROBES if probe.name != "forged"} | {"truncate"}
WITHOUT_KEY = EVERY - {"upsert"}
NEVER_CHANGED = {"update", "delete", "returning", "write-unset", "move", "upsert"}

# Where not every probe fits.
HELD = {
    "without_key": WITHOUT_KEY,
    "by_list": WITHOUT_KEY,
    "by_tenant": WITHOUT_KEY,
    "with_default_part": WITHOUT_KEY,
    "append_only": EVERY - NEVER_CHANGED,
    "children": EVERY | {"foreign-key parent_id"},
    "grandchildren": EVERY | {"foreign-key child_id", "foreign-key other_id"},
    "one_to_one": EVERY | {"foreign-key parent_id"},
    "joined": EVERY | {"foreign-key id"},
    "selfish": EVERY | {"foreign-key boss_id"},
    "nullable_selfish": EVERY | {"foreign-key boss_id"},
    "associated": EVERY | {"foreign-key parent_id", "foreign-key child_id"},
    "nullable_circle_a": EVERY | {"foreign-key b_id"},
    "nullable_circle_b": EVERY | {"foreign-key a_id"},
    "circle_a": EVERY | {"foreign-key b_id"},
    "circle_b": EVERY | {"foreign-key a_id"},
}


@pytest.fixture(scope="module")
def zoo(admin_url: URL) -> Iterator[Zoo]:
    built = build_zoo(admin_url, ZOO, MORE)
    yield built
    built.dispose()


@pytest.fixture(scope="module")
def state_before(zoo: Zoo) -> list[object]:
    return state_of(zoo)


@pytest.fixture(scope="module")
def proven(zoo: Zoo, state_before: list[object]) -> Proven:
    assert state_before
    return zoo.prove()


def state_of(zoo: Zoo) -> list[object]:
    """Everything that a probe could leave behind."""
    return [
        zoo.counts(),
        zoo.ask("SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2"),
        zoo.ask(
            "SELECT oid::regclass::text, relrowsecurity, relforcerowsecurity, relacl::text, "
            "relfilenode FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
        ),
        zoo.ask("SELECT polrelid, polname, polqual::text FROM pg_policy ORDER BY 1, 2"),
        zoo.ask("SELECT conname, conrelid FROM pg_constraint ORDER BY 1, 2"),
        zoo.ask("SELECT proname FROM pg_proc WHERE proname LIKE 'tenantguard%'"),
    ]


@pytest.mark.parametrize("name", ZOO)
def test_a_row_is_invented_and_the_table_proven(proven: Proven, name: str) -> None:
    """Each probe that fits the table held, and its negative control went red."""
    found = proven[name]
    assert found.reasons == ()
    assert found.findings == ()
    assert set(found.held) == HELD.get(name, EVERY)
    assert found.state is State.PROVEN


def test_the_registry_is_proven_for_what_the_application_may(proven: Proven) -> None:
    assert proven["practices"].state is State.PROVEN
    assert {"read", "key", "copy", "unset", "truncate"} <= set(proven["practices"].held)
    assert {"update", "delete", "insert"} <= proven["practices"].left_out.keys()


def test_nothing_remains(zoo: Zoo, proven: Proven, state_before: list[object]) -> None:
    """No row, no partition, no number of a sequence, no policy, privilege or constraint."""
    assert proven
    assert state_of(zoo) == state_before
