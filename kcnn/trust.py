"""What a SavedModel from a stranger may hold: a graph that computes, and nothing else.

A SavedModel is a program. TensorFlow runs parts of it when it is loaded, and it has
operations that read and write files or run other code. Before kcnn hands one to
TensorFlow, everything that could run is compared with a list of what a classifier
needs; what is not known is refused.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator

from google.protobuf.message import DecodeError
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from kcnn.errors import UsageError
from kcnn.files import is_within

_LARGEST_GRAPH = 2**28  # bytes; weights are not in it


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Each takes tensors and gives tensors, and touches nothing else.
_PURE = _names(
    """
    Abs Add AddN AddV2 All Any ArgMax ArgMin AvgPool BatchMatMul BatchMatMulV2
    BatchMatMulV3 BatchToSpaceND BiasAdd BroadcastArgs BroadcastTo Cast Ceil ClipByValue
    Concat ConcatV2 Const Conv Conv2D Cos DecodeBmp DecodeGif DecodeImage DecodeJpeg
    DecodePng DecodeRaw DepthToSpace DepthwiseConv2dNative Div DivNoNan Einsum Elu
    EnsureShape Equal Erf Erfc Exp ExpandDims Expm1 Fill Floor FloorDiv FloorMod
    FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 Gather GatherNd GatherV2 Greater
    GreaterEqual Identity IdentityN InvertPermutation IsFinite IsNan L2Loss LRN
    LeakyRelu Less LessEqual LinSpace Log Log1p LogSoftmax LogicalAnd LogicalNot
    LogicalOr MatMul MatrixSolve Max MaxPool MaxPoolV2 Maximum Mean Min Minimum
    MirrorPad Mul MulNoNan Neg NoOp NotEqual OneHot OnesLike Pack Pad PadV2 ParseExample
    ParseExampleV2 Placeholder PlaceholderWithDefault Pow PreventGradient Prod Range
    Rank RealDiv Reciprocal Relu Relu6 Reshape ResizeArea ResizeBicubic ResizeBilinear
    ResizeNearestNeighbor ReverseV2 Rint Round Rsqrt ScaleAndTranslate Select SelectV2
    Selu Shape ShapeN Sigmoid Sign Sin Size Slice Softmax Softplus Softsign
    SpaceToBatchND SpaceToDepth Split SplitV Sqrt Square SquaredDifference Squeeze
    StaticRegexFullMatch StopGradient StridedSlice Sub Substr Sum Tan Tanh
    TensorListFromTensor TensorListGetItem TensorListLength TensorListReserve
    TensorListSetItem TensorListStack Tile TopKV2 Transpose TruncateDiv TruncateMod
    Unpack Where Xdivy ZerosLike
    """
)

# These call functions of the graph, which are looked at too.
_CALLS = _names(
    """
    Case If PartitionedCall StatefulPartitionedCall StatelessCase StatelessIf
    StatelessWhile While
    """
)

# The model's own weights.
_VARIABLES = frozenset(("ReadVariableOp", "VarHandleOp"))

# How weights are saved and restored: only where no signature comes to it.
_SAVING = _names(
    """
    AssignVariableOp DisableCopyOnRead MergeV2Checkpoints RestoreV2 SaveV2
    ShardedFilename StringJoin VarIsInitializedOp
    """
)

# A captured tensor is one within a function, whose operations are looked at.
_KINDS = _names(
    """
    user_object function variable bare_concrete_function constant captured_tensor
    """
)
_OBJECTS = _names(
    """
    _generic_user_object signature_map trackable_dict_wrapper trackable_list_wrapper
    trackable_tuple_wrapper
    """
)


def check_saved_model(path: pathlib.Path) -> None:
    """Raise UsageError if a SavedModel could do more than compute.

    Args:
        path: the version folder, with saved_model.pb in it.
    """
    try:
        _check_files(path)
        graph = path / "saved_model.pb"
        if graph.stat().st_size > _LARGEST_GRAPH:
            raise ValueError(f"saved_model.pb is larger than {_LARGEST_GRAPH:,} bytes")
        model = SavedModel()
        model.ParseFromString(graph.read_bytes())
        if len(model.meta_graphs) != 1:
            raise ValueError(f"{len(model.meta_graphs)} graphs, expected 1")
        _check_graph(model.meta_graphs[0])
    except DecodeError as error:
        raise UsageError(f"{path}: a damaged SavedModel: {error}") from None
    except ValueError as error:
        raise UsageError(
            f"{path}: not loaded: {error}; --trust loads it all the same, if you know "
            "where it comes from"
        ) from None


def _check_files(path: pathlib.Path) -> None:
    for name in ("saved_model.cpb", "saved_model.pbtxt"):
        if (path / name).exists():
            raise ValueError(f"{name} stands beside saved_model.pb")
    for file in path.rglob("*"):
        if not is_within(file, path):
            raise ValueError(f"{file.relative_to(path)} is a link that leads outside")


def _check_graph(graph: MetaGraphDef) -> None:
    functions = {f.signature.name: f.node_def for f in graph.graph_def.library.function}
    known = _PURE | _CALLS | _VARIABLES | _SAVING
    _check_nodes(graph.graph_def.node, known, functions)
    for nodes in functions.values():
        _check_nodes(nodes, known, functions)
    # TensorFlow's loader, and kcnn, run the functions that objects refer to.
    for name in _reachable(graph.object_graph_def.concrete_functions, functions):
        _check_nodes(functions[name], known - _SAVING, functions)
    _check_objects(graph)


def _check_nodes(
    nodes: Iterable[NodeDef], known: frozenset[str], functions: dict[str, object]
) -> None:
    for node in nodes:
        if node.op not in known and node.op not in functions:
            raise ValueError(f"its graph holds the operation {node.op[:80]!r}")


def _reachable(
    names: Iterable[str], functions: dict[str, Iterable[NodeDef]]
) -> set[str]:
    """Return the functions named, and all that they call."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in found and name in functions:
            found.add(name)
            for node in functions[name]:
                todo += _called(node)
    return found


def _called(node: NodeDef) -> Iterator[str]:
    yield node.op
    for value in node.attr.values():
        yield value.func.name
        yield from (function.name for function in value.list.func)


def _check_objects(graph: MetaGraphDef) -> None:
    for node in graph.object_graph_def.nodes:
        kind = node.WhichOneof("kind") or ""
        if kind not in _KINDS:
            raise ValueError(f"it holds an object of kind {kind!r}")
        if kind == "user_object" and node.user_object.identifier not in _OBJECTS:
            raise ValueError(f"it holds a {node.user_object.identifier[:80]!r}")
        if node.saveable_objects or node.registered_saver:
            raise ValueError("it brings its own way to restore weights")
