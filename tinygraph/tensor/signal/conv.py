"""Convolution of images that have no channels."""

from __future__ import annotations

from typing import Any

from tinygraph.graph import describe
from tinygraph.ops import views
from tinygraph.tensor.conv import convolve, setting
from tinygraph.tensor.shaping import insert_axes
from tinygraph.tensor.variable import as_tensor_variable

__all__ = ["conv2d"]


def conv2d(input: Any, filters: Any, image_shape: Any = None, filter_shape: Any = None,
           border_mode: str = "valid", subsample: Any = (1, 1)) -> Any:
    """Every image of ``input``, (images, height, width) or one (height, width), convolved with
    every filter of ``filters``, (filters, height, width) or one (height, width).

    The result has an axis of images and one of filters where there were several.  image_shape,
    filter_shape: sizes that are known.  Raises TypeError for other ranks.
    """
    x, w = as_tensor_variable(input), as_tensor_variable(filters)
    for v, what in ((x, "input"), (w, "filters")):
        if v.ndim not in (2, 3):
            raise TypeError(f"signal.conv2d: the {what} must be one image or a stack of them, with "
                            f"2 or 3 axes, but {describe(v)} has {v.ndim}")
    s = setting(2, border_mode, subsample, name="signal.conv2d")
    out = convolve(insert_axes(x, [0, 1] if x.ndim == 2 else [1]),
                   insert_axes(w, [0, 1] if w.ndim == 2 else [1]), s,
                   _whole(image_shape), _whole(filter_shape))
    return views.squeeze(out, [k for k, v in ((0, x), (1, w)) if v.ndim == 2])


def _whole(shape: Any) -> Any:
    """The shape of images with a channel."""
    if shape is None:
        return None
    return (1, 1, *shape) if len(shape) == 2 else (shape[0], 1, *shape[1:])
