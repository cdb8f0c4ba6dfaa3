# SPDX-License-Identifier: Apache-2.0
"""Reading tensors: every element type, every place the bytes can be, and never a copy that is not needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bad_files import make_external
from onnx import TensorProto, helper, numpy_helper

from graphprune.errors import ModelFileError
from graphprune.model.tensors import TensorStore, check_tensor, count_bytes

TYPES = {name: number for name, number in TensorProto.DataType.items() if name not in ("UNDEFINED", "STRING")}


def example(data_type: int) -> TensorProto:
    """Return a (3, 5) tensor of a type, in raw_data, with as many different values as the type has."""
    dtype = helper.tensor_dtype_to_np_dtype(data_type)
    values = (np.arange(15) % 4 % (2 if data_type in (TYPES.get("INT2"), TYPES["BOOL"]) else 4)).reshape(3, 5)
    return numpy_helper.from_array(values.astype(np.float32).astype(dtype), "t")


@pytest.mark.parametrize("name", TYPES)
def test_raw_data_of_every_type(name: str) -> None:
    tensor = example(TYPES[name])
    assert tensor.HasField("raw_data")
    values = TensorStore(None).array(tensor)
    expected = numpy_helper.to_array(tensor)
    assert values.dtype == expected.dtype
    assert values.shape == (3, 5)
    assert values.tobytes() == expected.tobytes()
    assert count_bytes(tensor) == len(tensor.raw_data)


@pytest.mark.parametrize("name", TYPES)
def test_external_data_of_every_type(name: str, tmp_path: Path) -> None:
    tensor = example(TYPES[name])
    expected = numpy_helper.to_array(tensor)
    data = make_external(tensor, location="t.bin", offset="3")
    (tmp_path / "t.bin").write_bytes(b"abc" + data)
    values = TensorStore(tmp_path / "m.onnx").array(tensor)
    assert values.dtype == expected.dtype
    assert values.tobytes() == expected.tobytes()


TYPED = {
    "FLOAT": [0.5, 1, 2, 3],
    "DOUBLE": [0.5, 1, 2, 3],
    "INT64": [-1, 0, 2**62, 3],
    "UINT64": [0, 1, 2**63, 3],
    "INT8": [-128, 0, 1, 127],
    "INT32": [-(2**31), 0, 1, 2],
    "BOOL": [True, False, True, True],
    "FLOAT16": [0.5, 1, 2, 3],
    "BFLOAT16": [0.5, 1, 2, 3],
    "FLOAT8E5M2": [0.5, 1, 2, 3],
    "INT4": [-8, 7, 0, 1],
    "UINT4": [0, 15, 7, 8],
    "COMPLEX64": [1j, 2, 3, 4],
    "STRING": ["a", "ü", "", "d"],
}


@pytest.mark.parametrize("name", TYPED)
def test_typed_fields(name: str) -> None:
    tensor = helper.make_tensor("t", getattr(TensorProto, name), [2, 2], TYPED[name])
    assert not tensor.HasField("raw_data")
    values = TensorStore(None).array(tensor)
    np.testing.assert_array_equal(values, numpy_helper.to_array(tensor))
    assert values.shape == (2, 2)


@pytest.mark.parametrize("name", [name for name in TYPED if name != "STRING"])
def test_typed_field_with_a_value_too_many(name: str) -> None:
    tensor = helper.make_tensor("t", getattr(TensorProto, name), [2, 2], TYPED[name])
    field = getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type))
    field.append(field[0])
    with pytest.raises(ModelFileError, match=r"tensor 't'.*holds"):
        TensorStore(None).array(tensor)


@pytest.mark.parametrize("dims", [(), (0,), (0, 3), (1,), (2, 1, 3)], ids=str)
def test_shapes(dims: tuple[int, ...], tmp_path: Path) -> None:
    expected = np.arange(int(np.prod(dims)), dtype=np.float32).reshape(dims)
    tensor = numpy_helper.from_array(expected, "t")
    assert TensorStore(None).array(tensor).shape == dims
    (tmp_path / "t.bin").write_bytes(make_external(tensor, location="t.bin"))
    values = TensorStore(tmp_path / "m.onnx").array(tensor)
    np.testing.assert_array_equal(values, expected)
    assert values.shape == dims


def test_scalar_and_empty_without_data_field() -> None:
    empty = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[0])
    assert TensorStore(None).array(empty).shape == (0,)
    with pytest.raises(ModelFileError, match="needs 1 values"):
        TensorStore(None).array(TensorProto(name="t", data_type=TensorProto.FLOAT))


@pytest.mark.parametrize("place", ["raw", "typed", "external", "packed"])
def test_arrays_are_read_only(place: str, tmp_path: Path) -> None:
    tensor = helper.make_tensor("t", TensorProto.INT4 if place == "packed" else TensorProto.FLOAT, [2], [1, 2])
    if place in ("raw", "external"):
        tensor = numpy_helper.from_array(np.ones(2, np.float32), "t")
    if place == "external":
        (tmp_path / "t.bin").write_bytes(make_external(tensor, location="t.bin"))
    values = TensorStore(tmp_path / "m.onnx").array(tensor)
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 0


def test_external_data_is_mapped_once_and_not_copied(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.arange(8, dtype=np.float32), "t")
    (tmp_path / "t.bin").write_bytes(make_external(tensor, location="t.bin"))
    store = TensorStore(tmp_path / "m.onnx")
    first, second = store.array(tensor), store.array(tensor)
    assert np.shares_memory(first, second)
    assert len(store.files) == 1
    assert bytes(store.raw(tensor)) == first.tobytes()


def test_arrays_outlive_their_store(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.arange(8, dtype=np.float32), "t")
    (tmp_path / "t.bin").write_bytes(make_external(tensor, location="t.bin"))
    store = TensorStore(tmp_path / "m.onnx")
    values = store.array(tensor)
    del store
    (tmp_path / "t.bin").unlink()
    np.testing.assert_array_equal(values, np.arange(8))


@pytest.mark.parametrize(
    ("data_type", "dims", "expected"),
    [
        (TensorProto.FLOAT, [3, 5], 60),
        (TensorProto.INT4, [3, 5], 8),
        (TensorProto.COMPLEX128, [2], 32),
        (TensorProto.BOOL, [], 1),
        (TensorProto.STRING, [4], 0),
        (TensorProto.DOUBLE, [0, 9], 0),
    ],
)
def test_count_bytes(data_type: int, dims: list[int], expected: int) -> None:
    assert count_bytes(TensorProto(data_type=data_type, dims=dims)) == expected


def test_message_names_untrusted_text_harmlessly() -> None:
    tensor = TensorProto(name="\x1b[2J" + "w" * 500, data_type=TensorProto.FLOAT, dims=[1], raw_data=b"")
    with pytest.raises(ModelFileError) as caught:
        TensorStore(None).array(tensor)
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 250
    with pytest.raises(ModelFileError, match=r"^here with"):
        check_tensor(tensor, "here")
