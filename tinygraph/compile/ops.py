"""Ops made of functions, at the place where programs for Theano look for them."""

from tinygraph.gof.op import FromFunction, ViewOp, as_op

__all__ = ["FromFunction", "ViewOp", "as_op"]
