"""The constants that every implementation of a workload has to agree on.

An epsilon is so small that its place in an optimiser's formula, which differs between the
systems, does not show.
"""

from __future__ import annotations

ADAM_RATE, BETA1, BETA2, ADAM_EPSILON = 1e-3, 0.9, 0.999, 1e-16
ADAGRAD_RATE, ADAGRAD_EPSILON = 1e-2, 1e-16
SGD_RATE = 0.2
CLIP = 100.0
