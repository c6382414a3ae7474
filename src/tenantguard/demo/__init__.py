"""The demonstration: an embedded PostgreSQL, two practices, and the Flask or the FastAPI example.

Needs the extra `demo`. Nothing of it is meant for production.
"""
