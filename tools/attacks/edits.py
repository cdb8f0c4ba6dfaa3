# SPDX-License-Identifier: Apache-2.0
"""Random edits of a model: of its bytes, of fields of its messages, and of its meaning (for `fuzz_models.py`)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

__all__ = ["edit_bytes", "edit_fields", "edit_meaning"]

INTEGERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 5, 7, 16, 255, 2**16, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1)
FRACTIONS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, float("inf"), float("-inf"), float("nan"))


def edit_bytes(data: bytes, chance: random.Random) -> bytes:
    """Flip, drop, repeat or insert a few bytes."""
    content = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at, length = chance.randrange(len(content)), chance.choice((1, 1, 2, 8, 64))
        action = chance.randrange(5)
        if action == 0:
            content[at] ^= 1 << chance.randrange(8)
        elif action == 1:
            content[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif action == 2 and len(content) > length + 1:
            del content[at : at + length]
        elif action == 3:
            content[at:at] = content[at : at + length]
        else:
            content[at:at] = chance.randbytes(length)
    return bytes(content)


def edit_fields(proto: ModelProto, chance: random.Random) -> None:
    """Change one to three fields anywhere in the message."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        message = chance.choice(_messages(proto))
        fields = message.DESCRIPTOR.fields
        chosen = [descriptor for descriptor, _ in message.ListFields()]
        descriptor = chance.choice(chosen if chosen and chance.random() < 0.8 else list(fields))
        value = getattr(message, descriptor.name)
        if isinstance(value, Message):
            message.ClearField(descriptor.name)
        elif hasattr(value, "append") or hasattr(value, "add"):
            _edit_repeated(value, descriptor, chance)
        else:
            setattr(message, descriptor.name, _value(descriptor, value, chance))


def _messages(message: Message) -> list[Message]:
    found, pending = [], [message]
    while pending:
        current = pending.pop()
        found.append(current)
        for descriptor, value in current.ListFields():
            if descriptor.message_type is not None:
                pending.extend([value] if isinstance(value, Message) else list(value))
    return found


def _edit_repeated(values: Any, descriptor: FieldDescriptor, chance: random.Random) -> None:
    action = chance.randrange(4)
    if values and action == 0:
        del values[chance.randrange(len(values))]
    elif values and action == 1:
        values.append(values[chance.randrange(len(values))])
    elif descriptor.message_type is not None:
        if values and action == 2:
            values[0].CopyFrom(values[chance.randrange(len(values))])
        else:
            values.add()
    elif values and action == 2:
        at = chance.randrange(len(values))
        values[at] = _value(descriptor, values[at], chance)
    else:
        values.append(_value(descriptor, None, chance))


def _value(descriptor: FieldDescriptor, value: Any, chance: random.Random) -> Any:
    kind = descriptor.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        texts = (value, "", "x", "h", "first", "batch", "Conv", "\x1b[31m", "a" * 5000, "NOTSET")
        text = chance.choice(texts) or ""
        return text.encode() if descriptor.type == FieldDescriptor.TYPE_BYTES and isinstance(text, str) else text
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return chance.choice(FRACTIONS)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return chance.choice([entry.number for entry in descriptor.enum_type.values])
    low, high = {
        FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
        FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    }.get(kind, (-(2**63), 2**63 - 1))
    return max(low, min(high, chance.choice(INTEGERS)))


def edit_meaning(proto: ModelProto, chance: random.Random) -> None:
    """Make one to three edits that leave the file well formed."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        chance.choice(SEMANTIC)(proto, chance)


def _a_node(proto: ModelProto, chance: random.Random) -> NodeProto:
    return chance.choice(proto.graph.node)


def _names(proto: ModelProto) -> list[str]:
    graph = proto.graph
    made = [name for node in graph.node for name in node.output if name]
    return [*(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer), *made, ""]


def _other_operator(proto: ModelProto, chance: random.Random) -> None:
    node = _a_node(proto, chance)
    node.op_type = chance.choice(sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}))
    if chance.random() < 0.5:
        del node.attribute[:]


def _other_operand(proto: ModelProto, chance: random.Random) -> None:
    node = _a_node(proto, chance)
    if node.input:
        node.input[chance.randrange(len(node.input))] = chance.choice(_names(proto))


def _more_or_fewer_operands(proto: ModelProto, chance: random.Random) -> None:
    node = _a_node(proto, chance)
    if node.input and chance.random() < 0.5:
        del node.input[chance.randrange(len(node.input))]
    else:
        node.input.append(chance.choice(_names(proto)))


def _other_shape(proto: ModelProto, chance: random.Random) -> None:
    """Give a weight another shape, with values that fit."""
    if not proto.graph.initializer:
        return
    tensor = chance.choice(proto.graph.initializer)
    dims = list(tensor.dims)
    action = chance.randrange(4)
    if dims and action == 0:
        dims[chance.randrange(len(dims))] = chance.choice((0, 1, 2, 3, 5, 8, 9, 16))
    elif dims and action == 1:
        del dims[chance.randrange(len(dims))]
    elif action == 2:
        dims.insert(chance.randint(0, len(dims)), chance.choice((1, 2)))
    else:
        chance.shuffle(dims)
    _refill(tensor, dims, tensor.data_type, chance)


def _other_type(proto: ModelProto, chance: random.Random) -> None:
    if proto.graph.initializer and chance.random() < 0.7:
        tensor = chance.choice(proto.graph.initializer)
        _refill(tensor, list(tensor.dims), chance.choice((1, 2, 3, 6, 7, 9, 10, 11, 13)), chance)
    elif proto.graph.input:
        kind = chance.choice(proto.graph.input).type.tensor_type
        kind.elem_type = chance.choice((1, 3, 6, 7, 8, 9, 10, 11, 16))


def _other_values(proto: ModelProto, chance: random.Random) -> None:
    """Change an integer of a size or an index."""
    integers = [tensor for tensor in proto.graph.initializer if tensor.data_type == TensorProto.INT64]
    if integers:
        tensor = chance.choice(integers)
        values = onnx.numpy_helper.to_array(tensor).copy()
        if values.size:
            values.reshape(-1)[chance.randrange(values.size)] = chance.choice(INTEGERS)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def _refill(tensor: TensorProto, dims: list[int], kind: int, chance: random.Random) -> None:
    values = np.random.default_rng(chance.randrange(2**32)).standard_normal(dims) * 3
    name = tensor.name
    tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(kind)), name))


def _other_attribute(proto: ModelProto, chance: random.Random) -> None:
    node = _a_node(proto, chance)
    if not node.attribute:
        node.attribute.append(helper.make_attribute(chance.choice(("axis", "group", "perm", "keepdims")), 1))
        return
    attribute = chance.choice(node.attribute)
    if attribute.type == AttributeProto.INT:
        attribute.i = chance.choice((*INTEGERS, attribute.i + 1, attribute.i - 1))
    elif attribute.type == AttributeProto.INTS and attribute.ints:
        action = chance.randrange(3)
        if action == 0:
            attribute.ints[chance.randrange(len(attribute.ints))] = chance.choice(INTEGERS)
        elif action == 1:
            del attribute.ints[chance.randrange(len(attribute.ints))]
        else:
            attribute.ints.append(chance.choice((0, 1, 2)))
    elif attribute.type == AttributeProto.STRING:
        attribute.s = chance.choice((b"", b"SAME_UPPER", b"VALID", b"linear", b"i,j->k", b"ij,jk->ik", b"\xff"))
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = chance.choice(FRACTIONS)
    else:
        node.attribute.remove(attribute)


def _other_input(proto: ModelProto, chance: random.Random) -> None:
    """Open, close, drop or add a dimension of an input."""
    if not proto.graph.input:
        return
    dims = chance.choice(proto.graph.input).type.tensor_type.shape.dim
    action = chance.randrange(4)
    if dims and action == 0:
        dims[chance.randrange(len(dims))].dim_param = chance.choice(("n", "d", "?"))
    elif dims and action == 1:
        dims[chance.randrange(len(dims))].dim_value = chance.choice((0, 1, 2, 3, 5, 7, 64, 2**20, 2**40))
    elif dims and action == 2:
        del dims[chance.randrange(len(dims))]
    else:
        dims.add(dim_value=chance.choice((1, 2, 6)))


def _lie(proto: ModelProto, chance: random.Random) -> None:
    """Declare some shape for a value, or for an output."""
    dims = [chance.choice((1, 2, 3, 8, 2**40, None, "n")) for _ in range(chance.randrange(6))]
    made = [name for name in _names(proto) if name]
    value = helper.make_tensor_value_info(chance.choice(made), chance.choice((1, 7, 9, 10)), dims)
    if proto.graph.output and chance.random() < 0.4:
        value.name = proto.graph.output[0].name
        proto.graph.output[0].CopyFrom(value)
    else:
        proto.graph.value_info.append(value)


def _structure(proto: ModelProto, chance: random.Random) -> None:
    """Drop, repeat or bypass a node, drop an output, or make an inner value one."""
    nodes = proto.graph.node
    at, action = chance.randrange(len(nodes)), chance.randrange(5)
    if action == 0 and len(nodes) > 1:
        del nodes[at]
    elif action == 1:
        copy = NodeProto()
        copy.CopyFrom(nodes[at])
        for number, name in enumerate(copy.output):
            copy.output[number] = f"{name}.again" if name else ""
        nodes.append(copy)
    elif action == 2 and proto.graph.output:
        del proto.graph.output[chance.randrange(len(proto.graph.output))]
    elif action == 3:
        proto.graph.output.append(helper.make_empty_tensor_value_info(chance.choice(_names(proto))))
    elif nodes[at].input and nodes[at].output:
        nodes[at].CopyFrom(helper.make_node("Identity", nodes[at].input[:1], nodes[at].output[:1]))


def _other_opset(proto: ModelProto, chance: random.Random) -> None:
    proto.opset_import[0].version = chance.randint(6, 27)


def _foreign(proto: ModelProto, chance: random.Random) -> None:
    """Give a node to another domain."""
    domain = chance.choice(("com.microsoft", "com.example", "ai.onnx.ml"))
    proto.opset_import.append(helper.make_opsetid(domain, 1))
    _a_node(proto, chance).domain = domain


SEMANTIC: tuple[Callable[[ModelProto, random.Random], None], ...] = (
    *(_other_operator, _other_operand, _more_or_fewer_operands, _other_shape, _other_type, _other_values),
    *(_other_attribute, _other_attribute, _other_input, _lie, _structure, _other_opset, _foreign),
)
