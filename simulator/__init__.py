"""A pump that can be wrong on purpose. Meets the rest of the house only as bytes on a wire."""
