"""What cells are trained with: a cost over parts of sequences, and rules of gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import tinygraph.tensor as T
from tinygraph import grad, shared
from tinygraph.graph import describe
from tinygraph_rnn.utils import floatX


def masked_loss(predictions: Any, labels: Any, lengths: Any, starts: Any) -> Any:
    """The cost of coding labels by predictions, over a part of each sequence: (batch,).

    predictions: (batch, time, classes), probabilities.  labels: (batch, time), class numbers.
    starts, lengths: (batch,), integers: sequence i counts from step starts[i] on, lengths[i]
    steps long, so its cost is -sum log predictions[i, t, labels[i, t]] over these t.  What stands
    elsewhere in labels does not matter as long as it is a class number, nor what stands in
    predictions; nan or 0 there does no harm, and no gradient goes there.

    This masks costs, not states: a recurrent network that ran over padding before the part that
    counts has another state there than one that did not.  Pad behind the end, or carry states
    over padding: ``StackedCells.forward(..., mask=)``, ``carry_over_padding``.

    Raises TypeError for other ranks or kinds of numbers.
    """
    p, y, n, s = (T.as_tensor_variable(v) for v in (predictions, labels, lengths, starts))
    for what, v, ndim, kind in (("predictions", p, 3, "floats"), ("labels", y, 2, "integers"),
                                ("lengths", n, 1, "integers"), ("starts", s, 1, "integers")):
        fits = v.type.dtype.is_float if kind == "floats" else v.type.dtype.is_int
        if v.ndim != ndim or not fits:
            raise TypeError(f"masked_loss: {what} must have {ndim} axes of {kind}, not "
                            f"{describe(v)}")
    batch, time = p.shape[0], p.shape[1]
    rows, steps = T.arange(batch)[:, None], T.arange(time)[None, :]
    counts = (steps >= s[:, None]) & (steps < (s + n)[:, None])
    chosen = p[rows, steps, y]
    # The choice comes before the logarithm, so that its gradient never meets a 0 outside.
    return -T.sum(T.log(T.switch(counts, chosen, 1)), axis=1)


def create_optimization_updates(cost: Any, params: Sequence[Any], updates: Any = None,
                                max_norm: float | None = 5.0, lr: float = 0.01, eps: float = 1e-6,
                                rho: float = 0.95, method: str = "adadelta",
                                gradients: Sequence[Any] | None = None
                                ) -> tuple[dict[Any, Any], list[Any], list[Any], Any, Any]:
    """Updates that lower ``cost``, and the shared variables that steer them.

    With g the gradient of a parameter p, scaled down to norm ``max_norm`` where it is larger
    (each parameter by itself; None or False: never), or what ``gradients`` holds in its place, the
    methods are

        sgd       p <- p - lr g
        adagrad   s <- s + g^2;  p <- p - lr g / sqrt(s + eps)   (Duchi, Hazan and Singer 2011)
        adadelta  s <- rho s + (1 - rho) g^2;  u = g sqrt((d + eps) / (s + eps));
                  p <- p - u;  d <- rho d + (1 - rho) u^2        (Zeiler 2012, arXiv:1212.5701)

    Returns (updates, gsums, xsums, lr, max_norm): a dict, the one given as ``updates`` with more
    entries; the shared variables s and d of every parameter (None where a method has none); lr,
    or for adadelta, which has none, rho; and max_norm, as shared scalars, so that set_value
    changes them between calls.

    Raises ValueError for another method.
    """
    if method not in ("adadelta", "adagrad", "sgd"):
        raise ValueError(f"method is {method!r}; it must be 'adadelta', 'adagrad' or 'sgd'")
    clipped = max_norm is not None and max_norm is not False
    bound = shared(floatX(max_norm), name="max_norm") if clipped else max_norm
    rate = shared(floatX(rho), name="rho") if method == "adadelta" else shared(floatX(lr), "lr")
    out: dict[Any, Any] = {} if updates is None else updates
    gsums: list[Any] = []
    xsums: list[Any] = []
    found = grad(cost, list(params)) if gradients is None else gradients
    for p, g in zip(params, found, strict=True):
        if clipped:
            g = _scaled_down(g, bound)
        gsums.append(None if method == "sgd" else _zeros(p, "gsum"))
        xsums.append(_zeros(p, "xsum") if method == "adadelta" else None)
        if method == "sgd":
            change = rate * g
        elif method == "adagrad":
            out[gsums[-1]] = total = _as(p, gsums[-1] + g ** 2)
            change = rate * g / T.sqrt(total + eps)
        else:
            out[gsums[-1]] = mean = _as(p, rate * gsums[-1] + (1 - rate) * g ** 2)
            change = g * T.sqrt((xsums[-1] + eps) / (mean + eps))
            out[xsums[-1]] = _as(p, rate * xsums[-1] + (1 - rate) * change ** 2)
        out[p] = _as(p, p - change)
    return out, gsums, xsums, rate, bound


def _zeros(p: Any, what: str) -> Any:
    """A shared variable of zeros like ``p``."""
    value = np.zeros(p.storage.shape, p.dtype)
    return shared(value, name=f"{p.name or 'param'}.{what}", broadcastable=p.broadcastable)


def _as(p: Any, x: Any) -> Any:
    return x if x.dtype == p.dtype else T.cast(x, p.dtype)


def _scaled_down(g: Any, bound: Any) -> Any:
    """``g``, with norm ``bound`` where its norm is larger."""
    square = T.sum(g ** 2)
    return g * T.switch(square > bound ** 2, bound / T.sqrt(T.maximum(square, bound ** 2)), 1)
