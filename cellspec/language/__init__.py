"""The spec language: what a file says, and whether it means anything."""
