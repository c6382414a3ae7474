"""Adapters, one a framework: they translate requests and errors, and decide nothing."""
