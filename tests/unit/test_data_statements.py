"""Migrations whose data statements do not say for whom they are, found in the scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tenantguard.errors import ConfigurationError
from tenantguard.migrate.data_statements import DataStatement, data_statements

if TYPE_CHECKING:
    from pathlib import Path

_SCRIPT = """\
from alembic import op
import sqlalchemy as sa

QUERY = "UPDATE orders SET total = 0"
orders = sa.table("orders", sa.column("total"))


def other():
    op.execute("DELETE FROM orders")


def upgrade():
    bind = op.get_bind()
{body}


def downgrade():
    op.execute("UPDATE orders SET total = 1")
"""
_LINE = 14

FOUND = {
    "update": ("op.execute('UPDATE orders SET total = 0')", "UPDATE", "orders"),
    "lower case": ("op.execute('  update only \"Or ders\" set x = 1')", "UPDATE", "Or ders"),
    "schema": ("op.execute('DELETE FROM \"a\".b')", "DELETE", "a.b"),
    "text": ("op.execute(sa.text('INSERT INTO orders VALUES (1)'))", "INSERT", "orders"),
    "merge": ("bind.execute(sa.text('MERGE INTO orders USING x ON true'))", "MERGE", "orders"),
    "with": ("op.execute('WITH x AS (SELECT 1) UPDATE orders SET a = 1')", "UPDATE", "orders"),
    "in with": ("op.execute('WITH x AS (DELETE FROM orders) SELECT 1')", "DELETE", "orders"),
    "second": ("op.execute('SELECT 1; UPDATE orders SET a = 1')", "UPDATE", "orders"),
    "comment": ("op.execute('-- why\\nUPDATE orders SET a = 1')", "UPDATE", "orders"),
    "block": ("op.execute('DO $$ BEGIN UPDATE orders SET a = 1; END $$')", "UPDATE", "orders"),
    "f-string": ("op.execute(f'UPDATE {QUERY} SET a = 1')", "UPDATE", None),
    "put together": ("op.execute('UPDATE orders ' + QUERY)", "UPDATE", "orders"),
    "format": ("op.execute('UPDATE orders SET a = {}'.format(1))", "UPDATE", "orders"),
    "name": ("op.execute(QUERY)", "UPDATE", "orders"),
    "loop": ("[op.execute(each) for each in ('SELECT 1', QUERY)]", "UPDATE", "orders"),
    "construct": ("op.execute(orders.update().values(total=0))", "UPDATE", "orders"),
    "function": ("bind.execute(sa.delete(orders))", "DELETE", "orders"),
    "bulk": ("op.bulk_insert(orders, [])", "INSERT", "orders"),
    "driver": ("op.get_bind().exec_driver_sql(QUERY)", "UPDATE", "orders"),
    "session": ("session.add(orders)", "INSERT", "orders"),
}

NOT_FOUND = {
    "select": "op.execute('SELECT * FROM orders FOR UPDATE')",
    "ddl": "op.execute('ALTER TABLE orders ADD FOREIGN KEY (a) REFERENCES b ON UPDATE CASCADE')",
    "grant": "op.execute('GRANT INSERT, UPDATE ON orders TO x')",
    "trigger": "op.execute('CREATE TRIGGER t BEFORE UPDATE ON orders EXECUTE FUNCTION f()')",
    "function": "op.execute('CREATE FUNCTION f() AS $$ BEGIN UPDATE orders SET a = 1; END $$')",
    "literal": "op.execute(\"COMMENT ON TABLE orders IS '; UPDATE orders SET a = 1'\")",
    "comment": "op.execute('/* UPDATE orders SET a = 1 */ SELECT 1')",
    "for each": "op.for_each_tenant(QUERY, registry='practices')",
    "maintenance": "with op.as_maintenance('m', reason='r'): op.execute(QUERY)",
    "lifted": "with op.without_force('orders', reason='r'): op.execute(QUERY)",
    "dictionary": "{}.update(a=QUERY)",
    "set": "set().add(QUERY)",
    "own list": "op.execute(str(1))",
}


def _found(directory: Path, body: str) -> list[DataStatement]:
    (directory / "0001_first.py").write_text(_SCRIPT.format(body=f"    {body}"))
    return data_statements(directory)


@pytest.mark.parametrize(("body", "kind", "table"), FOUND.values(), ids=FOUND)
def test_a_data_statement_is_found(tmp_path: Path, body: str, kind: str, table: str | None) -> None:
    """With its script, its line, what it does and, where the script says it, its table."""
    [found] = _found(tmp_path, body)
    assert (found.path, found.line) == (tmp_path / "0001_first.py", _LINE)
    assert found.what.endswith(f"({kind} …)")
    assert found.table == table


@pytest.mark.parametrize("body", NOT_FOUND.values(), ids=NOT_FOUND)
def test_what_changes_no_rows_for_nobody_is_not_found(tmp_path: Path, body: str) -> None:
    """Definitions, questions, and what says for whom it is."""
    assert _found(tmp_path, body) == []


def test_a_function_that_upgrade_calls_is_read(tmp_path: Path) -> None:
    """And one that it does not call, is not; neither is `downgrade()`."""
    assert [each.line for each in _found(tmp_path, "other()")] == [9]


def test_no_statement_is_in_what_is_said(tmp_path: Path) -> None:
    """A statement may hold values, so its text is left out."""
    [found] = _found(tmp_path, "bind.execute(sa.text(\"UPDATE orders SET name = 'Müller'\"))")
    assert found.what == "bind.execute(UPDATE …)"


def test_scripts_below_are_read_in_order(tmp_path: Path) -> None:
    """Alembic reads directories below the versions' too."""
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        _found(tmp_path / name, "op.execute(QUERY)")
    assert [each.path.parent.name for each in data_statements(tmp_path)] == ["a", "b"]


def test_what_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    """A directory that is none and a script that is no Python are errors that say what to do."""
    with pytest.raises(ConfigurationError, match="is no directory"):
        data_statements(tmp_path / "missing")
    (tmp_path / "0001.py").write_text("def upgrade(:")
    with pytest.raises(ConfigurationError, match="cannot be read as Python"):
        data_statements(tmp_path)
