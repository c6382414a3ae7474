"""Sealing values with a tenant's keys: the stored format, keysets, and the key that wraps them.

Only `keysets` imports Tink, and it is imported when a key is first needed.
"""
