"""Programs that are measured from outside, in interpreters of their own.

They import no more than what they measure, and report one JSON object on standard output.
"""
