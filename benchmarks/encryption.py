"""What encrypted columns cost: a value, a list, a search, a tenant's keys, and room on disk.

Run: python benchmarks/encryption.py [values|lists|search|keys|sizes …]
Needs: pip install 'tenantguard[bench]'; 1.5 GB in the temporary directory for the search.

Without a name all parts run, in about two minutes.
"""

from __future__ import annotations

import sys

import encryption_keys
import encryption_lists
import encryption_search
import encryption_sizes
import encryption_values
from bench import machine

PARTS = {
    "values": encryption_values.main,
    "lists": encryption_lists.main,
    "search": encryption_search.main,
    "keys": encryption_keys.main,
    "sizes": encryption_sizes.main,
}


def main() -> None:
    names = sys.argv[1:] or list(PARTS)
    unknown = set(names) - set(PARTS)
    if unknown:
        sys.exit(f"There is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}.")
    machine("tink", "sealed-fields", "sqlalchemy-utils", "pydantic-encryption", "fieldseal")
    for name in names:
        PARTS[name]()


if __name__ == "__main__":
    main()
