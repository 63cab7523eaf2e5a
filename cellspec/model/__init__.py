"""A cell as the compiler knows it, and the table of its functions."""
