"""Bytes from a pump to readings. Knows no other package of this house."""
