"""tenantguard keys: a module a command, and what they share."""
