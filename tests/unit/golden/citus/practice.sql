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

-- public.orders: structure
BEGIN;
SET LOCAL lock_timeout = '3s';
SET LOCAL row_security = off;
ALTER TABLE "public"."orders" ALTER COLUMN "tenant_id" SET NOT NULL;
ALTER TABLE "public"."orders" ALTER COLUMN "tenant_id" SET DEFAULT nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID;
COMMIT;

-- public.patients: structure
BEGIN;
SET LOCAL lock_timeout = '3s';
SET LOCAL row_security = off;
ALTER TABLE "public"."patients" ALTER COLUMN "tenant_id" SET NOT NULL;
ALTER TABLE "public"."patients" ALTER COLUMN "tenant_id" SET DEFAULT nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID;
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

-- public.patients: distribution
BEGIN;
SET LOCAL lock_timeout = '3s';
DO $tenantguard$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_dist_partition
            WHERE logicalrelid = '"public"."patients"'::regclass) THEN
        PERFORM pg_catalog.create_distributed_table('"public"."patients"'::regclass, 'tenant_id', colocate_with => '"public"."practices"');
    END IF;
END
$tenantguard$;
COMMIT;

-- public.orders: distribution
BEGIN;
SET LOCAL lock_timeout = '3s';
DO $tenantguard$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_dist_partition
            WHERE logicalrelid = '"public"."orders"'::regclass) THEN
        PERFORM pg_catalog.create_distributed_table('"public"."orders"'::regclass, 'tenant_id', colocate_with => '"public"."practices"');
    END IF;
END
$tenantguard$;
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

-- public.orders: protection
BEGIN;
SET LOCAL lock_timeout = '3s';
DROP POLICY IF EXISTS "tenantguard_application" ON "public"."orders";
CREATE POLICY "tenantguard_application" ON "public"."orders" AS PERMISSIVE FOR ALL
    TO "tenantguard_app"
    USING ("tenant_id" = nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID)
    WITH CHECK ("tenant_id" = nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID);
COMMENT ON POLICY "tenantguard_application" ON "public"."orders" IS 'generated by tenantguard, 65aa5f9c72b69a3d';
DROP POLICY IF EXISTS "tenantguard_support" ON "public"."orders";
CREATE POLICY "tenantguard_support" ON "public"."orders" AS PERMISSIVE FOR ALL
    TO "tenantguard_support"
    USING ("tenant_id" = nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID)
    WITH CHECK ("tenant_id" = nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID);
COMMENT ON POLICY "tenantguard_support" ON "public"."orders" IS 'generated by tenantguard, a6ddd7f3adcfd6a4';
DROP POLICY IF EXISTS "tenantguard_maintenance" ON "public"."orders";
CREATE POLICY "tenantguard_maintenance" ON "public"."orders" AS PERMISSIVE FOR ALL
    TO "tenantguard_maintenance"
    USING (true)
    WITH CHECK (true);
COMMENT ON POLICY "tenantguard_maintenance" ON "public"."orders" IS 'generated by tenantguard, 046b3373d7535c96';
ALTER TABLE "public"."orders" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "public"."orders" FORCE ROW LEVEL SECURITY;
REVOKE ALL ON TABLE "public"."orders" FROM PUBLIC, "tenantguard_app", "tenantguard_support", "tenantguard_maintenance", "tenantguard_backup";
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE "public"."orders" TO "tenantguard_maintenance";
GRANT SELECT ON TABLE "public"."orders" TO "tenantguard_backup";
GRANT SELECT ON TABLE "public"."orders" TO "tenantguard_support";
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE "public"."orders" TO "tenantguard_app";
COMMIT;

-- public.patients: protection
BEGIN;
SET LOCAL lock_timeout = '3s';
DROP POLICY IF EXISTS "tenantguard_application" ON "public"."patients";
CREATE POLICY "tenantguard_application" ON "public"."patients" AS PERMISSIVE FOR ALL
    TO "tenantguard_app"
    USING ("tenant_id" = nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID)
    WITH CHECK ("tenant_id" = nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID);
COMMENT ON POLICY "tenantguard_application" ON "public"."patients" IS 'generated by tenantguard, c0dcd1757997b5f6';
DROP POLICY IF EXISTS "tenantguard_support" ON "public"."patients";
CREATE POLICY "tenantguard_support" ON "public"."patients" AS PERMISSIVE FOR ALL
    TO "tenantguard_support"
    USING ("tenant_id" = nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID)
    WITH CHECK ("tenant_id" = nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID);
COMMENT ON POLICY "tenantguard_support" ON "public"."patients" IS 'generated by tenantguard, 363875bb27e9186e';
DROP POLICY IF EXISTS "tenantguard_maintenance" ON "public"."patients";
CREATE POLICY "tenantguard_maintenance" ON "public"."patients" AS PERMISSIVE FOR ALL
    TO "tenantguard_maintenance"
    USING (true)
    WITH CHECK (true);
COMMENT ON POLICY "tenantguard_maintenance" ON "public"."patients" IS 'generated by tenantguard, caffc0873345e8bd';
ALTER TABLE "public"."patients" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "public"."patients" FORCE ROW LEVEL SECURITY;
REVOKE ALL ON TABLE "public"."patients" FROM PUBLIC, "tenantguard_app", "tenantguard_support", "tenantguard_maintenance", "tenantguard_backup";
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE "public"."patients" TO "tenantguard_maintenance";
GRANT SELECT ON TABLE "public"."patients" TO "tenantguard_backup";
GRANT SELECT ON TABLE "public"."patients" TO "tenantguard_support";
GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE "public"."patients" TO "tenantguard_app";
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

