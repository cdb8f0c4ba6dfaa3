# SPDX-License-Identifier: Apache-2.0
"""Protobuf messages field by field: copying and comparing them, unknown fields included.

Unknown fields are those of a newer ONNX than the installed one. Iterating over the fields of a
message does not show them, so a copy by fields has to carry them on purpose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.unknown_fields import UnknownFieldSet

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["carry_unknown", "copy_but", "differing"]

_VARINT, _FIXED64, _BYTES, _GROUP, _END_GROUP, _FIXED32 = range(6)


def copy_but(source: Message, target: Message, *fields: str) -> None:
    """Copy all fields of a message, unknown ones too, except the named ones."""
    for descriptor in source.DESCRIPTOR.fields:  # a list of set fields would copy the values of tensors
        name = descriptor.name
        if name in fields:
            continue
        if descriptor.is_repeated:
            getattr(target, name).extend(getattr(source, name))
        elif source.HasField(name):
            if descriptor.message_type is None:
                setattr(target, name, getattr(source, name))
            else:
                getattr(target, name).CopyFrom(getattr(source, name))
    carry_unknown(source, target)


def carry_unknown(source: Message, target: Message) -> None:
    """Add the unknown fields of a message to those of another one of its type."""
    data = _unknown(source)
    if data:
        target.MergeFromString(data)


def differing(first: Message, second: Message, *but: str) -> list[str]:
    """Return the names of the fields in which two messages of one type differ, except the named ones.

    Floats are compared bit for bit. Nothing is copied.
    """
    names = [
        field.name
        for field in first.DESCRIPTOR.fields
        if field.name not in but and not _same(first, second, field.name, singular=not field.is_repeated)
    ]
    return names + ["unknown fields"] * (_unknown(first) != _unknown(second))


def _same(first: Message, second: Message, name: str, *, singular: bool) -> bool:
    if singular and first.HasField(name) != second.HasField(name):
        return False
    return bool(getattr(first, name) == getattr(second, name))


def _unknown(message: Message) -> bytes:
    """Return the unknown fields of a message as they are written."""
    return _encode_all(UnknownFieldSet(message))


def _encode_all(fields: UnknownFieldSet) -> bytes:
    return b"".join(_encode(fields[at]) for at in range(len(fields)))


def _encode(field: Any) -> bytes:
    kind = field.wire_type
    tag = _varint(field.field_number << 3 | kind)
    if kind == _VARINT:
        return tag + _varint(field.data)
    if kind == _BYTES:
        return tag + _varint(len(field.data)) + bytes(field.data)
    if kind == _GROUP:
        return tag + _encode_all(field.data) + _varint(field.field_number << 3 | _END_GROUP)
    return tag + int(field.data).to_bytes(8 if kind == _FIXED64 else 4, "little")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
