"""Writing a report in the form that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tenantguard.errors import ConfigurationError
from tenantguard.report.as_github import github_text
from tenantguard.report.as_gitlab import gitlab_text
from tenantguard.report.as_json import json_text
from tenantguard.report.as_junit import junit_text
from tenantguard.report.as_markdown import markdown_text
from tenantguard.report.as_sarif import sarif_text
from tenantguard.report.as_text import text_lines, write_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tenantguard.report.report import Report

__all__ = ["FORMATS", "rendered", "write", "write_file"]


def _plain(report: Report) -> str:
    return "".join(f"{line}\n" for line, _ in text_lines(report))


_FORMS: dict[str, Callable[[Report], str]] = {
    "text": _plain,
    "json": json_text,
    "sarif": sarif_text,
    "github": github_text,
    "gitlab": gitlab_text,
    "junit": junit_text,
    "markdown": markdown_text,
}

FORMATS = tuple(_FORMS)
"""What `--format` takes."""


def rendered(report: Report, output: str) -> str:
    """Return *report* in the form *output*, one of `FORMATS`, without colour."""
    return _FORMS[output](report)


def write(report: Report, output: str = "text", *, to: Path | None = None) -> None:
    """Write *report* to stdout, or to the file *to*; then stdout has it as text.

    Raises:
        ConfigurationError: If the file cannot be written.
    """
    if to is not None:
        write_file(to, rendered(report, output))
    if to is not None or output == "text":
        write_text(report)
    else:
        click.echo(rendered(report, output), nl=False)


def write_file(path: Path, text: str) -> None:
    """Write *text* to *path*.

    Raises:
        ConfigurationError: If it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written ({error.strerror}). Choose another file."
        ) from None
