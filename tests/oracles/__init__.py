"""What "nothing lost, nothing doubled" means, written once: the oracles that every proof uses.

The ledgers are written by the harness and by the jobs, never by the library, with one O_APPEND
write a line, so that they tell what happened also when the process was killed in the middle.
"""

from .census import Census, assert_nothing_left, children_of, living_in, nothing_left
from .ledger import AckLedger, EffectLedger, Line, Start
from .liveness import deadline, show_stacks_at, unfinished_ended
from .seeds import seed_of
from .verdict import Verdict, judge

__all__ = [
    "AckLedger",
    "Census",
    "EffectLedger",
    "Line",
    "Start",
    "Verdict",
    "assert_nothing_left",
    "children_of",
    "deadline",
    "judge",
    "living_in",
    "nothing_left",
    "seed_of",
    "show_stacks_at",
    "unfinished_ended",
]
