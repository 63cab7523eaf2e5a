"""NumPy: standalone modules, feature-major inside, fast from the first step."""
