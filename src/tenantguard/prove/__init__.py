"""The live probe: tries to cross tenants as the application, and rolls back."""
