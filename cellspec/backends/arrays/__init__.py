"""What targets that work on whole arrays share: their code as data, what it says of memory, and its text."""
