"""Layers, and the functions that ask networks of them for outputs and parameters."""

from __future__ import annotations

from tinygraph_rnn.layers import (
    base,
    conv,
    dense,
    embedding,
    helper,
    input,
    merge,
    noise,
    normalization,
    pool,
    recurrent,
    shape,
    special,
)
from tinygraph_rnn.layers.base import Layer, MergeLayer
from tinygraph_rnn.layers.conv import (
    BaseConvLayer,
    Conv1DLayer,
    Conv2DLayer,
    Conv3DLayer,
    Deconv2DLayer,
    Deconv3DLayer,
    DilatedConv2DLayer,
    TransposedConv2DLayer,
    TransposedConv3DLayer,
)
from tinygraph_rnn.layers.dense import DenseLayer, NINLayer, NonlinearityLayer
from tinygraph_rnn.layers.embedding import EmbeddingLayer
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
from tinygraph_rnn.layers.merge import (
    ConcatLayer,
    ElemwiseMergeLayer,
    ElemwiseSumLayer,
    autocrop,
    autocrop_array_shapes,
    concat,
)
from tinygraph_rnn.layers.noise import (
    DropoutLayer,
    GaussianNoiseLayer,
    dropout,
    dropout_channels,
    dropout_locations,
    spatial_dropout,
)
from tinygraph_rnn.layers.normalization import (
    BatchNormLayer,
    LocalResponseNormalization2DLayer,
    StandardizationLayer,
    batch_norm,
    instance_norm,
    layer_norm,
)
from tinygraph_rnn.layers.pool import (
    FeaturePoolLayer,
    FeatureWTALayer,
    GlobalPoolLayer,
    MaxPool1DLayer,
    MaxPool2DLayer,
    MaxPool3DLayer,
    Pool1DLayer,
    Pool2DLayer,
    Pool3DLayer,
    Upscale1DLayer,
    Upscale2DLayer,
    Upscale3DLayer,
)
from tinygraph_rnn.layers.recurrence import Recurrence
from tinygraph_rnn.layers.recurrent import (
    CustomRecurrentLayer,
    Gate,
    GatedRecurrence,
    GRULayer,
    LSTMLayer,
    RecurrentLayer,
)
from tinygraph_rnn.layers.shape import (
    DimshuffleLayer,
    FlattenLayer,
    PadLayer,
    ReshapeLayer,
    SliceLayer,
    dimshuffle,
    flatten,
    pad,
    reshape,
)
from tinygraph_rnn.layers.special import (
    BiasLayer,
    ExpressionLayer,
    InverseLayer,
    MultiplicativeGatingLayer,
    ParametricRectifierLayer,
    RandomizedRectifierLayer,
    ScaleLayer,
    prelu,
    rrelu,
    standardize,
)

__all__ = [
    "BaseConvLayer", "BatchNormLayer", "BiasLayer", "ConcatLayer", "Conv1DLayer", "Conv2DLayer",
    "Conv3DLayer", "CustomRecurrentLayer", "Deconv2DLayer", "Deconv3DLayer", "DenseLayer",
    "DilatedConv2DLayer", "DimshuffleLayer", "DropoutLayer", "ElemwiseMergeLayer",
    "ElemwiseSumLayer", "EmbeddingLayer", "ExpressionLayer", "FeaturePoolLayer", "FeatureWTALayer",
    "FlattenLayer", "GRULayer", "Gate", "GatedRecurrence", "GaussianNoiseLayer", "GlobalPoolLayer",
    "InputLayer", "InverseLayer", "LSTMLayer", "Layer", "LocalResponseNormalization2DLayer",
    "MaxPool1DLayer", "MaxPool2DLayer", "MaxPool3DLayer", "MergeLayer", "MultiplicativeGatingLayer",
    "NINLayer", "NonlinearityLayer", "PadLayer", "ParametricRectifierLayer", "Pool1DLayer",
    "Pool2DLayer", "Pool3DLayer", "RandomizedRectifierLayer", "Recurrence", "RecurrentLayer",
    "ReshapeLayer", "ScaleLayer", "SliceLayer", "StandardizationLayer", "TransposedConv2DLayer",
    "TransposedConv3DLayer", "Upscale1DLayer", "Upscale2DLayer", "Upscale3DLayer", "autocrop",
    "autocrop_array_shapes", "base", "batch_norm", "concat", "conv", "count_params", "dense",
    "dimshuffle", "dropout", "dropout_channels", "dropout_locations", "embedding", "flatten",
    "get_all_layers", "get_all_param_values", "get_all_params", "get_output", "get_output_shape",
    "helper", "input", "instance_norm", "layer_norm", "merge", "noise", "normalization", "pad",
    "pool", "prelu", "recurrent", "reshape", "rrelu", "set_all_param_values", "shape",
    "spatial_dropout", "special", "standardize"]
