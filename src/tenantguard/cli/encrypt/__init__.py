"""tenantguard encrypt: a module a command, and what they share."""
