"""How a job's code is run: as a coroutine or in a thread."""
