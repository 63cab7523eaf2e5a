"""Generated code held against the source equations."""
