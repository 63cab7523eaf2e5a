"""The passes: cells and programs into programs, and programs into schedules."""
