"""Room 8: when to look at a model that trains, and what is kept of each look."""

from afterglow.probes.probe import Probe
from afterglow.probes.progress import Progress

__all__ = ["Probe", "Progress"]
