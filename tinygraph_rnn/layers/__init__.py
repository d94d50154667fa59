"""Layers, and the functions that ask networks of them for outputs and parameters."""

from __future__ import annotations

from tinygraph_rnn.layers import recurrent
from tinygraph_rnn.layers.base import Layer, MergeLayer
from tinygraph_rnn.layers.dense import DenseLayer, NonlinearityLayer
from tinygraph_rnn.layers.helper import (
    count_params,
    get_all_layers,
    get_all_param_values,
    get_all_params,
    get_output,
    get_output_shape,
    set_all_param_values,
)
from tinygraph_rnn.layers.input import InputLayer
from tinygraph_rnn.layers.merge import ConcatLayer, ElemwiseMergeLayer, ElemwiseSumLayer
from tinygraph_rnn.layers.recurrent import (
    CustomRecurrentLayer,
    Gate,
    GRULayer,
    LSTMLayer,
    RecurrentLayer,
)
from tinygraph_rnn.layers.shape import (
    DimshuffleLayer,
    FlattenLayer,
    ReshapeLayer,
    SliceLayer,
)

__all__ = [
    "ConcatLayer", "CustomRecurrentLayer", "DenseLayer", "DimshuffleLayer", "ElemwiseMergeLayer",
    "ElemwiseSumLayer", "FlattenLayer", "GRULayer", "Gate", "InputLayer", "LSTMLayer", "Layer",
    "MergeLayer", "NonlinearityLayer", "RecurrentLayer", "ReshapeLayer", "SliceLayer",
    "count_params", "get_all_layers", "get_all_param_values", "get_all_params", "get_output",
    "get_output_shape", "recurrent", "set_all_param_values"]
