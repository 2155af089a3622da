"""Is delivery as prescribed? Pure: no clock, no file, no thread."""
