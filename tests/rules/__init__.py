"""The rules: no await, no clock, no SQL."""
