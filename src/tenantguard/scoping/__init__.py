"""The first lock: statements are scoped to the tenant before they are sent.

`attach` gives one engine's dialect a compiler that adds the tenant predicate to everything it
compiles, and an execution context that refuses what cannot be scoped. `watch_sessions` pins
sessions to their tenant and checks what a flush would write.
"""

from tenantguard.scoping.execution import attach, forget_compiled
from tenantguard.scoping.scope import Scope, scope_of, set_scope
from tenantguard.scoping.sessions import watch_sessions
from tenantguard.scoping.streams import watch_streams

__all__ = [
    "Scope",
    "attach",
    "forget_compiled",
    "scope_of",
    "set_scope",
    "watch_sessions",
    "watch_streams",
]
