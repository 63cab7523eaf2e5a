"""Memory, for every backend: what a buffer is, which of them share a place over time, and which values share one."""
