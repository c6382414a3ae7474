"""Whatever threads, tasks and lost connections do, no row crosses and none is lost."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from bouncer import pgbouncer
from crews import Crew, crews, judge, run
from disturbing import Disturber
from drivers import DRIVERS
from entries import TENANTS, Site
from ledger import Outcome
from sqlalchemy import text
from watch import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ledger import History
    from sqlalchemy import URL, Engine

# The drivers warn of cursors and sockets that were open when a connection was lost.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TRANSACTIONS = 2500  # with each of the four drivers
SEED = "ci"
_FEW = 200
ALONE = Crew(0, "psycopg", pool_size=1, workers=1)
"""Nobody else: its history is the same each time."""

_driver = pytest.mark.parametrize("of", DRIVERS)


@pytest.fixture
def site(new_database: Callable[[], URL]) -> Iterator[Site]:
    built = Site.build(new_database())
    yield built
    built.dispose()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Without the pool's and psycopg's words for each connection that they find closed."""
    loggers = [logging.getLogger(name) for name in ("sqlalchemy.pool", "psycopg")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


def assert_holds(site: Site, driver: str) -> None:
    members = crews((driver,))
    histories = run(site, members, transactions=TRANSACTIONS, seed=SEED, disturber=Disturber(site))
    assert judge(site, histories) == [], f"seed {SEED}"
    assert sum(len(history) for history in histories) >= TRANSACTIONS
    for crew in members:
        assert committed_by(histories, crew.last()) == set(map(str, TENANTS))


def committed_by(histories: list[History], worker: int) -> set[str | None]:
    return {
        transaction.tenant
        for history in histories
        for transaction in history
        if transaction.worker == worker and transaction.outcome is Outcome.COMMITTED
    }


@_driver
def test_no_row_crosses_and_none_is_lost(site: Site, of: str) -> None:
    """Every row read or written is the transaction's tenant's; what was committed is there."""
    assert_holds(site, of)


@pytest.mark.pgbouncer
@_driver
def test_no_row_crosses_behind_pgbouncer(site: Site, of: str) -> None:
    """The same where each transaction may run on a connection that another tenant has used."""
    with pgbouncer(site) as site.pooler:
        assert_holds(site, of)


def test_nobody_disturbed_means_no_unknown_outcome(site: Site) -> None:
    """One worker alone: each transaction commits or is rolled back as its program says."""
    histories = run(site, [ALONE], transactions=_FEW, seed=SEED, disturber=None)
    assert judge(site, histories) == []
    outcomes = {transaction.outcome for transaction in histories[0]}
    assert outcomes == {Outcome.COMMITTED, Outcome.ROLLED_BACK}


def without_the_scrub(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tenantguard.binding.state._SCRUB", ("SELECT 1",))


def with_one_tenant_for_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tenantguard.binding.state.sql_literal", lambda _: f"'{TENANTS[0]}'")


IMPATIENT = Patience(connection=0.2, crew=1.5)


def with_the_connection_kept(patch: pytest.MonkeyPatch) -> None:
    """Let somebody keep the pool's only connection."""
    kept = []

    def protect(site: Site, engine: Engine) -> None:
        site.guard.protect(engine)
        kept.append(engine.raw_connection())

    patch.setattr(Site, "protect", protect)


def with_no_answer(patch: pytest.MonkeyPatch) -> None:
    """Let the server never answer."""
    query = text("SELECT pg_sleep(600)")
    patch.setattr("threads.perform", lambda target, _: target.execute(query))


STALLED = {"no connection": with_the_connection_kept, "no answer": with_no_answer}


@pytest.mark.parametrize("stalled", STALLED)
def test_who_waits_for_ever_is_sent_home(
    site: Site, stalled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crew that stands still ends the run, which tells what each thread was doing."""
    STALLED[stalled](monkeypatch)
    histories = run(
        site, [ALONE], transactions=_FEW, seed=SEED, disturber=Disturber(site), patience=IMPATIENT
    )
    [finding] = judge(site, histories)
    assert finding.kind == "stalled"
    assert "thread worker 0: " in finding.text


def test_a_connection_that_nobody_gives_back_is_found(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another connection is left to work with."""
    with_the_connection_kept(monkeypatch)
    pair = Crew(0, "psycopg", pool_size=2, workers=1)
    histories = run(
        site,
        [pair],
        transactions=20,
        seed=SEED,
        disturber=None,
        patience=Patience(connection=0.2, crew=8),
    )
    assert {finding.kind for finding in judge(site, histories)} == {"leaked"}


BROKEN = {
    "without the scrub": (without_the_scrub, {"leftover", "crossing"}),
    "with one tenant for all": (with_one_tenant_for_all, {"crossing"}),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_the_checker_finds_a_broken_binding(
    site: Site, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first lock alone does not hold text and driver cursors, and the checker sees it."""
    breaking, expected = BROKEN[broken]
    breaking(monkeypatch)
    histories = run(site, [ALONE], transactions=_FEW, seed=SEED, disturber=None)
    assert expected <= {finding.kind for finding in judge(site, histories)}
