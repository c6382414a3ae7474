"""The server's version, and what its log shows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from planting import RULE, Plant, planted

from tenantguard.check import examine, server
from tenantguard.doctor.versions import END_OF_LIFE, FAULTS

if TYPE_CHECKING:
    from locks import World

    from tenantguard.findings import Finding

MAJOR = max(END_OF_LIFE)
FIXED = max(fault.fixed.get(MAJOR, 0) for fault in FAULTS)
SOME_DAY = date(2026, 1, 1)


@dataclass(frozen=True, slots=True)
class Versions:
    """What is known of one version on a day, and not of another."""

    rule: str
    fault: int
    fine: int

    def __str__(self) -> str:
        return self.rule

    def is_found(self, world: World) -> None:
        [found] = self.look(world, self.fault)
        assert found.object == f"PostgreSQL {self.fault // 10_000}.{self.fault % 10_000}"

    def is_not_found(self, world: World) -> None:
        assert self.look(world, self.fine) == ()

    def look(self, world: World, version: int) -> tuple[Finding, ...]:
        with planted(world, "") as subject, patch.object(server, "_today", lambda: SOME_DAY):
            subject.version = version
            result = examine(subject, [RULE[self.rule]])
        assert result.looked == (self.rule,)
        return result.findings


PLANTS = (
    Versions("server-cve", MAJOR * 10_000 + FIXED - 1, MAJOR * 10_000 + FIXED),
    Versions("server-end-of-life", 130_023, 140_000),
    Plant(
        "log-parameters",
        "SET LOCAL log_statement = 'mod'",
        None,
        "SET LOCAL log_statement = 'all'; SET LOCAL log_parameter_max_length = 0",
        "of the server",
    ),
    Plant(
        "log-parameters",
        "ALTER ROLE {application} SET log_statement = 'ALL'",
        None,
        "ALTER ROLE {owner} SET log_statement = 'all'; ALTER DATABASE template1 SET log_statement "
        "= 'all'",
        "of the role",
    ),
    Plant(
        "log-parameters",
        "SET LOCAL log_parameter_max_length = 0; SET LOCAL log_min_duration_statement = 100;"
        "ALTER ROLE {application} SET log_parameter_max_length = 64",
        None,
        "SET LOCAL log_statement = 'all'; ALTER ROLE ALL SET log_statement = 'all';"
        "ALTER ROLE {application} SET log_statement = 'ddl'",
        "the role's own comes last",
    ),
    Plant(
        "log-parameters-on-error",
        "SET LOCAL log_parameter_max_length_on_error = -1",
        None,
        "SET LOCAL log_error_verbosity = verbose",
    ),
    Plant(
        "log-plans",
        "ALTER ROLE {application} SET auto_explain.log_min_duration = 250",
        None,
        "ALTER ROLE {application} SET auto_explain.log_min_duration = -1",
    ),
)

plants = pytest.mark.parametrize("plant", PLANTS, ids=str)


@plants
def test_a_planted_fault_is_found(world: World, plant: Plant | Versions) -> None:
    plant.is_found(world)


@plants
def test_what_only_looks_like_it_is_not_found(world: World, plant: Plant | Versions) -> None:
    plant.is_not_found(world)


def test_the_owner_sees_the_servers_settings(world: World) -> None:
    """What the log shows is no secret of superusers: nothing is taken for off that is hidden."""
    script = "SET LOCAL log_statement = 'all'; SET LOCAL ROLE {owner}"
    with planted(world, script) as subject:
        result = examine(subject, [RULE["log-parameters"]])
    assert [each.code for each in result.findings] == ["log-parameters"]


def test_the_servers_own_version_is_judged(world: World, server_version: int) -> None:
    with planted(world, "") as subject:
        assert subject.version == server_version
        assert set(examine(subject, server.RULES).looked) == {rule.id for rule in server.RULES}
