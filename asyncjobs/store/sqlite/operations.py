"""Every operation, and the function of an open transaction that does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import base, expiry, journal, queueing, retention
from .. import schedules as scheduling
from . import (
    by_hand,
    claiming,
    expiring,
    gates,
    inserting,
    notes,
    retaining,
    schedules,
    starting,
    writes,
)
from .transaction import Transaction

WRITES: dict[type, Callable[[Transaction, Any], Any]] = {
    base.Insert: inserting.insert,
    base.InsertAndClaim: starting.insert_and_claim,
    base.Report: writes.report,
    journal.Annotate: notes.annotate,
    journal.ForgetFiles: writes.forget_files,
    journal.Acknowledge: notes.acknowledge,
    journal.FindEnd: notes.find_end,
    base.Claim: claiming.claim,
    base.Cancel: writes.cancel,
    base.Requeue: writes.requeue,
    base.Delete: writes.delete,
    base.ByHand: by_hand.by_hand,
    base.Slice: by_hand.slice_of_bulk,
    base.Rescue: writes.rescue,
    base.Disown: writes.disown,
    base.Join: writes.join,
    base.Leave: writes.leave,
    base.Prune: writes.prune,
    scheduling.Tick: schedules.tick,
    scheduling.Declare: schedules.declare,
    scheduling.Create: schedules.create,
    scheduling.Update: schedules.update,
    scheduling.Pause: schedules.pause,
    scheduling.Resume: schedules.resume,
    scheduling.RunNow: schedules.run_now,
    scheduling.Remove: schedules.remove,
    expiry.Expire: expiring.expire,
    retention.Retain: retaining.retain,
    retention.PruneRetained: retaining.prune_retained,
    retention.Shorten: retaining.shorten,
    queueing.SetQueue: gates.set_queue,
}
