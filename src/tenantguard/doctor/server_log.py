"""Whether the server's log holds the values of statements, and so tenants' data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.doctor.subject import Look, present
from tenantguard.findings import Finding, Severity
from tenantguard.rls.session import rolled_back

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tenantguard.doctor.subject import Subject

__all__ = ["judge", "look_at_server_log"]

_QUESTION = """
    SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN ('log_statement',
        'log_min_duration_statement', 'log_min_duration_sample', 'log_statement_sample_rate',
        'log_transaction_sample_rate', 'log_parameter_max_length',
        'log_parameter_max_length_on_error', 'auto_explain.log_min_duration',
        'auto_explain.log_parameter_max_length')"""

_OFF = "-1"
_RELOAD = "SELECT pg_reload_conf();"


def look_at_server_log(subject: Subject) -> Look:
    """Find settings under which values are logged, as the application's sessions have them."""
    with subject.application_connection() as connection, rolled_back(connection) as run:
        settings = {str(name): str(value) for name, value in run(_QUESTION)}
    # psycopg2 writes the values into the statement; the other drivers send them beside it.
    inline = present(subject.application).dialect.driver == "psycopg2"
    return judge(settings, inline=inline)


def judge(settings: Mapping[str, str], *, inline: bool) -> Look:
    """Return what *settings* let into the log; *inline*: if values stand in the statements."""
    findings = [*_statements(settings, inline=inline), *_errors(settings), *_plans(settings)]
    return Look("values in the log" if findings else "no values in the log", findings)


def _statements(settings: Mapping[str, str], *, inline: bool) -> Iterator[Finding]:
    why = _logs_statements(settings)
    if why is None or not (inline or settings["log_parameter_max_length"] != "0"):
        return
    mend = f"ALTER SYSTEM SET log_parameter_max_length = 0; {_RELOAD}"
    if inline:
        mend = (
            f"ALTER SYSTEM RESET {why}; {_RELOAD} psycopg2 writes values into the statement; with "
            "postgresql+psycopg, log_parameter_max_length = 0 is enough."
        )
    yield _finding("log-parameters", f"{why} logs statements with their values.", mend)


def _logs_statements(settings: Mapping[str, str]) -> str | None:
    if settings["log_statement"] in {"mod", "all"}:
        return "log_statement"
    if settings["log_min_duration_statement"] != _OFF:
        return "log_min_duration_statement"
    sampled = float(settings["log_statement_sample_rate"]) > 0
    if settings["log_min_duration_sample"] != _OFF and sampled:
        return "log_min_duration_sample"
    if float(settings["log_transaction_sample_rate"]) > 0:
        return "log_transaction_sample_rate"
    return None


def _errors(settings: Mapping[str, str]) -> Iterator[Finding]:
    name = "log_parameter_max_length_on_error"
    if settings[name] != "0":
        yield _finding(
            "log-parameters-on-error",
            f"{name} logs the values of statements that fail.",
            f"ALTER SYSTEM SET {name} = 0; {_RELOAD}",
        )


def _plans(settings: Mapping[str, str]) -> Iterator[Finding]:
    if settings.get("auto_explain.log_min_duration", _OFF) != _OFF:
        yield _finding(
            "log-plans",
            "auto_explain logs plans, with the values they filter by.",
            f"ALTER SYSTEM SET auto_explain.log_min_duration = -1; {_RELOAD}",
        )


def _finding(code: str, message: str, mend: str) -> Finding:
    whole = f"{message} The server's log then holds tenants' data, without any lock."
    return Finding(code, None, whole, mend, Severity.WARNING)
