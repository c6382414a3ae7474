"""`tenantguard rls diff`: a weakened script is called weaker, whoever wrote the change and how."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from practice import Base, make_guard
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table
from vault import make_guard as make_vault

from tenantguard import Roles, TenantGuard
from tenantguard.cli import main
from tenantguard.crypto.keyfile import make_key_file
from tenantguard.report.script_changes import Verdict, changes
from tenantguard.report.script_facts import facts_of
from tenantguard.report.script_text import statements
from tenantguard.rls import files, sql

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GUARD = make_guard(Roles())
SCRIPT = sql(GUARD.catalog, GUARD.roles, create_roles=True)
T = '"public"."patients"'
SETTING = "nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID"
OWN = f'"tenant_id" = (SELECT {SETTING})'
APP = '"tenantguard_app"'


def replaced(old: str, new: str, script: str = SCRIPT) -> str:
    """The script with the first *old* replaced, which must be there."""
    assert old in script
    return script.replace(old, new, 1)


def at_patients(old: str, new: str) -> str:
    """The script with *old* replaced in what protects the patients."""
    head, mark, tail = SCRIPT.partition("-- public.patients: protection\n")
    assert mark
    return head + mark + replaced(old, new, tail)


def appended(statement: str) -> str:
    return f"{SCRIPT}{statement};\n"


def verdicts(base: str, head: str) -> set[tuple[str, str | None]]:
    found = changes(facts_of(base), facts_of(head))
    return {(each.verdict.value, each.object) for each in found}


def test_the_generators_script_is_understood() -> None:
    """Every statement, so that a change of any is judged by what it does."""
    facts = facts_of(SCRIPT)
    assert not facts.unread
    assert len(facts.known) > 100
    assert verdicts(SCRIPT, SCRIPT) == set()


def test_encryption_is_understood_but_for_the_keys_table(tmp_path: Path) -> None:
    """The table of keys is made in one way; whatever else it says has to be read."""
    make_key_file(tmp_path / "key.json", environment="test")
    guard = make_vault(Roles(), tmp_path / "key.json")
    unread = facts_of(sql(guard.catalog, guard.roles)).unread
    assert {title for title, _ in unread} == {"public.tenantguard_keys"}


def test_a_directory_makes_what_the_script_makes(tmp_path: Path) -> None:
    for name, text in files(GUARD.catalog, GUARD.roles, create_roles=True).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path.parent / "script.sql").write_text(SCRIPT, encoding="utf-8")
    result = diff(str(tmp_path.parent / "script.sql"), str(tmp_path))
    assert (result.exit_code, result.output) == (0, "Nothing changed.\n")


FLOOR = f"""\
CREATE POLICY "tenantguard_application_floor" ON {T} AS RESTRICTIVE FOR ALL
    TO {APP}
    USING ({OWN})
    WITH CHECK ({OWN});
"""
GRANT = f"GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE {T} TO {APP};\n"
REVOKED = f"REVOKE ALL ON TABLE {T} FROM PUBLIC, "
WEAKER: dict[str, Callable[[], str]] = {
    "floor dropped": lambda: at_patients(FLOOR, ""),
    "floor made permissive": lambda: at_patients(FLOOR, FLOOR.replace("RESTRICTIVE", "PERMISSIVE")),
    "floor of another role": lambda: at_patients(FLOOR, FLOOR.replace(APP, '"somebody"')),
    "everything shown": lambda: at_patients(f"USING ({OWN})", "USING (true)"),
    "everything written": lambda: at_patients(f"WITH CHECK ({OWN})", "WITH CHECK (true)"),
    "another column": lambda: at_patients(f"USING ({OWN})", f'USING ("id"{OWN[11:]})'),
    "another setting": lambda: at_patients("tenantguard.tenant", "app.tenant"),
    "another type": lambda: at_patients(f"USING ({OWN})", f"USING ({OWN.replace('UUID', 'TEXT')})"),
    "or": lambda: at_patients(f"USING ({OWN})", f"USING ({OWN} OR true)"),
    "a function": lambda: at_patients(SETTING, '"public"."my_tenant"()'),
    "one more policy": lambda: at_patients(
        FLOOR, FLOOR + FLOOR.replace("RESTRICTIVE", "PERMISSIVE").replace("_floor", "_more")
    ),
    "policy dropped later": lambda: appended(
        f'DROP POLICY IF EXISTS "tenantguard_application_floor" ON {T}'
    ),
    "not enabled": lambda: at_patients(f"ALTER TABLE {T} ENABLE ROW LEVEL SECURITY;\n", ""),
    "not forced": lambda: at_patients(f"ALTER TABLE {T} FORCE ROW LEVEL SECURITY;\n", ""),
    "force in a comment": lambda: at_patients(
        f"ALTER TABLE {T} FORCE ROW", f"-- ALTER TABLE {T} FORCE ROW"
    ),
    "force in a block comment": lambda: at_patients(
        f"ALTER TABLE {T} FORCE ROW LEVEL SECURITY;\n",
        f"/* ; ALTER TABLE {T} FORCE ROW LEVEL SECURITY;\n; */\n",
    ),
    "disabled later": lambda: appended(f"ALTER TABLE {T} DISABLE ROW LEVEL SECURITY"),
    "unforced later": lambda: appended(f"ALTER TABLE {T} NO FORCE ROW LEVEL SECURITY"),
    "unforced on the way": lambda: replaced(
        f'ALTER TABLE {T} ALTER COLUMN "tenant_id" SET DEFAULT {SETTING};',
        f'ALTER TABLE {T} ALTER COLUMN "tenant_id" SET DEFAULT {SETTING}, '
        "NO FORCE ROW LEVEL SECURITY;",
    ),
    "more privileges": lambda: at_patients(GRANT, GRANT.replace("DELETE", "DELETE, TRUNCATE")),
    "for everybody": lambda: at_patients(GRANT, GRANT + GRANT.replace(APP, "PUBLIC")),
    "with grant option": lambda: at_patients(GRANT, GRANT.replace(";", " WITH GRANT OPTION;")),
    "not revoked": lambda: at_patients(REVOKED, REVOKED.replace("PUBLIC, ", "")),
    "revoked too late": lambda: appended(f"REVOKE ALL ON TABLE {T} FROM PUBLIC"),
    "no key with the tenant": lambda: replaced(
        SCRIPT[SCRIPT.index("-- public.orders: keys") : SCRIPT.index("-- public.patients: keys")],
        "",
    ),
    "key not validated": lambda: replaced(
        'VALIDATE CONSTRAINT "tg_orders_tenant_id_patient_id_fkey_106897cd"',
        'VALIDATE CONSTRAINT "other"',
    ),
    "tenant may be missing": lambda: replaced(
        f'ALTER TABLE {T} ALTER COLUMN "tenant_id" SET NOT NULL;\n', ""
    ),
    "hidden rows": lambda: replaced("SET LOCAL row_security = off;\n", ""),
    "a role that sees all": lambda: replaced(
        '"tenantguard_app" LOGIN', '"tenantguard_app" LOGIN BYPASSRLS'
    ),
    "a superuser": lambda: replaced('"tenantguard_app" LOGIN', '"tenantguard_app" LOGIN SUPERUSER'),
    "login of maintenance": lambda: replaced(
        '"tenantguard_maintenance" NOLOGIN', '"tenantguard_maintenance" LOGIN'
    ),
    "membership": lambda: appended(f'GRANT "tenantguard_maintenance" TO {APP}'),
    "schema": lambda: replaced(
        'REVOKE CREATE ON SCHEMA "public" FROM PUBLIC, ', 'REVOKE CREATE ON SCHEMA "public" FROM '
    ),
    "function for everybody": lambda: replaced(
        "GRANT EXECUTE ON FUNCTION", "GRANT EXECUTE ON FUNCTION"
    ).replace(f") TO {APP};", ") TO PUBLIC;"),
    "function with another body": lambda: replaced("= $1'", "= $1 OR true'"),
    "function of another owner": lambda: SCRIPT.replace(
        'OWNER TO "tenantguard_maintenance"', 'OWNER TO "postgres"'
    ).replace(
        'TO "tenantguard_maintenance";\n    END IF;\n    ALTER FUNCTION',
        'TO "postgres";\n    END IF;\n    ALTER FUNCTION',
    ),
    "table left out": lambda: (
        SCRIPT[: SCRIPT.index("-- public.patients: protection")]
        + SCRIPT[SCRIPT.index("-- public.practices: protection") :]
    ),
    "a command of psql": lambda: f"{SCRIPT}\\ir other.sql\n",
    "what nobody understands": lambda: appended("SELECT do_something()"),
    "an open transaction": lambda: SCRIPT.removesuffix("COMMIT;\n\n"),
    "nothing": lambda: "",
}


@pytest.mark.parametrize("name", list(WEAKER))
def test_what_weakens_is_weaker(name: str) -> None:
    """Also where it is not understood: that counts as weaker."""
    head = WEAKER[name]()
    assert head != SCRIPT
    assert "weaker" in {verdict for verdict, _ in verdicts(SCRIPT, head)}


REVERSED = [
    *("floor dropped", "floor made permissive", "everything shown", "everything written"),
    *("not enabled", "not forced", "more privileges", "for everybody", "not revoked"),
    *("tenant may be missing", "hidden rows", "a role that sees all", "login of maintenance"),
    *("force in a comment", "schema"),
]


@pytest.mark.parametrize("name", REVERSED)
def test_taking_it_back_is_safer(name: str) -> None:
    """And nothing about it is weaker."""
    found = {verdict for verdict, _ in verdicts(WEAKER[name](), SCRIPT)}
    assert found == {"safer"}


@pytest.mark.parametrize(
    "head",
    [
        SCRIPT.replace("lock_timeout = '3s'", "lock_timeout = '500ms'"),
        f"-- a remark; with a semicolon\n{SCRIPT}",
        SCRIPT.replace("generated by tenantguard, ", "generated by tenantguard, 0"),
    ],
    ids=["lock timeout", "remark", "mark"],
)
def test_what_changes_nothing_is_no_change(head: str) -> None:
    assert head != SCRIPT
    assert verdicts(SCRIPT, head) == set()


def test_what_does_not_matter_to_isolation_is_the_same() -> None:
    index = 'CREATE INDEX "tg_users_tenant_id_idx_5235c806" ON "public"."users" ("tenant_id");\n'
    assert verdicts(SCRIPT, replaced(index, "")) == {("same", "public.users")}
    cascade = replaced(" ON DELETE CASCADE NOT VALID", " NOT VALID")
    assert verdicts(SCRIPT, cascade) == {("same", "public.orders")}


def application(*more: Callable[[MetaData], Any], **options: Any) -> str:
    """The script of an application whose tables *more* adds to."""
    metadata = MetaData()
    Table("tenants", metadata, Column("id", Integer, primary_key=True))
    owned("rows")(metadata)
    Table("prices", metadata, Column("id", Integer, primary_key=True))
    for each in more:
        each(metadata)
    shared = {"prices": "for all", **options.pop("shared", {})}
    guard = TenantGuard(metadata, tenants="tenants", shared=shared, **options)
    return sql(guard.catalog, guard.roles)


def owned(name: str) -> Callable[[MetaData], Any]:
    return lambda metadata: Table(
        name,
        metadata,
        Column("id", Integer, primary_key=True),
        Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
    )


def free(name: str) -> Callable[[MetaData], Any]:
    return lambda metadata: Table(name, metadata, Column("id", Integer, primary_key=True))


def test_a_new_table_that_is_held_as_the_others_is_the_same() -> None:
    assert verdicts(application(), application(owned("more"))) == {("same", "public.more")}


def test_a_new_table_that_the_application_reaches_as_it_is_weaker() -> None:
    """A table for all tenants may hold rows of one: somebody has to look."""
    head = application(free("more"), shared={"more": "for all"})
    assert verdicts(application(), head) == {("weaker", "public.more")}


def test_a_new_table_without_its_switch_is_weaker() -> None:
    head = application(owned("more"))
    for word in ("ENABLE", "FORCE"):
        line = f'ALTER TABLE "public"."more" {word} ROW LEVEL SECURITY;\n'
        assert verdicts(application(), replaced(line, "", head)) == {("weaker", "public.more")}


def test_a_table_that_is_gone_is_weaker() -> None:
    """Its policies stay in the database until somebody makes the table anew, without them."""
    assert verdicts(application(owned("more")), application()) == {("weaker", "public.more")}


def test_a_new_lookup_is_weaker() -> None:
    """It runs with another's rights, and past the policies: somebody has to read it."""
    guard = TenantGuard(
        Base.metadata,
        tenants="practices",
        shared=GUARD.catalog.shared,
        untenanted=GUARD.catalog.untenanted,
    )
    [found] = verdicts(sql(guard.catalog, guard.roles, create_roles=True), SCRIPT)
    assert found[0] == "weaker"
    assert found[1] is not None
    assert found[1].startswith("public.tg_identity__users_by_email_")


def test_the_signed_setting_is_safer_and_its_end_weaker() -> None:
    signed = SCRIPT.replace(
        f"AS RESTRICTIVE FOR ALL\n    TO {APP}\n    USING ({OWN})\n    WITH CHECK ({OWN})",
        f"AS RESTRICTIVE FOR ALL\n    TO {APP}\n    USING (S)\n    WITH CHECK (S)".replace(
            "(S)", '("tenant_id" = (SELECT "public"."tenantguard_verified"()::UUID))'
        ),
    )
    assert signed != SCRIPT
    assert {verdict for verdict, _ in verdicts(SCRIPT, signed)} == {"safer"}
    assert {verdict for verdict, _ in verdicts(signed, SCRIPT)} == {"weaker"}


def test_what_is_not_understood_and_stays_is_no_change() -> None:
    base = appended("SELECT do_something()")
    assert verdicts(base, base) == set()
    assert verdicts(base, SCRIPT) == {("weaker", None)}
    assert verdicts(base, f"{base}SELECT do_something();\n") == {("weaker", None)}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("SELECT ';'; SELECT 2;", 2),
        ("SELECT E'\\';'; SELECT 2;", 2),
        ('SELECT ";" ; SELECT 2', 2),
        ("DO $a$ BEGIN; END $a$; SELECT 2;", 2),
        ("DO $a$ $b$; $a$; SELECT 2;", 2),
        ("-- SELECT 1;\nSELECT 2;", 1),
        ("SELECT 1 -- ;\n;", 1),
        ("/* ; */ SELECT 1; SELECT 2;", 1),
        (";;", 0),
        ("SELECT '", 1),
    ],
)
def test_statements_end_where_they_do(text: str, count: int) -> None:
    """A semicolon within a text, a name, a body or a comment ends nothing."""
    assert len(statements(text)) == count


def diff(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["rls", "diff", *arguments])


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.sql").write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "head.sql").write_text(WEAKER["not forced"](), encoding="utf-8")
    return tmp_path


@pytest.mark.usefixtures("scripts")
def test_weaker_ends_with_1_and_safer_with_0() -> None:
    weaker, safer = diff("base.sql", "head.sql"), diff("head.sql", "base.sql")
    assert (weaker.exit_code, safer.exit_code) == (1, 0)
    assert weaker.output == "weaker  public.patients: FORCE dropped\n1 weaker.\n"
    assert safer.output == "safer   public.patients: FORCE added\n1 safer.\n"


@pytest.mark.usefixtures("scripts")
def test_programs_read_json() -> None:
    result = diff("base.sql", "head.sql", "--format", "json")
    assert result.exit_code == 1
    assert json.loads(result.output) == {
        "version": 1,
        "weaker": True,
        "changes": [{"verdict": "weaker", "object": "public.patients", "what": "FORCE dropped"}],
    }


def test_a_pull_request_gets_markdown(scripts: Path) -> None:
    result = diff("base.sql", "head.sql", "--format", "markdown", "--out", "diff.md")
    assert result.exit_code == 1
    assert result.output.startswith("weaker  public.patients")
    assert (scripts / "diff.md").read_text("utf-8") == (
        "### tenantguard rls diff\n\n- **weaker** public.patients: FORCE dropped\n\n1 weaker.\n"
    )


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("name", ["none.sql", "none", "HEAD:none.sql", "--output=x:base.sql", "."])
def test_what_cannot_be_read_ends_with_2(name: str) -> None:
    result = diff("--", "base.sql", name)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_revisions_of_git_are_read(scripts: Path) -> None:
    """A file or a directory, as it is in the revision."""
    shutil.copytree(scripts, scripts / "repository")
    repository = scripts / "repository"
    (repository / "sql").mkdir()
    for name, text in files(GUARD.catalog, GUARD.roles, create_roles=True).items():
        (repository / "sql" / name).write_text(text, encoding="utf-8")
    git = shutil.which("git")
    assert git
    identity = ["-c", "user.name=a", "-c", "user.email=a@lab.example"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "x"]):
        subprocess.run([git, *command], cwd=repository, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        assert diff("HEAD:base.sql", "HEAD:sql").output == "Nothing changed.\n"
        assert diff("HEAD:sql/", "head.sql").exit_code == 1


def test_the_weaker_come_first() -> None:
    head = at_patients(f"ALTER TABLE {T} FORCE ROW LEVEL SECURITY;\n", "").replace(
        'CREATE INDEX "tg_users_tenant_id_idx_5235c806" ON "public"."users" ("tenant_id");\n', ""
    )
    found = [each.verdict for each in changes(facts_of(SCRIPT), facts_of(head))]
    assert found == [Verdict.WEAKER, Verdict.SAME]
