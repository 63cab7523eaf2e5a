"""Equations printed for people."""
