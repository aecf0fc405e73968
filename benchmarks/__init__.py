"""What the engine costs, each figure held against the floor and against its bar."""
