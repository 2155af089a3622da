"""Recordings of every family's simulated pump, and of a real one where its frames are public."""
