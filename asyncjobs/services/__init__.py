"""The loops beside the jobs: one service a verb."""
