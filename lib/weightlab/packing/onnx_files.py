"""Networks with shared weights as small ONNX files: a table of centroids and labels for each weight, looked up when the file is run.

A label takes half a byte up to k = 16, one byte up to k = 256, two bytes beyond; with one centroid there are none.
"""

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from weightlab import backend, models, paths, storage, training
from weightlab.errors import UserError, choose
from weightlab.networks import answers

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto
    from onnx_ir import Node
    from onnxruntime import InferenceSession

PROBED = 4  # images of the example, and one more at random, on which the file is compared with the network
OPSET = 21  # the first that knows 4-bit integers
LABELS = {16: "UINT4", 256: "UINT8", 65_536: "UINT16"}  # the largest number of centroids for each type of labels
Books = Mapping[str, tuple[np.ndarray, np.ndarray]]  # by name of a parameter: its centroids (k,) and its labels, of its shape


@dataclass(frozen=True)
class Comparison:
    """The differences between the answers of an ONNX file and of its network.

    `other_class`: images to which the two give different classes. `largest_difference`: of any logit, a fraction of the largest
    absolute logit.
    """

    images: int
    other_class: int
    largest_difference: float


def export(
    model: nn.Module, books: Books, example: torch.Tensor, file: str | Path, notes: Mapping[str, str] = MappingProxyType({})
) -> Path:
    """Write a network, in evaluation mode, as an ONNX file from `images` (n, ...) to `logits`, for any n; returns the file.

    `books` holds the shared weights by name of the parameter: centroids float32 (k,) and labels, unsigned, of the parameter's shape,
    where the parameter equals centroids[labels]; weights that are given the same array of centroids store it once. Without any
    (`{}`) all weights are stored unchanged. `example` is a batch of input, images in value / 255. `notes` are written into the
    file. Raises `UserError` if a book does not fit its parameter, if the network cannot be exported, or if onnxruntime gives other
    answers than the network to the example and some random images; then no file is written.
    """
    onnx, parameters = _extra("onnx"), dict(model.named_parameters(remove_duplicate=False))
    for name, (centroids, labels) in books.items():
        choose("parameter", name, parameters)
        _check(name, centroids, labels, parameters[name])
    if wrong := [key for key, value in notes.items() if not (isinstance(key, str) and isinstance(value, str))]:
        raise UserError(f"notes must be texts under texts, got {notes[wrong[0]]!r} for {wrong[0]!r}")
    network = _exported(model, example)
    names = {id(parameters[name]): name for name in books}
    _look_up(network.graph, books, {name: names[id(each)] for name, each in parameters.items() if id(each) in names})
    for key, value in notes.items():
        network.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(network, full_check=True)
    file, content = paths.resolve(file), network.SerializeToString()
    _refuse_other_answers(_session(content, file, 1), model, example)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        storage.write_whole(file, content)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error}") from error
    return file


def compare(file: str | Path, model: nn.Module, images: torch.Tensor, threads: int | None = 1) -> Comparison:
    """Run onnxruntime and the network on the CPU, with `threads` threads each, on uint8 images (n, channels, height, width).

    With None each uses its own default.
    Raises `UserError` if the file is missing, damaged or not one of `export` for such images.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
        raise UserError(f"images must be uint8 (n, channels, height, width), got {images.dtype} {tuple(images.shape)}")
    file, threads = paths.resolve(file), backend.check_threads(threads)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} is missing, damaged or not an ONNX file ({error})") from error
    session = _session(content, file, threads or 0)
    inputs, outputs = ({value.name: value.shape[1:] for value in side} for side in (session.get_inputs(), session.get_outputs()))
    if inputs != {"images": list(images.shape[1:])} or list(outputs) != ["logits"]:
        raise UserError(f"{file} takes {inputs} and gives {list(outputs)}, not images {tuple(images.shape[1:])} and logits")
    ours = np.concatenate([_answers(session, part.float() / 255) for part in images.split(answers.TOGETHER)])
    with backend.threads(threads):
        theirs = training.logits(model, images, "cpu").numpy()
    scale = max(np.abs(theirs).max(), np.finfo(np.float32).tiny)
    other_class = int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum())
    return Comparison(len(images), other_class, float(np.abs(ours - theirs).max() / scale))


def _answers(session: "InferenceSession", images: torch.Tensor) -> np.ndarray:
    """onnxruntime's logits (n, classes) for images float (n, ...); like the network, it gets a single image twice."""
    batch = torch.cat([images, images]) if len(images) == 1 else images
    return session.run(["logits"], {"images": batch.numpy()})[0][: len(images)]


def _refuse_other_answers(session: "InferenceSession", model: nn.Module, example: torch.Tensor) -> None:
    """Raise `UserError` if a session gives other answers than the network to an example and some random images."""
    network, generator = models.copied(model).cpu().eval(), torch.Generator().manual_seed(0)
    some = example[:PROBED].detach().cpu()
    images = torch.cat([some, torch.rand(PROBED + 1, *some.shape[1:], generator=generator).to(some)])
    with answers.probing():
        expected = answers.forward(network, images.clone())
    try:
        logits = torch.from_numpy(_answers(session, images))
    except Exception as error:  # those of onnxruntime have no class of their own in common
        raise UserError(
            f"{type(model).__name__} cannot be exported to ONNX: onnxruntime fails on {len(images)} images ({_first_line(error)})"
        ) from error
    if logits.shape != expected.shape or not answers.alike(logits, expected):
        raise UserError(
            f"{type(model).__name__} cannot be exported to ONNX: onnxruntime gives other answers to {len(images)} images than the network"
        )


def _check(name: str, centroids: np.ndarray, labels: np.ndarray, parameter: nn.Parameter) -> None:
    """Raise `UserError` unless the parameter is centroids[labels]."""
    if centroids.dtype != np.float32 or centroids.ndim != 1 or not 1 <= len(centroids) <= max(LABELS):
        raise UserError(
            f"centroids of {name} must be float32 (k,), k from 1 to {max(LABELS)}, got {centroids.dtype} {centroids.shape}"
        )
    shape = tuple(parameter.shape)
    if labels.dtype.kind != "u" or labels.shape != shape:
        raise UserError(f"labels of {name} must be unsigned integers of its shape {shape}, got {labels.dtype} {labels.shape}")
    if labels.max(initial=0) >= len(centroids):
        raise UserError(f"labels of {name} must be below {len(centroids)}, its number of centroids, got {labels.max()}")
    weights = parameter.detach().cpu()
    if weights.dtype != torch.float32 or not np.array_equal(weights.numpy(), centroids[labels]):
        raise UserError(f"{name} differs from its centroids and labels as float32; pass the network that was shared with them")


def _exported(model: nn.Module, example: torch.Tensor) -> "ModelProto":
    """The network as an ONNX model (`onnx.ModelProto`) whose parameters are initialisers of their own, under their own names.

    The exporter's optimisation is off, because it merges batch norm and weights; constants are folded here instead.
    """
    _extra("onnxscript")
    from onnxscript import optimizer, rewriter
    from onnxscript.rewriter.rules.common import remove_optional_bias_from_conv_rule

    model = models.copied(model).cpu().eval()
    batch = _batch(model, example)
    try:
        with _quiet():
            program: Any = torch.onnx.export(  # None only without dynamo
                model, (batch,), input_names=["images"], output_names=["logits"], opset_version=OPSET, dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("n")},), optimize=False, verbose=False,
            )  # fmt: skip
            own = {name for kind in (model.named_parameters, model.named_buffers) for name, _ in kind(remove_duplicate=False)}
            optimizer.fold_constants(program.model, should_fold=lambda node: False if _reads(node, own) else None)
            # The exporter gives every convolution a bias; where the network has none, that is zeros for all channels.
            rewriter.rewrite(program.model, [remove_optional_bias_from_conv_rule])
    except torch.onnx.OnnxExporterError as error:
        raise UserError(f"{type(model).__name__} cannot be exported to ONNX ({_first_line(error.__cause__ or error)})") from error
    return _bare(program.model_proto)


def _batch(model: nn.Module, example: torch.Tensor) -> torch.Tensor:
    """Two inputs that the network takes; raises `UserError` if it cannot."""
    if not example.is_floating_point() or example.ndim < 2 or not len(example):
        raise UserError(f"example must be a batch of floats (n, ...), got {example.dtype} {tuple(example.shape)}")
    batch = torch.cat([example[:1]] * 2).detach().cpu()  # the exporter would take a batch of one for a constant
    try:
        with torch.no_grad():
            answer = model(batch)
    except Exception as error:  # whatever a network's own code may raise
        shape = tuple(example.shape)
        raise UserError(f"{type(model).__name__} cannot take an example of shape {shape} ({_first_line(error)})") from error
    if not isinstance(answer, torch.Tensor) or answer.ndim != 2 or len(answer) != 2:
        raise UserError(f"{type(model).__name__} must give one tensor of logits (n, classes) for n inputs")
    return batch


def _reads(node: "Node", names: set[str]) -> bool:
    """Whether a node needs the values of an initialiser among `names`."""
    return node.op_type != "Shape" and any(value is not None and value.name in names for value in node.inputs)


def _bare(network: "ModelProto") -> "ModelProto":
    """An ONNX model without the exporter's notes on its origin: ten times the graph itself, with paths of this machine."""
    graph = network.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
    graph.ClearField("value_info")
    return network


def _look_up(graph: "GraphProto", books: Books, names: Mapping[str, str]) -> None:
    """Replace every initialiser among `names` by a look-up; `names` gives the name of its book (tied weights have several names)."""
    stored = {names.get(tensor.name) for tensor in graph.initializer}
    if unused := [name for name in names.values() if name not in stored]:
        raise UserError(f"{unused[0]} is not used by the exported network; leave it out of the books")
    tables: dict[int, str] = {}
    tensors, nodes = [], []
    for tensor in graph.initializer:
        if tensor.name not in names:
            tensors.append(tensor)
            continue
        centroids, labels = books[names[tensor.name]]
        if id(centroids) not in tables:
            tables[id(centroids)] = f"{tensor.name}.centroids"
            tensors.append(_tensor(tables[id(centroids)], centroids, "FLOAT"))
        operand, steps = _steps(tensor.name, tables[id(centroids)], len(centroids), labels)
        tensors.append(operand)
        nodes += steps
    nodes += graph.node  # after what they read
    for field, values in (("initializer", tensors), ("node", nodes)):
        graph.ClearField(field)
        getattr(graph, field).extend(values)


def _steps(weight: str, table: str, k: int, labels: np.ndarray) -> tuple:
    """The stored tensor of a weight, and the nodes that compute the weight from it and from a table of k centroids."""
    onnx = _extra("onnx")
    if k == 1:
        shape = _tensor(f"{weight}.shape", np.array(labels.shape), "INT64")
        return shape, [onnx.helper.make_node("Expand", [table, shape.name], [weight])]
    stored = _tensor(f"{weight}.labels", labels, next(kind for most, kind in LABELS.items() if k <= most))
    indices = f"{weight}.indices"  # Gather takes no smaller integers
    cast = onnx.helper.make_node("Cast", [stored.name], [indices], to=onnx.TensorProto.INT32)
    return stored, [cast, onnx.helper.make_node("Gather", [table, indices], [weight])]


def _tensor(name: str, values: np.ndarray, kind: str) -> "TensorProto":
    """An ONNX tensor of a type called as in `onnx.TensorProto`."""
    onnx = _extra("onnx")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(kind))
    return onnx.numpy_helper.from_array(values.astype(dtype), name)


def _session(content: bytes, file: Path, threads: int) -> "InferenceSession":
    """onnxruntime's session on the CPU for the content of a file."""
    onnxruntime = _extra("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors only
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # those of onnxruntime have no class of their own in common
        raise UserError(f"{file} is missing, damaged or not an ONNX file ({_first_line(error)})") from error


def _extra(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"ONNX files need {name}, which comes with the extra: pip install 'weightlab[onnx]'") from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Run the body without warnings, log lines and prints."""
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
