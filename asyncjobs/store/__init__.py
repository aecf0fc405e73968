"""Where jobs live: one batch-shaped protocol, and the engines behind it."""
