"""What all tests share: our own plugin."""

pytest_plugins = ["asyncjobs.testing"]
