"""The gateway in the home: compose, judge, remember."""
