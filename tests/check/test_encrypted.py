"""What encrypted columns need is found missing or changed by an administrator, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from locks import World
from planting import Plant, planted

from tenantguard.check import encrypted, examine, server
from tenantguard.rls.kept import keeper

if TYPE_CHECKING:
    from vault import Vault

KEYS = "public.tenantguard_keys"
PATIENTS = "public.patients"
DROP_CHECK = (
    "DO $$ DECLARE name name; BEGIN FOR name IN SELECT conname FROM pg_constraint "
    "WHERE conrelid = 'patients'::regclass AND contype = 'c' "
    "AND pg_get_constraintdef(oid) LIKE '%{column},%' "
    "LOOP EXECUTE format('ALTER TABLE patients DROP CONSTRAINT %I', name); END LOOP; END $$; "
)
TRIGGER = keeper("visits", "reason")
NOT_VALID = (
    "UPDATE pg_constraint SET convalidated = false "
    "WHERE conrelid = '{table}'::regclass AND contype = 'c' AND conname LIKE '%{end}'"
)

FOR_SOME = (
    f"CREATE OR REPLACE TRIGGER {TRIGGER} BEFORE INSERT OR UPDATE OF reason ON visits "
    f"FOR EACH ROW EXECUTE FUNCTION {TRIGGER}()"
)
CONDITIONAL = (
    f"CREATE OR REPLACE TRIGGER {TRIGGER} BEFORE INSERT OR UPDATE ON visits "
    f"FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION {TRIGGER}()"
)
OTHER_BODY = (
    f"CREATE OR REPLACE FUNCTION {TRIGGER}() RETURNS trigger LANGUAGE plpgsql "
    "SET search_path = pg_catalog AS 'BEGIN RETURN NEW; END'"
)

PLANTS = (
    Plant(
        "key-table-changed",
        "ALTER TABLE tenantguard_keys DROP check_value",
        KEYS,
        "ALTER TABLE tenantguard_keys ADD remark text",
        "column",
    ),
    Plant(
        "key-table-changed",
        "ALTER TABLE tenantguard_keys DROP CONSTRAINT tenantguard_keys_pkey",
        KEYS,
        "ALTER TABLE tenantguard_keys RENAME CONSTRAINT tenantguard_keys_pkey TO first",
        "primary key",
    ),
    Plant(
        "search-column-missing",
        "ALTER TABLE patients DROP name_bidx",
        PATIENTS,
        "ALTER TABLE patients DROP city",
        column="name_bidx",
    ),
    Plant(
        "search-column-changed",
        "ALTER TABLE patients ALTER name_bidx DROP EXPRESSION",
        PATIENTS,
        "ALTER TABLE patients ALTER city SET DEFAULT 'Ulm'",
        "plain",
        "name_bidx",
    ),
    Plant(
        "search-column-changed",
        "ALTER TABLE patients DROP name_bidx; "
        "ALTER TABLE patients ADD name_bidx bytea "
        "GENERATED ALWAYS AS (substring(phone, 5, 16)) STORED",
        PATIENTS,
        "ALTER TABLE patients ADD more bytea GENERATED ALWAYS AS (substring(phone, 5, 16)) STORED",
        "of another column",
        "name_bidx",
    ),
    Plant(
        "format-check-missing",
        DROP_CHECK.replace("{column}", "notes"),
        PATIENTS,
        "ALTER TABLE patients ADD CHECK (length(city) < 100)",
        "dropped",
        "notes",
    ),
    Plant(
        "format-check-missing",
        NOT_VALID.replace("{table}", "visits").replace("{end}", "sealed"),
        "public.visits",
        "ALTER TABLE visits ADD CHECK (id > 0) NOT VALID",
        "not validated",
        "reason",
    ),
    Plant(
        "format-check-missing",
        NOT_VALID.replace("{table}", "visits").replace("{end}", "kept"),
        "public.visits",
        "ALTER TABLE visits ADD CHECK (reason_bidx IS NOT NULL) NOT VALID",
        "of a search column",
        "reason_bidx",
    ),
    Plant(
        "search-column-changed",
        "ALTER TABLE visits DROP reason_bidx; "
        "ALTER TABLE visits ADD reason_bidx bytea "
        "GENERATED ALWAYS AS (substring(reason, 5, 16)) STORED",
        "public.visits",
        "ALTER TABLE visits ALTER reason_bidx SET STATISTICS 0",
        "generated",
        "reason_bidx",
    ),
    *(
        Plant("search-trigger-changed", fault, "public.visits", fine, label, "reason")
        for label, fault, fine in (
            (
                "dropped",
                f"DROP TRIGGER {TRIGGER} ON visits",
                "ALTER TABLE visits DISABLE TRIGGER USER; ALTER TABLE visits ENABLE TRIGGER USER",
            ),
            (
                "disabled",
                f"ALTER TABLE visits DISABLE TRIGGER {TRIGGER}",
                f"ALTER TABLE visits ENABLE ALWAYS TRIGGER {TRIGGER}",
            ),
            ("of some writes", FOR_SOME, FOR_SOME.replace(TRIGGER, "other", 1)),
            ("conditional", CONDITIONAL, CONDITIONAL.replace(TRIGGER, "other", 1)),
            (
                "does something else",
                OTHER_BODY,
                f"ALTER FUNCTION {TRIGGER}() COST 10",
            ),
            (
                "of the caller's path",
                f"ALTER FUNCTION {TRIGGER}() RESET search_path",
                f"COMMENT ON FUNCTION {TRIGGER}() IS 'mine'",
            ),
            (
                "of the application's",
                f'ALTER FUNCTION {TRIGGER}() OWNER TO "{{application}}"',
                f"ALTER FUNCTION {TRIGGER}() OWNER TO CURRENT_USER",
            ),
        )
    ),
)

plants = pytest.mark.parametrize("plant", PLANTS, ids=str)


@pytest.fixture
def sealed(vault: Vault) -> World:
    return World(vault.admin, vault.guard, vault.app_url)


@plants
def test_a_planted_fault_is_found(sealed: World, plant: Plant) -> None:
    plant.is_found(sealed)


@plants
def test_what_only_looks_like_it_is_not_found(sealed: World, plant: Plant) -> None:
    plant.is_not_found(sealed)


def test_encrypted_columns_as_generated_are_clean(sealed: World) -> None:
    with planted(sealed, "") as subject:
        result = examine(subject, encrypted.RULES)
    assert result.unseen == ()
    assert result.findings == ()
    assert set(result.looked) == {each.rule for each in PLANTS}


def test_the_generated_database_has_no_finding(sealed: World) -> None:
    """With encrypted columns, too, `rls apply` leaves nothing that the check asks for."""
    with planted(sealed, "") as subject:
        result = examine(subject)
    assert result.unseen == ()
    assert {each.code for each in result.findings} <= {each.id for each in server.RULES}
