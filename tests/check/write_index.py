"""Write the page that lists all rules: `python tests/check/write_index.py`."""

from __future__ import annotations

from pathlib import Path

import tenantguard.check
from tenantguard.cli.explain import index

INDEX = Path(tenantguard.check.__file__).parent / "pages" / "index.md"

if __name__ == "__main__":
    INDEX.write_text(index(), encoding="utf-8")
