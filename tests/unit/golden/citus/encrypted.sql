-- cluster: cluster
BEGIN;
SET LOCAL lock_timeout = '3s';
DO $tenantguard$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tenantguard_owner') THEN
        CREATE ROLE "tenantguard_owner" NOLOGIN;
    END IF;
END
$tenantguard$;
DO $tenantguard$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tenantguard_app') THEN
        CREATE ROLE "tenantguard_app" LOGIN;
    END IF;
END
$tenantguard$;
DO $tenantguard$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tenantguard_maintenance') THEN
        CREATE ROLE "tenantguard_maintenance" NOLOGIN;
    END IF;
END
$tenantguard$;
DO $tenantguard$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tenantguard_support') THEN
        CREATE ROLE "tenantguard_support" NOLOGIN;
    END IF;
END
$tenantguard$;
DO $tenantguard$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tenantguard_backup') THEN
        CREATE ROLE "tenantguard_backup" NOLOGIN BYPASSRLS;
    END IF;
END
$tenantguard$;
COMMIT;

-- public: schemas
BEGIN;
SET LOCAL lock_timeout = '3s';
REVOKE CREATE ON SCHEMA "public" FROM PUBLIC, "tenantguard_app", "tenantguard_support";
GRANT USAGE ON SCHEMA "public" TO "tenantguard_app", "tenantguard_support", "tenantguard_maintenance", "tenantguard_backup";
COMMIT;

-- public.tenantguard_keys: tables
BEGIN;
SET LOCAL lock_timeout = '3s';
CREATE TABLE IF NOT EXISTS public.tenantguard_keys (
    tenant_id UUID NOT NULL,
    purpose TEXT NOT NULL,
    generation INTEGER DEFAULT 1 NOT NULL,
    kek_uri TEXT NOT NULL,
    wrapped BYTEA,
    check_value BYTEA,
    state TEXT DEFAULT 'active' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    rotated_at TIMESTAMP WITH TIME ZONE,
    shredded_at TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (tenant_id, purpose),
    CONSTRAINT tenantguard_keys_purpose CHECK (purpose IN ('data', 'index')),
    CONSTRAINT tenantguard_keys_state CHECK (state IN ('active', 'decrypt-only', 'destroyed')),
    CONSTRAINT tenantguard_keys_destroyed CHECK ((state = 'destroyed') = (wrapped IS NULL))
);
DO $tenantguard$
DECLARE
    made regclass := '"public"."tenantguard_keys"'::regclass;
    keeper oid := (SELECT relowner FROM pg_class WHERE oid = '"public"."practices"'::regclass);
BEGIN
    IF keeper <> (SELECT relowner FROM pg_class WHERE oid = made) THEN
        EXECUTE format('ALTER TABLE %s OWNER TO %I', made, pg_get_userbyid(keeper));
    END IF;
END
$tenantguard$;
COMMIT;

-- public.letters: structure
BEGIN;
SET LOCAL lock_timeout = '3s';
SET LOCAL row_security = off;
ALTER TABLE "public"."letters" ALTER COLUMN "tenant_id" SET NOT NULL;
ALTER TABLE "public"."letters" ALTER COLUMN "tenant_id" SET DEFAULT nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID;
COMMIT;

-- public.practices: distribution
BEGIN;
SET LOCAL lock_timeout = '3s';
DO $tenantguard$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_dist_partition
            WHERE logicalrelid = '"public"."practices"'::regclass) THEN
        PERFORM pg_catalog.create_distributed_table('"public"."practices"'::regclass, 'id', colocate_with => 'none');
    END IF;
END
$tenantguard$;
COMMIT;

-- public.letters: distribution
BEGIN;
SET LOCAL lock_timeout = '3s';
DO $tenantguard$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_dist_partition
            WHERE logicalrelid = '"public"."letters"'::regclass) THEN
        PERFORM pg_catalog.create_distributed_table('"public"."letters"'::regclass, 'tenant_id', colocate_with => '"public"."practices"');
    END IF;
END
$tenantguard$;
COMMIT;

-- public.materials: distribution
BEGIN;
SET LOCAL lock_timeout = '3s';
DO $tenantguard$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_dist_partition
            WHERE logicalrelid = '"public"."materials"'::regclass) THEN
        PERFORM create_reference_table('"public"."materials"'::regclass);
    END IF;
END
$tenantguard$;
COMMIT;

-- public.tenantguard_keys: distribution
BEGIN;
SET LOCAL lock_timeout = '3s';
DO $tenantguard$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_dist_partition
            WHERE logicalrelid = '"public"."tenantguard_keys"'::regclass) THEN
        PERFORM pg_catalog.create_distributed_table('"public"."tenantguard_keys"'::regclass, 'tenant_id', colocate_with => '"public"."practices"');
    END IF;
END
$tenantguard$;
COMMIT;

-- public.tenantguard_keys: keys
BEGIN;
SET LOCAL lock_timeout = '3s';
SET LOCAL row_security = off;
ALTER TABLE "public"."tenantguard_keys" ADD CONSTRAINT "tg_tenantguard_keys_tenant_id_fkey_ecaa69b3"
    FOREIGN KEY ("tenant_id")
    REFERENCES "public"."practices" ("id") NOT VALID;
DO $tenantguard$
DECLARE
    forced regclass[] := ARRAY(SELECT oid::regclass FROM pg_class
        WHERE oid IN ('"public"."tenantguard_keys"'::regclass, '"public"."practices"'::regclass) AND relforcerowsecurity ORDER BY oid);
    lifted regclass;
BEGIN
    FOREACH lifted IN ARRAY forced LOOP
        EXECUTE format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', lifted);
    END LOOP;
    ALTER TABLE "public"."tenantguard_keys" VALIDATE CONSTRAINT "tg_tenantguard_keys_tenant_id_fkey_ecaa69b3";
    FOREACH lifted IN ARRAY forced LOOP
        EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', lifted);
    END LOOP;
END
$tenantguard$;
COMMIT;

-- public.letters: protection
BEGIN;
SET LOCAL lock_timeout = '3s';
DROP POLICY IF EXISTS "tenantguard_application" ON "public"."letters";
CREATE POLICY "tenantguard_application" ON "public"."letters" AS PERMISSIVE FOR ALL
    TO "tenantguard_app"
    USING ("tenant_id" = nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID)
    WITH CHECK ("tenant_id" = nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID);
COMMENT ON POLICY "tenantguard_application" ON "public"."letters" IS 'generated by tenantguard, 1fd5f4d52880d23f';
DROP POLICY IF EXISTS "tenantguard_support" ON "public"."letters";
CREATE POLICY "tenantguard_support" ON "public"."letters" AS PERMISSIVE FOR ALL
    TO "tenantguard_support"
    USING ("tenant_id" = nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID)
    WITH CHECK ("tenant_id" = nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID);
COMMENT ON POLICY "tenantguard_support" ON "public"."letters" IS 'generated by tenantguard, 0f669bc84a0ef6ff';
DROP POLICY IF EXISTS "tenantguard_maintenance" ON "public"."letters";
CREATE POLICY "tenantguard_maintenance" ON "public"."letters" AS PERMISSIVE FOR ALL
    TO "tenantguard_maintenance"
    USING (true)
    WITH CHECK (true);
COMMENT ON POLICY "tenantguard_maintenance" ON "public"."letters" IS 'generated by tenantguard, ff5e9960d2b4333d';
ALTER TABLE "public"."letters" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "public"."letters" FORCE ROW LEVEL SECURITY;
REVOKE ALL ON TABLE "public"."letters" FROM PUBLIC, "tenantguard_app", "tenantguard_support", "tenantguard_maintenance", "tenantguard_backup";
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE "public"."letters" TO "tenantguard_maintenance";
GRANT SELECT ON TABLE "public"."letters" TO "tenantguard_backup";
GRANT SELECT ON TABLE "public"."letters" TO "tenantguard_support";
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE "public"."letters" TO "tenantguard_app";
COMMIT;

-- public.materials: protection
BEGIN;
SET LOCAL lock_timeout = '3s';
REVOKE ALL ON TABLE "public"."materials" FROM PUBLIC, "tenantguard_app", "tenantguard_support", "tenantguard_maintenance", "tenantguard_backup";
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE "public"."materials" TO "tenantguard_maintenance";
GRANT SELECT ON TABLE "public"."materials" TO "tenantguard_backup";
GRANT SELECT ON TABLE "public"."materials" TO "tenantguard_support";
GRANT SELECT ON TABLE "public"."materials" TO "tenantguard_app";
DO $tenantguard$
DECLARE found regclass;
BEGIN
    FOR found IN
        SELECT DISTINCT c.oid::regclass FROM pg_class c
        LEFT JOIN pg_depend d ON d.objid = c.oid AND d.deptype IN ('a', 'i')
            AND d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
        WHERE c.relkind = 'S' AND (d.refobjid = to_regclass('"public"."materials"'))
    LOOP
        EXECUTE format('GRANT USAGE ON SEQUENCE %s TO "tenantguard_maintenance"', found);
        EXECUTE format('GRANT SELECT ON SEQUENCE %s TO "tenantguard_backup"', found);
    END LOOP;
END
$tenantguard$;
COMMIT;

-- public.practices: protection
BEGIN;
SET LOCAL lock_timeout = '3s';
DROP POLICY IF EXISTS "tenantguard_application" ON "public"."practices";
CREATE POLICY "tenantguard_application" ON "public"."practices" AS PERMISSIVE FOR ALL
    TO "tenantguard_app"
    USING ("id" = nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID)
    WITH CHECK ("id" = nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID);
COMMENT ON POLICY "tenantguard_application" ON "public"."practices" IS 'generated by tenantguard, ab541db1520f671f';
DROP POLICY IF EXISTS "tenantguard_support" ON "public"."practices";
CREATE POLICY "tenantguard_support" ON "public"."practices" AS PERMISSIVE FOR ALL
    TO "tenantguard_support"
    USING ("id" = nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID)
    WITH CHECK ("id" = nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID);
COMMENT ON POLICY "tenantguard_support" ON "public"."practices" IS 'generated by tenantguard, 437a051236344662';
DROP POLICY IF EXISTS "tenantguard_maintenance" ON "public"."practices";
CREATE POLICY "tenantguard_maintenance" ON "public"."practices" AS PERMISSIVE FOR ALL
    TO "tenantguard_maintenance"
    USING (true)
    WITH CHECK (true);
COMMENT ON POLICY "tenantguard_maintenance" ON "public"."practices" IS 'generated by tenantguard, a24fcc3fd10f9f72';
ALTER TABLE "public"."practices" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "public"."practices" FORCE ROW LEVEL SECURITY;
REVOKE ALL ON TABLE "public"."practices" FROM PUBLIC, "tenantguard_app", "tenantguard_support", "tenantguard_maintenance", "tenantguard_backup";
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE "public"."practices" TO "tenantguard_maintenance";
GRANT SELECT ON TABLE "public"."practices" TO "tenantguard_backup";
GRANT SELECT ON TABLE "public"."practices" TO "tenantguard_support";
GRANT SELECT ON TABLE "public"."practices" TO "tenantguard_app";
COMMIT;

-- public.tenantguard_keys: protection
BEGIN;
SET LOCAL lock_timeout = '3s';
DROP POLICY IF EXISTS "tenantguard_application" ON "public"."tenantguard_keys";
CREATE POLICY "tenantguard_application" ON "public"."tenantguard_keys" AS PERMISSIVE FOR ALL
    TO "tenantguard_app"
    USING ("tenant_id" = nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID)
    WITH CHECK ("tenant_id" = nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID);
COMMENT ON POLICY "tenantguard_application" ON "public"."tenantguard_keys" IS 'generated by tenantguard, 6c587995041e9f64';
DROP POLICY IF EXISTS "tenantguard_maintenance" ON "public"."tenantguard_keys";
CREATE POLICY "tenantguard_maintenance" ON "public"."tenantguard_keys" AS PERMISSIVE FOR ALL
    TO "tenantguard_maintenance"
    USING (true)
    WITH CHECK (true);
COMMENT ON POLICY "tenantguard_maintenance" ON "public"."tenantguard_keys" IS 'generated by tenantguard, 3ff8dec8d963f635';
ALTER TABLE "public"."tenantguard_keys" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "public"."tenantguard_keys" FORCE ROW LEVEL SECURITY;
REVOKE ALL ON TABLE "public"."tenantguard_keys" FROM PUBLIC, "tenantguard_app", "tenantguard_support", "tenantguard_maintenance", "tenantguard_backup";
GRANT INSERT, SELECT ON TABLE "public"."tenantguard_keys" TO "tenantguard_app";
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE "public"."tenantguard_keys" TO "tenantguard_maintenance";
GRANT SELECT ON TABLE "public"."tenantguard_keys" TO "tenantguard_backup";
DO $tenantguard$
DECLARE found regclass;
BEGIN
    FOR found IN
        SELECT DISTINCT c.oid::regclass FROM pg_class c
        LEFT JOIN pg_depend d ON d.objid = c.oid AND d.deptype IN ('a', 'i')
            AND d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
        WHERE c.relkind = 'S' AND (d.refobjid = to_regclass('"public"."tenantguard_keys"'))
    LOOP
        EXECUTE format('GRANT USAGE ON SEQUENCE %s TO "tenantguard_maintenance"', found);
        EXECUTE format('GRANT SELECT ON SEQUENCE %s TO "tenantguard_backup"', found);
    END LOOP;
END
$tenantguard$;
COMMIT;

-- public.versions: protection
BEGIN;
SET LOCAL lock_timeout = '3s';
REVOKE ALL ON TABLE "public"."versions" FROM PUBLIC, "tenantguard_app", "tenantguard_support", "tenantguard_maintenance", "tenantguard_backup";
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE "public"."versions" TO "tenantguard_maintenance";
GRANT SELECT ON TABLE "public"."versions" TO "tenantguard_backup";
DO $tenantguard$
DECLARE found regclass;
BEGIN
    FOR found IN
        SELECT DISTINCT c.oid::regclass FROM pg_class c
        LEFT JOIN pg_depend d ON d.objid = c.oid AND d.deptype IN ('a', 'i')
            AND d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
        WHERE c.relkind = 'S' AND (d.refobjid = to_regclass('"public"."versions"'))
    LOOP
        EXECUTE format('GRANT USAGE ON SEQUENCE %s TO "tenantguard_maintenance"', found);
        EXECUTE format('GRANT SELECT ON SEQUENCE %s TO "tenantguard_backup"', found);
    END LOOP;
END
$tenantguard$;
COMMIT;

