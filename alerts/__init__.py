"""From "it is true" to "somebody knows". Knows no other package of this house."""
