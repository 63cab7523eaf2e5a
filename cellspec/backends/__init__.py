"""One folder a backend: from schedules to the text of a module."""
