"""Subprocess workers: a fork server, the workers it makes, and the pool that uses them."""
