"""What the page of a rule says, where a report shows it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata

from tenantguard.check import page_of

__all__ = ["Page", "documentation", "page"]

_SENTENCE = re.compile(r".+?[.!?](?=\s|$)", re.DOTALL)
_MARKUP = re.compile(r"`|^#+ |\*\*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Page:
    """A rule's page: its first sentence, and all of it in Markdown and as plain text."""

    summary: str
    markdown: str

    @property
    def text(self) -> str:
        """The page without its marks."""
        return _plain(self.markdown)


def page(rule: str) -> Page | None:
    """Return the page of *rule*, None if it has none."""
    try:
        markdown = page_of(rule)
    except FileNotFoundError:
        return None
    body = re.split(r"^## .*$", markdown, maxsplit=1, flags=re.MULTILINE)[-1].strip()
    found = _SENTENCE.match(body)
    summary = found.group() if found else rule
    return Page(" ".join(_plain(summary).split()), markdown)


def documentation() -> str | None:
    """Return the address of the documentation that the installed package names, if it does."""
    try:
        urls = metadata("tenantguard").get_all("Project-URL") or []
    except PackageNotFoundError:
        return None
    named = dict(each.split(", ", 1) for each in urls)
    found = named.get("Documentation")
    return found.rstrip("/") if found else None


def _plain(markdown: str) -> str:
    return _MARKUP.sub("", markdown)
