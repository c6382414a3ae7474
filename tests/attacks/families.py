"""Every family of attacks, item by item, and the tests that stand for each item.

A test is named by its file, its function and its case, without what all have in common:
`tests/attacks/test_probes.py::test_a_foreign_row_is_not_found[get-both]` is
`probes.a_foreign_row_is_not_found: get`; a file elsewhere is `db/binding`. A pattern may leave out
the function (`probes: get`), the case (`roles.row_security_off*`), or both (`streams`).
"""

from __future__ import annotations

__all__ = ["CONTROLS", "FAMILIES", "LIMITS", "LOCK_OF", "NOT_APPLICABLE"]

FAMILIES: dict[str, dict[str, tuple[str, ...]]] = {
    "ORM reads": {
        "entity": ("orm_reads: entity", "probes: where*", "probes: tenant as expression"),
        "columns": ("orm_reads: columns", "orm_reads: where true or", "orm_reads: own tenant*"),
        "aliased": ("orm_reads: alias*", "orm_reads: flat alias", "orm_reads: entity on*"),
        "joins both ways": ("orm_reads: *join*", "orm_reads: secondary", "orm_reads: tags' orders"),
        "outer join ON": ("orm_reads: outer join*", "probes: outer join's on", "probes: full*"),
        "EXISTS": ("orm_reads: *exists*", "orm_reads: any", "orm_reads: has", "probes: *exists*"),
        "IN and scalar subquery": (
            "orm_reads: in",
            "orm_reads: not in",
            "orm_reads: *scalar*",
            "orm_reads: values",
            "probes: in a case",
            "probes: scalar subquery",
        ),
        "CTE, recursive CTE": ("orm_reads: *cte", "orm_reads: recursive", "orm_reads: subquery"),
        "UNION": ("orm_reads: union", "orm_reads: intersect", "orm_reads: except"),
        "LATERAL": ("orm_reads: *lateral*",),
        "window": ("orm_reads: window", "orm_reads: limit", "orm_reads: distinct on"),
        "aggregates": ("orm_reads: aggregate", "orm_reads: having", "orm_reads: group by key"),
        "from_statement": ("orm_reads: *from_statement*",),
        "eager loads and raiseload": (
            "orm_reads: *load",
            "orm_reads: contains_eager",
            "orm_reads: deferred",
            "orm_reads: loader criteria",
            "probes: loader criteria",
        ),
        "lazy loads": (
            "orm_reads: lazy load",
            "probes: stub's*",
            "sessions.expired_attributes*",
        ),
        "write_only and dynamic relationships": ("orm_reads: dynamic", "orm_reads: write_only"),
        "get": ("probes: *get*", "sessions.*: *get*", "probes: legacy filter"),
        "refresh, expire": ("probes: refreshed stub", "sessions.*: *refresh"),
        "populate_existing": ("orm_reads: populate_existing", "probes: get populate_existing"),
        "merge(load=False)": ("probes: merge*", "sessions.*: *merge without load"),
        "column_property": ("orm_reads: column_property*",),
        "hybrid": ("orm_reads: hybrid", "orm_reads: synonym"),
        "with_expression": ("orm_reads: with_expression",),
        "yield_per, stream": ("orm_reads: yield_per", "orm_reads: streamed", "streams"),
        "lambda statements": ("orm_reads: lambda", "context_and_cache.*serves_the_other: lambda"),
        "cached statement used by A then B": (
            "context_and_cache.a_statement_compiled*",
            "context_and_cache.a_cache*",
            "context_and_cache.a_parameter*",
            "context_and_cache.a_bind*",
        ),
        "legacy Query": ("orm_reads: query*",),
        "Bundle": ("orm_reads: bundle",),
        "polymorphic selects": ("orm_reads: subclass*",),
        "self-referential joins": ("orm_reads: self join*",),
        "ORM entity joined with a Core table": (
            "orm_reads: entity and table",
            "orm_reads: mapped*",
            "orm_reads: tablesample",
            "orm_reads: for update of",
            "orm_reads: only",
        ),
    },
    "Core and text": {
        "select on Table": ("core_reads",),
        "insert/update/delete on Table": ("core_writes: light*", "core_writes: other key*"),
        "session, connection and engine": ("core_reads.it_does_not_matter*",),
        "text": (
            "text",
            "written_sql: select",
        ),
        "exec_driver_sql": ("text.*: _driver_sql", "text.*: _harmless"),
        "driver cursor": (
            "connections: _raw_cursor",
            "connections.*: _pipeline",
            "connections: _transaction_block",
            "connections.a_raw_connection*",
        ),
        "COPY": ("connections: _copy", "db/asyncpg.a_copy*"),
        "server-side cursor": (
            "connections: _named_cursor",
            "core_reads: server cursor",
            "written_sql: cursor*",
        ),
        "written SQL that reads": (
            "written_sql: only",
            "written_sql: table",
            "written_sql: lateral",
            "written_sql: *cte",
            "written_sql: window",
            "written_sql: tablesample",
            "written_sql: for update of",
            "written_sql: row locks*",
            "written_sql: union",
            "written_sql: exists",
            "written_sql: values",
            "written_sql: function of*",
            "written_sql: system column",
            "written_sql: temporary*",
            "written_sql: select into",
            "written_sql: *of one's own",
            "written_sql: block that reads",
            "written_sql: search path",
        ),
    },
    "Writes": {
        "ORM and Core bulk update/delete": (
            "orm_writes: update*",
            "orm_writes: delete*",
            "orm_writes: legacy*",
            "core_writes: update*",
            "core_writes: delete*",
        ),
        "update that changes the tenant": (
            "orm_writes: *move*",
            "orm_writes: change*",
            "core_writes: *move*",
            "core_writes: onupdate",
            "context_and_cache.a_cached_write*",
        ),
        "insert with a foreign tenant": (
            "orm_writes: add*",
            "orm_writes: bulk insert*",
            "orm_writes: mapper event*",
            "core_writes: insert*",
            "core_writes: values by*",
            "core_writes: default by*",
            "core_writes: folded*",
        ),
        "INSERT … SELECT": ("*_writes: insert from*", "written_sql: insert from*"),
        "executemany": ("core_writes: executemany", "core_writes: insertmanyvalues"),
        "bulk methods and update by primary key": (
            "orm_writes: bulk_*",
            "orm_writes: bulk update*",
        ),
        "merge of a foreign object": ("orm_writes: merge*",),
        "re-attached foreign object": (
            "orm_writes: steal*",
            "orm_writes: make_transient",
            "orm_writes: *forged*",
            "sessions.a_pickled*",
            "objects",
        ),
        "upsert that hits a foreign row": (
            "*_writes: upsert*",
            "core_writes: do nothing",
            "core_writes: subquery in ON CONFLICT",
            "written_sql: upsert*",
        ),
        "child row with a foreign parent": (
            "core_writes: child*",
            "core_writes: reference*",
        ),
        "association row that links two tenants": (
            "core_writes: association*",
            "core_writes.links*",
        ),
        "cascades": ("core_writes.deleting_a_parent*",),
        "RETURNING": ("core_writes: subquery in*", "written_sql: *returning"),
        "MERGE": ("written_sql: merge*",),
        "TRUNCATE": ("written_sql: truncate*",),
        "multi-table UPDATE … FROM": (
            "core_writes: update from*",
            "written_sql: update*",
            "written_sql: delete*",
        ),
        "CTE with DML": ("core_writes: *in a cte", "written_sql: *in a cte"),
        "written SQL that writes": (
            "written_sql: insert*",
            "written_sql: block that*",
            "written_sql: where current of",
        ),
    },
    "Inheritance and shape": {
        "joined inheritance": ("shapes: *joined*", "shapes: of_type"),
        "single-table inheritance": ("shapes: *single table*",),
        "concrete inheritance": ("shapes: *concrete*",),
        "tree": (
            "shapes: *tree*",
            "shapes: descendants",
            "shapes: ancestors",
            "shapes: parent's name",
        ),
        "composite key": ("shapes: *composite key*",),
        "association tables": ("probes: association row", "orm_reads: secondary"),
        "views": (
            "shapes: *view*",
            "ways: *view*",
            "ways.what_is_no*",
            "ways.a_new*",
            "ways.a_view*",
        ),
        "materialised views": ("shapes: reading_totals", "ways: materialised view*", "ways.apply*"),
        "partitions and children addressed directly": (
            "shapes: *partition*",
            "shapes: *INHERITS*",
            "shapes: readings_rest",
            "shapes: guests",
            "shapes: *only*",
            "shapes: lateral",
            "shapes: whole row",
            "ways: *partition*",
            "ways: child by INHERITS",
            "ways: default privileges",
        ),
        "schema-qualified tables": ("shapes: *schema*", "shapes: search path"),
        "schema_translate_map": ("shapes: translated schemas",),
        "quoted names": ("shapes: *quoted*",),
        "table without tenant column reached through its parent": ("children",),
    },
    "Inference": {
        "unique-violation oracle": (
            "inference.a_unique_key*",
            "limits.a_global*",
            "limits.a_prim*",
        ),
        "foreign-key existence oracle": ("inference.a_foreign_key*", "limits.do_nothing*"),
        "sequence gaps": (
            "written_sql: *sequence*",
            "limits.*sequence*",
            "limits.numbers*",
        ),
        "EXPLAIN estimates": ("limits.explain*", "limits.the_catalog_counts*", "limits.the_size*"),
        "error text with another tenant's values": ("inference.*error*", "inference.an_upsert*"),
        "leaky function in WHERE": (
            "written_sql: leaky*",
            "written_sql: division*",
            "written_sql: cast of*",
        ),
        "statistics": ("written_sql: statistics*", "written_sql: pages of*"),
    },
    "Context": {
        "no tenant": ("context_and_cache.no_tenant*", "sessions.no_tenant*"),
        "unknown tenant": ("context_and_cache.*unknown*", "context_and_cache.*malformed*"),
        "nested": ("context_and_cache.nested*", "sessions.a_context*"),
        "exception inside": ("db/binding.unknown*", "context_and_cache.nested*"),
        "threads": ("context_and_cache.*thread*", "connections.threads*"),
        "pools, executors": ("tasks.*executor*", "db/pools"),
        "asyncio tasks": ("tasks: task group*", "tasks: shared*", "tasks: cancelled*"),
        "gather with interleaved tenants": ("tasks: gather*",),
        "generator and async generator": (
            "tasks.*generator*",
            "tasks: *generator*",
            "tasks: stream*",
        ),
        "streaming response": ("integrations/conformance: generator*",),
        "WebSocket": ("integrations/conformance: *socket*",),
        "background task": ("integrations/conformance: *background*",),
        "job queue": ("db/jobs",),
        "tenant changed inside a transaction": (
            "context_and_cache.a_tenant_change*",
            "sessions.a_switch_inside*",
        ),
        "session reused across tenants": ("sessions",),
    },
    "Connection": {
        "setting left behind": ("connections: setting", "connections.*however*"),
        "left behind otherwise": ("connections.nothing*", "connections.the_leftovers*"),
        "two-phase commit": ("connections: _two_phase", "engines.a_two_phase*"),
        "autocommit isolation level": ("connections.*autocommit*", "db/autocommit"),
        "savepoint rollback, then query": (
            "engines.after_a_savepoint*",
            "sessions.a_savepoint*",
            "sessions.a_commit*",
        ),
        "prepared statements with a tenant's plan": ("db/drivers.*prepared*", "db/drivers.*plant*"),
        "pool of 1 under concurrency and cancellation": (
            "db/drivers.*small_pool*",
            "db/drivers.*cancelled*",
            "db/drivers.*timeout*",
            "connections.executemany*",
            "connections.a_pooled*",
        ),
        "two engines": ("engines.two_engines*", "engines.a_session_on*", "engines.an_engine*"),
        "connection checked out outside the session": (
            "engines.a_connection*",
            "sessions.a_session_on*",
            "connections: _detached",
            "connections: _isolated",
            "connections: _after*",
        ),
        "PgBouncer in transaction mode": ("db/binding.behind*",),
        "failover": ("engines.after_a_failover*", "engines.a_new_server*"),
    },
    "Role and injection": {
        "superuser": ("roles: superuser",),
        "BYPASSRLS": ("roles: bypasses",),
        "owner without FORCE": ("roles: owner*", "db/rls_verify: *NO FORCE*"),
        "SET ROLE member": ("roles: maintenance", "roles: SET*", "db/rls_verify: *GRANT*"),
        "default of the setting": ("db/rls_verify: *SET tenantguard*",),
        "weakened policies": ("roles.*", "written_sql: rule*", "written_sql: child of*"),
        "set_config, a replayed token, RESET ALL, DISCARD": (
            "injection",
            "db/binding.tenant_set*",
            "db/binding.role_set*",
        ),
        "SECURITY DEFINER function": ("written_sql: definer function*",),
        "view without security_invoker": ("ways: view of*",),
    },
    "Encryption": {
        "swap a ciphertext between rows, columns, tables, tenants": (
            "db/encrypted_writes.what_was_moved*",
            "unit/field.index_is_of_one*",
            "unit/format.associated_data*",
        ),
        "truncate, bit-flip": ("unit/format.*changed*", "unit/format.every_truncation*"),
        "replay an older key": ("db/encrypted_keys.*key*", "unit/keysets"),
        "plaintext in error, log, repr": ("db/canaries", "unit/field.error*"),
        "plaintext in EXPLAIN, pg_stat_statements": ("db/encrypted_queries.the_search*",),
        "wrong key under concurrency": ("db/encrypted_race",),
        "questions to ciphertext": ("db/encrypted_refusals", "db/encrypted_attacks"),
    },
}

LIMITS = ("limits",)
"""Tests of what PostgreSQL cannot hide: no refusals, and not counted as such."""

CONTROLS = (
    "*.without_*",
    "*.*_is_real*",
    "*.*_are_real*",
    "*.*session_may_serve*",
    "*.*stream_may_be_closed*",
    "*.*view_may_be_shared*",
    "*.*is_allowed*",
    "*.*goes_on_in_another_block*",
    "*.what_asked_for_no_tenants_rows*",
    "ways.apply_makes*",
)
"""Tests of the attack's being real, or of legitimate use."""

LOCK_OF = {
    "text.text_is_refused_by_the_first_lock_alone*": "first_alone",
    "text.text_as_a_whole*": "first_alone",
    "core_reads.a_table_that_is_nobodys*": "first_alone",
    "core_reads.a_system_schema*": "first_alone",
    "roles.the_login_may_not*": "second_alone",
    "roles.row_security_off*": "second_alone",
    "children.text*": "both",
}
"""The lock of tests that run under one and do not name it in their case; else it is both."""

NOT_APPLICABLE = {
    "ORM reads": "Pinning sessions, and keeping streams with their tenant, is the first lock's.",
    "Core and text": "Text, COPY and driver cursors are not the first lock's: alone, it refuses "
    "text, and never sees a cursor.",
    "Writes": "Comparing objects with the tenant that they were loaded for is the first lock's.",
    "Inheritance and shape": "A table without the tenant column is the first lock's alone; what "
    "the models do not know is found by the second.",
    "Inference": "What the database says is up to the database: the first lock sees no text.",
    "Context": "What needs a driver of its own, or the first lock's session, runs where it is.",
    "Connection": "Raw connections and what is left on them are the second lock's.",
    "Role and injection": "Roles and signatures are the second lock's, "
    "tried as users have it: with both.",
    "Encryption": "Encrypted columns need both locks.",
}
"""Why a family's attacks do not run under each lock."""
