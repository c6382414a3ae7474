#!/usr/bin/env bash
# The tests of the one file that is mutated, those that see most first. A mutant lives if they pass.
set -euo pipefail
cd "$(dirname "$0")/../.."
attacks=tests/attacks
file=$(git diff --name-only -- src | head -n 1)
case "$file" in
    "") tests=(tests/unit/test_import.py) ;;
    *binding/psycopg.py | *binding/psycopg2.py | *binding/asyncpg.py)
        driver=$(basename "$file" .py)
        tests=(
            "tests/db/test_$driver.py" tests/db/test_drivers.py tests/db/test_binding.py
            tests/db/test_autocommit.py tests/db/test_driver_streams.py tests/db/test_pools.py
        ) ;;
    *binding/*)
        tests=(
            tests/db/test_binding.py tests/db/test_autocommit.py $attacks/test_connections.py
            tests/db/test_pools.py tests/db/test_refusals.py tests/db/test_suspended.py
            tests/db/test_drivers.py $attacks/test_context_and_cache.py tests/db/test_psycopg2.py
            tests/db/test_asyncpg.py
        ) ;;
    *scoping/streams.py) tests=($attacks/test_streams.py tests/db/test_driver_streams.py) ;;
    *scoping/sessions.py)
        tests=(
            $attacks/test_sessions.py $attacks/test_orm_writes.py tests/db/test_refusals.py
            $attacks/test_children.py $attacks/test_context_and_cache.py tests/db/test_guard.py
        ) ;;
    *scoping/observer.py) tests=(tests/db/test_guard.py tests/unit) ;;
    *)
        tests=(
            $attacks/test_core_writes.py $attacks/test_core_reads.py $attacks/test_children.py
            $attacks/test_text.py $attacks/test_orm_writes.py tests/db/test_refusals.py
            $attacks/test_orm_reads.py tests/db/test_guard.py $attacks/test_probes.py
            tests/db/test_identifiers.py tests/db/test_properties.py
        ) ;;
esac
exec "${PYTHON:-.venv/bin/python}" -m pytest -x -q -p no:cacheprovider "${tests[@]}"
