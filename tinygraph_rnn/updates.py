"""Rules of gradient descent: from a cost and parameters to the ``updates`` of a function.

Every rule takes ``loss_or_grads``, a scalar cost or the list of its gradients, and ``params``, the
list of shared variables to change; it returns a dict from shared variable to its new value, in
which a rule that remembers something has its own shared variables too.  A learning rate may be a
number or a symbolic scalar.  Below, g is the gradient of a parameter p.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import tinygraph.tensor as T
from tinygraph import grad, shared
from tinygraph.compile.variables import SharedVariable
from tinygraph.graph import describe
from tinygraph_rnn.utils import floatX

Updates = dict[Any, Any]


def get_or_compute_grads(loss_or_grads: Any, params: Sequence[Any]) -> list[Any]:
    """The gradients of ``params``: as given, or of the cost.

    Raises ValueError where a parameter is not a shared variable (it could not be updated) or the
    number of gradients is another than that of the parameters.
    """
    for p in params:
        if not isinstance(p, SharedVariable):
            raise ValueError(f"only shared variables can be updated, but params holds "
                             f"{describe(p)}; for an expression pass its shared variables, as "
                             "get_all_params(unwrap_shared=True) gives them")
    if not isinstance(loss_or_grads, (list, tuple)):
        return list(grad(loss_or_grads, list(params)))
    if len(loss_or_grads) != len(params):
        raise ValueError(f"{len(loss_or_grads)} gradients are given for {len(params)} parameters")
    return list(loss_or_grads)


def _like(p: Any) -> Any:
    """A shared variable of zeros of the shape, dtype and broadcasting of ``p``."""
    return shared(np.zeros_like(p.get_value(borrow=True)), broadcastable=p.broadcastable)


def sgd(loss_or_grads: Any, params: Sequence[Any], learning_rate: Any) -> Updates:
    """Stochastic gradient descent: p - learning_rate g."""
    grads = get_or_compute_grads(loss_or_grads, params)
    return {p: p - learning_rate * g for p, g in zip(params, grads, strict=True)}


def apply_momentum(updates: Mapping[Any, Any], params: Sequence[Any] | None = None,
                   momentum: Any = 0.9) -> Updates:
    """Other updates with momentum (Polyak 1964): v <- momentum v + (new p - p), p <- p + v.

    params: the ones to treat, all in ``updates`` by default.
    """
    out = dict(updates)
    for p in list(updates) if params is None else params:
        velocity = _like(p)
        x = momentum * velocity + out[p]
        out[velocity] = x - p
        out[p] = x
    return out


def momentum(loss_or_grads: Any, params: Sequence[Any], learning_rate: Any,
             momentum: Any = 0.9) -> Updates:
    """Gradient descent with momentum: v <- momentum v - learning_rate g, p <- p + v."""
    return apply_momentum(sgd(loss_or_grads, params, learning_rate), momentum=momentum)


def apply_nesterov_momentum(updates: Mapping[Any, Any], params: Sequence[Any] | None = None,
                            momentum: Any = 0.9) -> Updates:
    """Other updates with Nesterov's momentum, in the form that takes the gradient at p
    (Bengio, Boulanger-Lewandowski and Pascanu 2012, section 3.5):
    v <- momentum v + (new p - p), p <- p + momentum v + (new p - p)."""
    out = dict(updates)
    for p in list(updates) if params is None else params:
        velocity = _like(p)
        step = out[p] - p
        x = momentum * velocity + step
        out[velocity] = x
        out[p] = momentum * x + out[p]
    return out


def nesterov_momentum(loss_or_grads: Any, params: Sequence[Any], learning_rate: Any,
                      momentum: Any = 0.9) -> Updates:
    """Gradient descent with Nesterov's momentum: v <- momentum v - learning_rate g,
    p <- p + momentum v - learning_rate g."""
    return apply_nesterov_momentum(sgd(loss_or_grads, params, learning_rate), momentum=momentum)


def adagrad(loss_or_grads: Any, params: Sequence[Any], learning_rate: Any = 1.0,
            epsilon: float = 1e-6) -> Updates:
    """Duchi, Hazan and Singer 2011: s <- s + g^2, p <- p - learning_rate g / sqrt(s + epsilon)."""
    out: Updates = {}
    for p, g in zip(params, get_or_compute_grads(loss_or_grads, params), strict=True):
        total = _like(p)
        out[total] = new = total + g ** 2
        out[p] = p - learning_rate * g / T.sqrt(new + epsilon)
    return out


def rmsprop(loss_or_grads: Any, params: Sequence[Any], learning_rate: Any = 1.0, rho: float = 0.9,
            epsilon: float = 1e-6) -> Updates:
    """Tieleman and Hinton 2012 (lecture 6.5): s <- rho s + (1 - rho) g^2,
    p <- p - learning_rate g / sqrt(s + epsilon)."""
    out: Updates = {}
    for p, g in zip(params, get_or_compute_grads(loss_or_grads, params), strict=True):
        mean = _like(p)
        out[mean] = new = rho * mean + (1 - rho) * g ** 2
        out[p] = p - learning_rate * g / T.sqrt(new + epsilon)
    return out


def adadelta(loss_or_grads: Any, params: Sequence[Any], learning_rate: Any = 1.0,
             rho: float = 0.95, epsilon: float = 1e-6) -> Updates:
    """Zeiler 2012: s <- rho s + (1 - rho) g^2, u = g sqrt(d + epsilon) / sqrt(s + epsilon),
    p <- p - learning_rate u, d <- rho d + (1 - rho) u^2."""
    out: Updates = {}
    for p, g in zip(params, get_or_compute_grads(loss_or_grads, params), strict=True):
        mean, delta = _like(p), _like(p)
        out[mean] = new = rho * mean + (1 - rho) * g ** 2
        update = g * T.sqrt(delta + epsilon) / T.sqrt(new + epsilon)
        out[p] = p - learning_rate * update
        out[delta] = rho * delta + (1 - rho) * update ** 2
    return out


def adam(loss_or_grads: Any, params: Sequence[Any], learning_rate: Any = 0.001,
         beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> Updates:
    """Kingma and Ba 2014, Adam, with their defaults and the order of computation of their
    section 2: m <- beta1 m + (1 - beta1) g, v <- beta2 v + (1 - beta2) g^2,
    p <- p - learning_rate sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + epsilon)."""
    grads = get_or_compute_grads(loss_or_grads, params)
    steps = shared(floatX(0.0), name="adam.t")
    t = steps + 1
    rate = learning_rate * T.sqrt(1 - beta2 ** t) / (1 - beta1 ** t)
    out: Updates = {}
    for p, g in zip(params, grads, strict=True):
        mean, square = _like(p), _like(p)
        out[mean] = m = beta1 * mean + (1 - beta1) * g
        out[square] = v = beta2 * square + (1 - beta2) * g ** 2
        out[p] = p - rate * m / (T.sqrt(v) + epsilon)
    out[steps] = t
    return out


def adamax(loss_or_grads: Any, params: Sequence[Any], learning_rate: Any = 0.002,
           beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> Updates:
    """Kingma and Ba 2014, section 7.1: m as in ``adam``, u <- max(beta2 u, |g|),
    p <- p - learning_rate / (1 - beta1^t) m / (u + epsilon)."""
    grads = get_or_compute_grads(loss_or_grads, params)
    steps = shared(floatX(0.0), name="adamax.t")
    t = steps + 1
    rate = learning_rate / (1 - beta1 ** t)
    out: Updates = {}
    for p, g in zip(params, grads, strict=True):
        mean, largest = _like(p), _like(p)
        out[mean] = m = beta1 * mean + (1 - beta1) * g
        out[largest] = u = T.maximum(beta2 * largest, abs(g))
        out[p] = p - rate * m / (u + epsilon)
    out[steps] = t
    return out


def norm_constraint(tensor_var: Any, max_norm: float, norm_axes: Sequence[int] | None = None,
                    epsilon: float = 1e-7) -> Any:
    """``tensor_var`` with the norm of every unit's incoming weights scaled down to ``max_norm``
    where it is larger (Srebro and Shraibman 2005; Hinton et al. 2012).

    norm_axes: the axes that a norm runs over; the first of a matrix, all but the first of an
    array of more axes by default.  Raises ValueError for a vector without norm_axes.
    """
    if norm_axes is None:
        if tensor_var.ndim < 2:
            raise ValueError(f"{describe(tensor_var)} has {tensor_var.ndim} axes: pass norm_axes, "
                             "the axes that a norm runs over")
        norm_axes = (0,) if tensor_var.ndim == 2 else range(1, tensor_var.ndim)
    norms = T.sqrt(T.sum(tensor_var ** 2, axis=tuple(norm_axes), keepdims=True))
    return tensor_var * (T.clip(norms, 0, max_norm) / (epsilon + norms))


def total_norm_constraint(tensor_vars: Sequence[Any], max_norm: float, epsilon: float = 1e-7,
                          return_norm: bool = False) -> Any:
    """The list ``tensor_vars`` scaled by one factor so that their joint norm is ``max_norm`` at
    the most (Pascanu, Mikolov and Bengio 2013); with return_norm a pair with the norm before."""
    norm = T.sqrt(sum(T.sum(v ** 2) for v in tensor_vars))
    factor = T.minimum(norm, max_norm) / (epsilon + norm)
    scaled = [v * factor for v in tensor_vars]
    return (scaled, norm) if return_norm else scaled
