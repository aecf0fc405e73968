"""Seeded mutants of the library: one line changed each, with the tests that must notice."""

from __future__ import annotations

from typing import NamedTuple

MODEL = ("tests/crash/test_model.py",)
FOUND = ("tests/crash/test_found.py",)
FAULTS = ("tests/crash/test_faults.py",)
STORE = ("tests/store",)
ZOMBIE = ("tests/crash/test_zombie.py",)
RECOVERY = ("tests/crash/test_recovery.py",)
KILL = ("tests/crash/test_kill.py",)
DEATHS = ("tests/executors/test_link.py", "tests/executors/test_worker_deaths.py")
HOSTS = ("tests/executors/test_host_deaths.py",)
WINDOWS = ("tests/store/test_windows.py", "tests/runner/test_windows.py")
TURNS = ("tests/rules/test_ordering.py", "tests/store/test_turns.py")


class Mutant(NamedTuple):
    """One change, and who must catch it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


SQL = "store/sqlite/queries.sql"
WRITES = "store/sqlite/writes.py"
INSERTING = "store/sqlite/inserting.py"
CLAIMING = "store/sqlite/claiming.py"
TRANSACTION = "store/sqlite/transaction.py"
STORE_FILE = "store/sqlite/store.py"
CONNECTION = "store/sqlite/connection.py"
COMMIT = "store/group_commit.py"
OUTCOME = "rules/outcome.py"
RESCUER = "services/rescuer.py"
ENGINE = "services/engine.py"
PROCESS = "running/executors/process"

MUTANTS = (
    Mutant("complete_in takes a lost fence for done", "services/completer.py",
           'if answer != "done":', "if not answer:", ("tests/runner/test_completing.py",)),
    Mutant("what the code did last counts more than what complete_in wrote",
           "services/completer.py", 'if answer != "already":', "if answer:",
           ("tests/runner/test_completing.py",)),
    Mutant("a job whose commit is to come is taken for gone", "services/joiner.py",
           "resolver.undecided = self._of.keys()", "resolver.undecided = ()",
           ("tests/runner/test_transactions.py",)),
    Mutant("a change by hand ends with its awaiter", "services/by_hand.py",
           "await asyncio.shield(task)", "await task", ("tests/runner/test_bulk.py",)),
    Mutant("a joined transaction keeps our part after our error", "store/sqlite/joining.py",
           'connection.execute(STATEMENTS["undo_savepoint"])', "pass",
           ("tests/store/test_joining.py",)),
    Mutant("a joined connection may be less durable", "store/sqlite/joining.py",
           "if level < SYNCHRONOUS[home.durability]:", "if level < 0:",
           ("tests/store/test_joining.py",)),
    Mutant("the fence's instance is not asked for when runs end", SQL,
           "AND instance = ? AND +state = 'running';\n\n-- move",
           "AND ?2 IS NOT NULL AND +state = 'running';\n\n-- move", MODEL + STORE),
    Mutant("the fence's claim is not compared", WRITES,
           "if running.get(t.seq) == t.claim]", "if t.seq in running]", MODEL + STORE),
    Mutant("one completion does not ask for the claim", SQL,
           "WHERE seq = ?1 AND claim = ?2 AND instance = ?4 AND +state = 'running';",
           "WHERE seq = ?1 AND ?2 IS NOT NULL AND instance = ?4 AND +state = 'running';",
           MODEL + STORE),
    Mutant("one completion does not ask for the instance", SQL,
           "WHERE seq = ?1 AND claim = ?2 AND instance = ?4 AND +state = 'running';",
           "WHERE seq = ?1 AND claim = ?2 AND ?4 IS NOT NULL AND +state = 'running';",
           MODEL + STORE),
    Mutant("one completion does not ask for the state", SQL,
           "WHERE seq = ?1 AND claim = ?2 AND instance = ?4 AND +state = 'running';",
           "WHERE seq = ?1 AND claim = ?2 AND instance = ?4;", MODEL + STORE),
    Mutant("a claim does not raise the claim number", SQL,
           "instance = ?, claim = claim + 1, attempt = attempt + 1,",
           "instance = ?, claim = claim + 0, attempt = attempt + 1,", MODEL),
    Mutant("a claim charges no attempt", SQL,
           "instance = ?, claim = claim + 1, attempt = attempt + 1,",
           "instance = ?, claim = claim + 1, attempt = attempt + 0,", MODEL),
    Mutant("a claim takes jobs before they are due", SQL,
           "AND run_at <= ? AND (run_at, seq) > (?, ?)\n  ORDER",
           "AND run_at <= ? + 5000000 AND (run_at, seq) > (?, ?)\n  ORDER",
           MODEL),
    Mutant("a retry by hand does not raise the claim number", SQL,
           "finished_at = NULL, claim = claim + 1,", "finished_at = NULL, claim = claim + 0,",
           MODEL),
    Mutant("crashes are not counted", SQL, "crashes = crashes + v.column8",
           "crashes = crashes + 0 * v.column8", MODEL),
    Mutant("attempts are not given back", SQL, "attempt = attempt - v.column7",
           "attempt = attempt - 0 * v.column7", MODEL),
    Mutant("a rescue does not raise the claim number", WRITES,
           "list(transitions.values()), rise=1)", "list(transitions.values()), rise=0)", MODEL),
    Mutant("a disowned run keeps its claim number", WRITES,
           "operation.instance, transitions, rise=1)", "operation.instance, transitions, rise=0)",
           MODEL),
    Mutant("a disowning takes what is held as well", WRITES,
           "if orphan.seq not in operation.held", "if True", MODEL),
    Mutant("the journal is not told of transitions", WRITES,
           "        tx.note(t.event, (seq, claim_now))\n", "", MODEL),
    Mutant("the journal is not told of cancellations", WRITES,
           "            tx.note(Event.CANCELLED, (job.seq, job.claim))\n", "", MODEL),
    Mutant("the journal is not written", TRANSACTION,
           'self.write_rows("add_journal", rows)', "pass", MODEL),
    Mutant("counters are not written", TRANSACTION,
           'self.write_rows("add_counts", changes)', "pass", MODEL),
    Mutant("counters are not told of transitions", WRITES,
           "tx.count_move(queue, task, State.RUNNING.value, t.state.value)", "pass", MODEL),
    Mutant("running jobs may be deleted", WRITES,
           "if j.state != State.RUNNING], Event.DELETED)", "if True], Event.DELETED)", MODEL),
    Mutant("a result outlives a retry by hand", WRITES,
           'tx.fetch("delete_results", seqs)\n        ', "", MODEL),
    Mutant("keys are forgotten", INSERTING,
           "        for key, job_id, arguments in tx.fetch(\"existing_keys\", keys, task):",
           "        for key, job_id, arguments in ():", MODEL + STORE),
    Mutant("a job may crash once more than it may", OUTCOME, "if crashes + 1 >= max_crashes:",
           "if crashes >= max_crashes:", MODEL),
    Mutant("a cancel that meets the end of a run is forgotten", WRITES,
           "asked = _asked_to_cancel(tx, others)", "asked = set()", MODEL + FOUND),
    Mutant("a failed transaction is not rolled back", STORE_FILE,
           'connection.execute("ROLLBACK")', "pass", FAULTS),
    Mutant("a transaction is not committed before it is answered", STORE_FILE,
           'tx.finish()\n            connection.execute("COMMIT")', "tx.finish()", FAULTS + STORE),
    Mutant("NORMAL stands for full durability", CONNECTION,
           'SYNCHRONOUS = {"full": 2, "normal": 1}', 'SYNCHRONOUS = {"full": 1, "normal": 1}',
           STORE),
    Mutant("outcomes are dropped when the disk fails", COMMIT,
           "            self._troubled(error, batch.claim)\n"
           "            self._reports[:0] = batch.reports\n",
           "            self._troubled(error, batch.claim)\n", FAULTS),
    Mutant("outcomes are dropped while the lock is held", COMMIT,
           "        self._missed()\n        self._reports[:0] = batch.reports\n",
           "        self._missed()\n", FAULTS),
    Mutant("claims whose answer was lost are not disowned", COMMIT,
           "batch.disown = Disown(self._source.instance, self._source.held())", "pass", FAULTS),
    Mutant("an enqueue waits for a held lock for ever", COMMIT,
           "(waiting if deadline > now else over).append(item)", "waiting.append(item)", FAULTS),
    Mutant("a dead instance's jobs are left alone", RESCUER,
           'await self._rescue(instance, "its process died")', "pass", RECOVERY),
    Mutant("a stopped instance's jobs are left alone", RESCUER,
           'await self._rescue(instance, "its process was stopped for longer than a lease")',
           "pass", ZOMBIE),
    Mutant("a zombie keeps what it is", ENGINE,
           "        self.dispatcher.instance = self._instance.id\n", "", ZOMBIE + FOUND),
    Mutant("a zombie's former self is not rescued", ENGINE,
           "        self._rescuer.abandon(former.id)\n", "", FOUND),
    Mutant("what could not be sent is taken for read", f"{PROCESS}/link.py",
           "self._end(RESET if self._unsent or self._refused else CLOSED)", "self._end(CLOSED)",
           DEATHS),
    Mutant("a job that had begun is run again", f"{PROCESS}/worker.py",
           "return self.spoke or not self.unread if", "return not self.unread if", DEATHS),
    Mutant("workers do not keep the lock of their host", f"{PROCESS}/server.py",
           "self._guard = self._descriptors.pop(0)", "os.close(self._descriptors.pop(0))", HOSTS),
    Mutant("workers work on without their host", f"{PROCESS}/server.py",
           '"""The host has gone: nobody may be left when its lock becomes free."""',
           "time.sleep(2.5)", HOSTS + KILL),
    Mutant("a backlog starts outside its window", CLAIMING,
           "(opens_at := closed_until(row[OPTIONS], self._now))", "(opens_at := 0)", WINDOWS),
    Mutant("a job that is put off is looked for no more", CLAIMING,
           'due += [tx.value("next_parked", task, tx.now) for task in operation.tasks]', "pass",
           WINDOWS),
    Mutant("a direct start does not ask for the window", "store/sqlite/starting.py",
           "if closed_until(job.options, now) is not None:\n            return False", "pass",
           WINDOWS),
    Mutant("a window that closes before the start is not seen", "services/dispatcher.py",
           "if self.draining or closed:", "if self.draining:", WINDOWS),
    Mutant("a claim forgets whose turn it is", "store/sqlite/turning.py",
           "left = self._turns.left()", "left: dict[str, int] = {}",
           TURNS),
    Mutant("an idle queue saves its turns up", "rules/ordering.py",
           "return {queue: at - last for", "return {queue: at for", TURNS),
    Mutant("age counts for nothing", "rules/ordering.py",
           "priority + (now - run_at) // ageing", "priority", TURNS),
)  # fmt: skip
