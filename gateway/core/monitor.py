"""The heart: one pump, one prescription, one reading after another."""
