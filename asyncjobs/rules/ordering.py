"""In which order waiting jobs start: one rule for all that has a say in it.

1. Queue weights: among queues of which one has a weight, whose turn it is (:class:`Turns`).
2. A tenant's share: jobs of a limited key are admitted to their queue in turns of their keys, and
   are due from their admission on; until then they are no candidates.
3. Priority, larger first; where a queue ages, one more for each span that the job has been due.
4. Due time, the earliest first.
5. Acceptance.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from ..clock import to_microseconds, to_seconds
from ..errors import InvalidOption
from .limits import PRIORITY_MAX, check_integer

WEIGHT_MAX = 1_000
STRIDE = 720_720_000
"""What a turn of a queue of weight 1 takes. Every weight up to 16 divides it; others are off by
less than a millionth."""
AGEING_MIN_SECONDS = 1.0


def place(
    turn: int, priority: int, run_at: int, seq: int, *, now: int, ageing: int | None
) -> tuple[int, int, int, int]:
    """Where a due job stands among all that could start now: the smallest starts first.

    ``ageing`` is the span in microseconds. What has aged reaches the largest priority at most: from
    then on only what was due earlier goes before it, so that a job waits for no more than what fell
    due within the first ``PRIORITY_MAX - priority`` spans of its own waiting.
    """
    if ageing is not None:
        priority = min(PRIORITY_MAX, priority + (now - run_at) // ageing)
    return turn, -priority, run_at, seq


class Turns:
    """Whose turn it is among queues: each start takes a queue forward by the inverse of its weight.

    Start-time fair queueing (Goyal, Vin, Cheng, 1996). What is kept between two claims is how far
    each queue is ahead of the last that had its turn: nothing that could drift or overflow, and a
    queue that had nothing to do comes back in line, without a claim to what it has missed.

    Args:
        ahead: of each queue, as :meth:`left` told; others are not ahead.
        weights: of those that have one; where none has, all turns are alike.
    """

    def __init__(self, ahead: Mapping[str, int], weights: Mapping[str, int]) -> None:
        self._ahead = dict(ahead)
        self._weights = weights
        self._last = 0

    def of(self, queue: str) -> int:
        """When it is the queue's turn: the smallest has the next."""
        return self._ahead.get(queue, 0)

    def take(self, queue: str) -> None:
        """A job of the queue starts."""
        if self._weights:
            self._last = self.of(queue)
            self._ahead[queue] = self._last + STRIDE // self._weights.get(queue, 1)

    def left(self) -> dict[str, int]:
        """How far each queue is ahead now, without those that are not."""
        last = self._last
        return {queue: at - last for queue, at in self._ahead.items() if at > last}


def check_weight(value: object) -> int:
    """A queue's weight.

    Raises:
        InvalidOption: also for 0.
    """
    if value == 0 and not isinstance(value, bool):
        raise InvalidOption("weight=0 would let the queue wait for ever; pause_queue stops it")
    return check_integer(value, "weight", least=1, most=WEIGHT_MAX)


def check_ageing(value: float | timedelta) -> int:
    """The span after which a waiting job counts one priority higher, in microseconds.

    Raises:
        InvalidOption: no duration, or less than a second.
    """
    seconds = to_seconds(value, "priority_ageing", at_least=AGEING_MIN_SECONDS)
    return to_microseconds(seconds)
