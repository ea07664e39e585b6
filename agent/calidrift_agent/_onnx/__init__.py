"""ONNX models: their points, and a second session in which these can be read.

Nothing here imports onnx or onnxruntime before a model of theirs is met.
"""

from calidrift_agent._onnx._blueprint import Blueprint, draw_outputs, draw_up
from calidrift_agent._onnx._extra import Session, is_session
from calidrift_agent._onnx._feeds import FeedReader
from calidrift_agent._onnx._fingerprint import fingerprint_of_network
from calidrift_agent._onnx._network import Network
from calidrift_agent._onnx._ranges import ranges_of_file, ranges_of_tensors
from calidrift_agent._onnx._replica import Replica
from calidrift_agent._onnx._source import read_file, read_session
from calidrift_agent._onnx._survey import Survey, TensorPoint, survey

__all__ = [
    "Blueprint",
    "FeedReader",
    "Network",
    "Replica",
    "Session",
    "Survey",
    "TensorPoint",
    "draw_outputs",
    "draw_up",
    "fingerprint_of_network",
    "is_session",
    "ranges_of_file",
    "ranges_of_tensors",
    "read_file",
    "read_session",
    "survey",
]
