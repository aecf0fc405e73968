"""The store: one conformance suite, run against every engine."""
