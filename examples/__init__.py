"""Small programs that run, each tested."""
