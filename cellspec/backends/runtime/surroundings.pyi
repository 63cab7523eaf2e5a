"""What generated modules define elsewhere, by templates, and run-time functions of all backends use."""

from typing import Any

import numpy as np

def _on_host(name: str, value: Any) -> np.ndarray: ...
