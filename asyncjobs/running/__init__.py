"""Running one job: its context, its executor, and the word on how it ended."""
