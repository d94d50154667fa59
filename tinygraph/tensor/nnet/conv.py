"""``conv2d`` at the place where older programs import it from."""

from tinygraph.tensor.conv import conv2d

__all__ = ["conv2d"]
