"""Pooling and convolution of plain images: ``pool``, ``conv``, ``downsample``."""

from tinygraph.tensor.signal import conv, downsample, pool

__all__ = ["conv", "downsample", "pool"]
