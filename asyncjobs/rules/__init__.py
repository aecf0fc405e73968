"""Pure rules: no await, no clock read, no SQL."""
