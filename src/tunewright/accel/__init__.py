"""What makes training faster: each choice with its reason."""

from tunewright.accel.choices import Choice, Speeds, batching, precision
from tunewright.accel.techniques import KERNELS, TECHNIQUES, TOKENS, Ways, Work, techniques, work_of

__all__ = [
    "KERNELS",
    "TECHNIQUES",
    "TOKENS",
    "Choice",
    "Speeds",
    "Ways",
    "Work",
    "batching",
    "measure_speeds",
    "precision",
    "techniques",
    "work_of",
]


def measure_speeds(device: str) -> Speeds:
    """Return how fast this machine multiplies matrices, measured in well under a second."""
    from tunewright.accel._probe import measure_speeds as body

    return body(device)
