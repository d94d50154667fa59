"""Rules of gradient descent: from a cost and parameters to the ``updates`` of a function.

Every rule takes ``loss_or_grads``, a scalar cost or the list of its gradients, and ``params``, the
list of shared variables to change.  It returns a dict from shared variable to its new value, in
which a rule that remembers something has its own shared variables too: always in the same order,
named after the parameter and the rule ('W.adam_m'), of the parameter's dtype, zeros at first.

A learning rate, and every other number of a rule, may be a number, a shared variable (``set_value``
then changes it between calls) or a symbolic scalar.  Below, g is the gradient of a parameter p.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import tinygraph.tensor as T
from tinygraph import grad, shared
from tinygraph.compile.variables import SharedVariable
from tinygraph.graph import Value, describe
from tinygraph_rnn.utils import as_axes, floatX

Updates = dict[Any, Any]


def get_or_compute_grads(loss_or_grads: Any, params: Sequence[Any]) -> list[Any]:
    """The gradients of ``params``: as given, or of the cost.

    Raises ValueError where a parameter is not a shared variable (it could not be updated) or stands
    in the list twice, or the number of gradients is another than that of the parameters; TypeError
    for a parameter of integers.
    """
    for k, p in enumerate(params):
        if not isinstance(p, SharedVariable):
            what = describe(p) if isinstance(p, Value) else repr(p)
            raise ValueError(f"only shared variables can be updated, but params holds {what}; for "
                             "an expression pass its shared variables, as "
                             "get_all_params(unwrap_shared=True) gives them")
        if not p.type.dtype.is_float:
            raise TypeError(f"params holds {describe(p)}, which has no gradient to follow: leave "
                            "it out, or make it of floats")
        if any(p is q for q in params[:k]):
            raise ValueError(f"params holds {describe(p)} twice; pass it once, as "
                             "utils.unique(params) does")
    if not isinstance(loss_or_grads, (list, tuple)):
        return list(grad(loss_or_grads, list(params)))
    if len(loss_or_grads) != len(params):
        raise ValueError(f"{len(loss_or_grads)} gradients are given for {len(params)} parameters")
    return [_as(p, g) for p, g in zip(params, loss_or_grads, strict=True)]


def _state(p: Any, what: str) -> Any:
    """A shared variable of zeros of the shape, dtype and broadcasting of ``p``."""
    return shared(np.zeros(p.storage.shape, p.dtype), name=f"{p.name or 'param'}.{what}",
                  broadcastable=p.broadcastable)


def _as(p: Any, x: Any) -> Any:
    """``x``, a number or an expression, such that it leaves the dtype of ``p`` as it is."""
    if isinstance(x, np.ndarray):
        x = T.as_tensor_variable(x)
    return T.cast(x, p.dtype) if isinstance(x, Value) and x.dtype != p.dtype else x


def sgd(loss_or_grads: Any, params: Sequence[Any], learning_rate: Any) -> Updates:
    """Stochastic gradient descent: p <- p - learning_rate g."""
    grads = get_or_compute_grads(loss_or_grads, params)
    return {p: p - _as(p, learning_rate) * g for p, g in zip(params, grads, strict=True)}


def apply_momentum(updates: Mapping[Any, Any], params: Sequence[Any] | None = None,
                   momentum: Any = 0.9) -> Updates:
    """Other updates with momentum (Polyak 1964): v <- momentum v + (new p - p), p <- p + v.

    params: the ones to treat, all in ``updates`` by default.  Raises ValueError for one that is not
    in ``updates``.
    """
    out = _copied(updates, params)
    for p in list(updates) if params is None else params:
        velocity = _state(p, "velocity")
        x = _as(p, momentum) * velocity + _as(p, out[p])
        out[velocity] = x - p
        out[p] = x
    return out


def _copied(updates: Mapping[Any, Any], params: Sequence[Any] | None) -> Updates:
    missing = [p for p in params or () if p not in updates]
    if missing:
        raise ValueError(f"momentum is asked for {describe(missing[0])}, which has no update")
    return dict(updates)


def momentum(loss_or_grads: Any, params: Sequence[Any], learning_rate: Any,
             momentum: Any = 0.9) -> Updates:
    """Gradient descent with momentum (Polyak 1964): v <- momentum v - learning_rate g,
    p <- p + v."""
    return apply_momentum(sgd(loss_or_grads, params, learning_rate), momentum=momentum)


def apply_nesterov_momentum(updates: Mapping[Any, Any], params: Sequence[Any] | None = None,
                            momentum: Any = 0.9) -> Updates:
    """Other updates with Nesterov's momentum, in the form that takes the gradient at p
    (Bengio, Boulanger-Lewandowski and Pascanu 2012, arXiv:1212.0901, section 3.5):
    v <- momentum v + (new p - p), p <- p + momentum v + (new p - p), with the new v.

    params: the ones to treat, all in ``updates`` by default.  Raises ValueError for one that is not
    in ``updates``.
    """
    out = _copied(updates, params)
    for p in list(updates) if params is None else params:
        velocity, rate = _state(p, "velocity"), _as(p, momentum)
        new = _as(p, out[p])
        x = rate * velocity + (new - p)
        out[velocity] = x
        out[p] = rate * x + new
    return out


def nesterov_momentum(loss_or_grads: Any, params: Sequence[Any], learning_rate: Any,
                      momentum: Any = 0.9) -> Updates:
    """Gradient descent with Nesterov's momentum: v <- momentum v - learning_rate g,
    p <- p + momentum v - learning_rate g, with the new v (see ``apply_nesterov_momentum``)."""
    return apply_nesterov_momentum(sgd(loss_or_grads, params, learning_rate), momentum=momentum)


def adagrad(loss_or_grads: Any, params: Sequence[Any], learning_rate: Any = 1.0,
            epsilon: Any = 1e-6) -> Updates:
    """Duchi, Hazan and Singer 2011 (JMLR 12): s <- s + g^2,
    p <- p - learning_rate g / sqrt(s + epsilon)."""
    out: Updates = {}
    for p, g in zip(params, get_or_compute_grads(loss_or_grads, params), strict=True):
        total = _state(p, "adagrad_s")
        out[total] = new = total + g ** 2
        out[p] = p - _as(p, learning_rate) * g / T.sqrt(new + _as(p, epsilon))
    return out


def rmsprop(loss_or_grads: Any, params: Sequence[Any], learning_rate: Any = 1.0, rho: Any = 0.9,
            epsilon: Any = 1e-6) -> Updates:
    """Tieleman and Hinton 2012 (Neural Networks for Machine Learning, lecture 6.5):
    s <- rho s + (1 - rho) g^2, p <- p - learning_rate g / sqrt(s + epsilon)."""
    out: Updates = {}
    for p, g in zip(params, get_or_compute_grads(loss_or_grads, params), strict=True):
        mean = _state(p, "rmsprop_s")
        out[mean] = new = _blend(p, rho, mean, g ** 2)
        out[p] = p - _as(p, learning_rate) * g / T.sqrt(new + _as(p, epsilon))
    return out


def _blend(p: Any, beta: Any, old: Any, new: Any) -> Any:
    """beta old + (1 - beta) new."""
    return _as(p, beta) * old + _as(p, 1 - beta) * new


def adadelta(loss_or_grads: Any, params: Sequence[Any], learning_rate: Any = 1.0,
             rho: Any = 0.95, epsilon: Any = 1e-6) -> Updates:
    """Zeiler 2012 (arXiv:1212.5701, algorithm 1, there with learning_rate 1):
    s <- rho s + (1 - rho) g^2, u = g sqrt(d + epsilon) / sqrt(s + epsilon),
    p <- p - learning_rate u, d <- rho d + (1 - rho) u^2."""
    out: Updates = {}
    for p, g in zip(params, get_or_compute_grads(loss_or_grads, params), strict=True):
        mean, delta = _state(p, "adadelta_s"), _state(p, "adadelta_d")
        small = _as(p, epsilon)
        out[mean] = new = _blend(p, rho, mean, g ** 2)
        update = g * T.sqrt(delta + small) / T.sqrt(new + small)
        out[p] = p - _as(p, learning_rate) * update
        out[delta] = _blend(p, rho, delta, update ** 2)
    return out


def adam(loss_or_grads: Any, params: Sequence[Any], learning_rate: Any = 0.001,
         beta1: Any = 0.9, beta2: Any = 0.999, epsilon: Any = 1e-8) -> Updates:
    """Kingma and Ba 2014 (arXiv:1412.6980), with their defaults and the order of computation of
    their section 2: t <- t + 1, m <- beta1 m + (1 - beta1) g, v <- beta2 v + (1 - beta2) g^2,
    p <- p - learning_rate sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + epsilon)."""
    grads = get_or_compute_grads(loss_or_grads, params)
    steps, t = _counter("adam")
    rate = learning_rate * T.sqrt(_one_minus_power(beta2, t)) / _one_minus_power(beta1, t)
    out: Updates = {}
    for p, g in zip(params, grads, strict=True):
        mean, square = _state(p, "adam_m"), _state(p, "adam_v")
        out[mean] = m = _blend(p, beta1, mean, g)
        out[square] = v = _blend(p, beta2, square, g ** 2)
        out[p] = p - _as(p, rate) * m / (T.sqrt(v) + _as(p, epsilon))
    out[steps] = t
    return out


def _counter(rule: str) -> tuple[Any, Any]:
    """How many steps were made before, a shared scalar, and with this one."""
    steps = shared(floatX(0.0), name=f"{rule}_t")
    return steps, steps + 1


def _one_minus_power(beta: Any, t: Any) -> Any:
    """1 - beta^t, of which float32 would leave four digits where beta is 0.999 and t is 1."""
    if isinstance(beta, Value):
        return -T.expm1(t * T.log(beta))
    return -T.expm1(t * math.log(beta)) if beta > 0 else 1.0


def adamax(loss_or_grads: Any, params: Sequence[Any], learning_rate: Any = 0.002,
           beta1: Any = 0.9, beta2: Any = 0.999, epsilon: Any = 1e-8) -> Updates:
    """Kingma and Ba 2014, section 7.1: t and m as in ``adam``, u <- max(beta2 u, |g|),
    p <- p - learning_rate / (1 - beta1^t) m / (u + epsilon)."""
    grads = get_or_compute_grads(loss_or_grads, params)
    steps, t = _counter("adamax")
    rate = learning_rate / _one_minus_power(beta1, t)
    out: Updates = {}
    for p, g in zip(params, grads, strict=True):
        mean, largest = _state(p, "adamax_m"), _state(p, "adamax_u")
        out[mean] = m = _blend(p, beta1, mean, g)
        out[largest] = u = T.maximum(_as(p, beta2) * largest, abs(g))
        out[p] = p - _as(p, rate) * m / (u + _as(p, epsilon))
    out[steps] = t
    return out


def amsgrad(loss_or_grads: Any, params: Sequence[Any], learning_rate: Any = 0.001,
            beta1: Any = 0.9, beta2: Any = 0.999, epsilon: Any = 1e-8) -> Updates:
    """Reddi, Kale and Kumar 2018 (On the Convergence of Adam and Beyond): t, m and v as in
    ``adam``, w <- max(w, v),
    p <- p - learning_rate sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(w) + epsilon)."""
    grads = get_or_compute_grads(loss_or_grads, params)
    steps, t = _counter("amsgrad")
    rate = learning_rate * T.sqrt(_one_minus_power(beta2, t)) / _one_minus_power(beta1, t)
    out: Updates = {}
    for p, g in zip(params, grads, strict=True):
        mean, square = _state(p, "amsgrad_m"), _state(p, "amsgrad_v")
        largest = _state(p, "amsgrad_v_hat")
        out[mean] = m = _blend(p, beta1, mean, g)
        out[square] = v = _blend(p, beta2, square, g ** 2)
        out[largest] = w = T.maximum(largest, v)
        out[p] = p - _as(p, rate) * m / (T.sqrt(w) + _as(p, epsilon))
    out[steps] = t
    return out


def norm_constraint(tensor_var: Any, max_norm: Any, norm_axes: Sequence[int] | None = None,
                    epsilon: Any = 1e-7) -> Any:
    """``tensor_var`` with the norm of every unit's incoming weights scaled down to ``max_norm``
    where it is larger (Srebro and Shraibman 2005; Hinton et al. 2012, arXiv:1207.0580):
    x min(norm, max_norm) / (epsilon + norm).

    norm_axes: the axes that a norm runs over; the first of a matrix, all but the first of an
    array of more axes by default.  Raises ValueError for a vector without norm_axes.
    """
    if norm_axes is None:
        if tensor_var.ndim < 2:
            raise ValueError(f"{describe(tensor_var)} has {tensor_var.ndim} axes: pass norm_axes, "
                             "the axes that a norm runs over")
        norm_axes = (0,) if tensor_var.ndim == 2 else range(1, tensor_var.ndim)
    bound, small = _as(tensor_var, max_norm), _as(tensor_var, epsilon)
    norms = T.sqrt(T.sum(tensor_var ** 2, axis=as_axes(norm_axes), keepdims=True))
    return tensor_var * (T.clip(norms, 0, bound) / (small + norms))


def total_norm_constraint(tensor_vars: Sequence[Any], max_norm: Any, epsilon: Any = 1e-7,
                          return_norm: bool = False) -> Any:
    """The list ``tensor_vars``, as a rule all gradients, scaled by one factor so that their joint
    norm is at most ``max_norm`` (Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063):
    x min(norm, max_norm) / (epsilon + norm), where norm = sqrt(sum of all x^2).

    Returns the list, or with return_norm a pair of it and the norm before.  Raises ValueError for
    an empty list.
    """
    if not tensor_vars:
        raise ValueError("total_norm_constraint is given no variable; pass the list of gradients")
    norm = T.sqrt(sum(T.sum(v ** 2) for v in tensor_vars))
    factor = T.minimum(norm, _as(norm, max_norm)) / (_as(norm, epsilon) + norm)
    scaled = [v * _as(v, factor) for v in tensor_vars]
    return (scaled, norm) if return_norm else scaled
