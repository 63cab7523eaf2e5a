"""What goes wrong on a GPU as a crash, a hang or wrong numbers is an exception here."""

from __future__ import annotations


class CudaHostError(Exception):
    """A kernel, or the way it is launched, breaks a rule of CUDA; the message is one sentence."""


class LaunchError(CudaHostError):
    """A launch that CUDA refuses: its configuration, or arguments that do not fit the kernel's parameters."""


class ExecutionError(CudaHostError):
    """A kernel that CUDA would run, to no good end: a divergent barrier, a deadlock, a failed assertion."""


class CompileError(CudaHostError):
    """The compiler refuses the kernel text; the message holds what it says."""
