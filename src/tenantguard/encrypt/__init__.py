"""Encrypted columns of tables that have rows: counting, sealing anew, and sealing plaintext.

All of it is done by statements that change many rows at once, and none of it needs the guard.
"""
