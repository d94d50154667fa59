"""A double pendulum with a motor in its lower joint, and trajectories for it to follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygraph_rnn.utils import floatX


@dataclass(frozen=True)
class Pendulum:
    """Two rods without mass, each with a mass at its end, the second hanging from the first.

    mass_1, mass_2 (kg), length_1, length_2 (m), gravity (m/s^2), dt: the time of a step (s).
    The state is (angle 1, its rate, angle 2, its rate), angles from the vertical in rad.
    """

    mass_1: float = 1.0
    mass_2: float = 1.0
    length_1: float = 1.0
    length_2: float = 1.0
    gravity: float = 9.8
    dt: float = 0.05

    def accelerations(self, a1: Any, w1: Any, a2: Any, w2: Any, ops: Any = np) -> tuple[Any, Any]:
        """The angular accelerations of both arms, without a motor (rad/s^2).

        ops: where sin and cos come from, ``numpy`` or ``tinygraph.tensor``; the arguments are of
        its kind.  These are Lagrange's equations of the two angles, solved for their second
        derivatives.
        """
        m1, m2, l1, l2, g = (self.mass_1, self.mass_2, self.length_1, self.length_2, self.gravity)
        total = m1 + m2
        sin, cos = ops.sin(a2 - a1), ops.cos(a2 - a1)
        share = total - m2 * cos * cos
        first = (m2 * l1 * w1 * w1 * sin * cos + m2 * g * ops.sin(a2) * cos
                 + m2 * l2 * w2 * w2 * sin - total * g * ops.sin(a1)) / (l1 * share)
        second = (-m2 * l2 * w2 * w2 * sin * cos + total * g * ops.sin(a1) * cos
                  - total * l1 * w1 * w1 * sin - total * g * ops.sin(a2)) / (l2 * share)
        return first, second

    def step(self, x: np.ndarray, u: Any = 0.0) -> np.ndarray:
        """The state one step of Euler's method after ``x`` (..., 4), while the motor accelerates
        the second angle by ``u`` (rad/s^2)."""
        a1, w1, a2, w2 = np.moveaxis(np.asarray(x), -1, 0)
        first, second = self.accelerations(a1, w1, a2, w2)
        return x + self.dt * np.stack([w1, first, w2, second + u], axis=-1)


def pendulum_batch(n_batch: int = 20, steps: int = 40, spring: float = 6.0, damping: float = 3.0,
                   pendulum: Pendulum | None = None, rng: Any = None
                   ) -> tuple[np.ndarray, np.ndarray]:
    """Trajectories of a pendulum whose motor acts as a spring and a damper.

    The motor gives ``-spring * angle 2 - damping * rate 2``; a network that is to steer the
    pendulum along these trajectories has to find that out from the angles.  The pendulum starts
    at rest, both angles drawn from [-0.5, 0.5].
    Returns the first states (n_batch, 4) and all later ones (steps, n_batch, 4), of floatX.
    rng: a ``numpy.random.Generator`` or an integer seed (None: unpredictable).
    """
    pendulum = pendulum or Pendulum()
    rng = np.random.default_rng(rng)
    start = np.zeros((n_batch, 4))
    start[:, ::2] = rng.uniform(-0.5, 0.5, size=(n_batch, 2))
    path = [start]
    for _ in range(steps):
        x = path[-1]
        path.append(pendulum.step(x, -spring * x[:, 2] - damping * x[:, 3]))
    return floatX(start), floatX(np.reshape(path[1:], (steps, n_batch, 4)))
