"""The second lock: row-level security, generated from the models, applied and verified."""

from tenantguard.findings import Finding
from tenantguard.rls.apply import apply, apply_roles
from tenantguard.rls.files import down_files, files, is_ours
from tenantguard.rls.generate import down_sql, generate, roles_sql, sql
from tenantguard.rls.plan import plan
from tenantguard.rls.signed import enter_function, entry_token
from tenantguard.rls.signing_push import Pushed, push_signing_keys
from tenantguard.rls.step import Step
from tenantguard.rls.verify import verify, verify_role

__all__ = [
    "Finding",
    "Pushed",
    "Step",
    "apply",
    "apply_roles",
    "down_files",
    "down_sql",
    "enter_function",
    "entry_token",
    "files",
    "generate",
    "is_ours",
    "plan",
    "push_signing_keys",
    "roles_sql",
    "sql",
    "verify",
    "verify_role",
]
