"""What `import tenantguard` loads, and that no switch turns a lock off."""

from __future__ import annotations

import inspect
import subprocess
import sys

from tenantguard import TenantGuard


def test_import_loads_no_framework_and_no_tink() -> None:
    """A fresh interpreter that imports tenantguard has none of the optional packages."""
    script = (
        "import sys, tenantguard\n"
        "print([n for n in ('flask','starlette','alembic','tink','psycopg') if n in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_import_needs_no_greenlet() -> None:
    """SQLAlchemy 2.1 does not install it by itself; only asynchronous engines need it."""
    script = "import sys; sys.modules['greenlet'] = None; import tenantguard"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_no_public_option_takes_a_lock_away() -> None:
    """The public interface has exactly these options; none of them removes one lock alone."""
    assert set(inspect.signature(TenantGuard.protect).parameters) == {
        "self",
        "target",
        "show_parameters",
    }
    assert set(inspect.signature(TenantGuard.__init__).parameters) == {
        "self",
        "metadata",
        "tenants",
        "dialect",
        "tenant_column",
        "tenant_columns",
        "shared",
        "untenanted",
        "roles",
        "mode",
        "system_engine",
        "suspended",
        "keys",
        "signed_setting",
        "signing",
    }


def test_no_environment_variable_reaches_the_locks() -> None:
    """The library reads the environment in its commands only."""
    script = (
        "import os\n"
        "read = []\n"
        "class Spy(dict):\n"
        "    def __getitem__(s, k): read.append(k); return dict.__getitem__(s, k)\n"
        "    def get(s, k, d=None): read.append(k); return dict.get(s, k, d)\n"
        "import sqlalchemy, sqlalchemy.orm, sqlalchemy.dialects.postgresql\n"
        "os.environ = Spy(os.environ)\n"
        "import tenantguard, tenantguard.guard\n"
        "from sqlalchemy import MetaData, Table, Column, Integer\n"
        "m = MetaData(); Table('t', m, Column('id', Integer, primary_key=True))\n"
        "tenantguard.TenantGuard(m, tenants='t').catalog.check()\n"
        "print([k for k in read if 'TENANT' in k.upper()])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
