"""Loops: the op, its gradient, and its face."""

from tinygraph.scan_module import scan_utils
from tinygraph.scan_module.face import scan, until
from tinygraph.scan_module.shorthands import foldl, foldr, map, reduce
from tinygraph.updates import OrderedUpdates

__all__ = ["OrderedUpdates", "foldl", "foldr", "map", "reduce", "scan", "scan_utils", "until"]
