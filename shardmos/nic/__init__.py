"""Receive queues of a network card: as many as workers, both directions of a flow to one, each on its core."""
