"""Values as JSON and back: the numbers in leaves, and the settings of operations with their slices, dtypes and arrays.

JSON has no tuples, slices, dtypes or infinities. Each of them is an object of one key, its form, and a list:
{"slice": [0, 4, null]}. Arrays stand in the file under a key of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from microgrid.errors import FileFormatError
from microgrid.files.arrays import DTYPES, Arrays
from microgrid.files.fields import Damaged, shown
from microgrid.ops.index import Slot

DEEPEST = 20
"""How many tuples and lists may stand inside each other."""

WORDS = range(-(2**63), 2**64)
"""The whole numbers of 64 bits."""

NATIVE = [np.dtype(name) for name in DTYPES]
DTYPES_BY_CODE = {dtype.str: dtype for own in NATIVE for dtype in (own.newbyteorder("<"), own.newbyteorder(">"))}
"""The dtypes that a file holds, in both byte orders, by NumPy's code such as "<f8"."""


def put(array: np.ndarray[Any, Any], wanted: str, arrays: Arrays) -> str:
    """Add an array to those of a file, and return its key: the one wanted, or one like it."""
    key = wanted.encode("utf-8", "replace").decode()
    while key in arrays or key == "__metadata__":  # the one key that safetensors keeps to itself
        key += "′"
    arrays[key] = array
    return key


def as_array(value: Any, wanted: str, arrays: Arrays) -> Any:
    """A number or an array as JSON that names an array of the file: a "number" of Python, an "element" of NumPy."""
    key = put(np.asarray(value), wanted, arrays)
    if not isinstance(value, np.ndarray):
        return {"element" if isinstance(value, np.generic) else "number": [key]}
    return {"array": [key, "columns"] if is_in_columns(value) else [key]}


def is_in_columns(array: np.ndarray[Any, Any]) -> bool:
    """Whether neighbours in memory are so along the first axis: the last bits of a product depend on it."""
    return array.flags.f_contiguous and not array.flags.c_contiguous


def encoded(value: Any, wanted: str, arrays: Arrays, depth: int = 0) -> Any:
    """A value as JSON; the arrays in it go into `arrays`, under a key like `wanted`.

    Raises
    ------
    FileFormatError
        If it is of a type that no file holds, such as a function.

    Examples
    --------
    >>> encoded((slice(0, 4), Ellipsis, None, 2.5), "index", {})
    {'tuple': [{'slice': [0, 4, None]}, {'ellipsis': []}, None, 2.5]}
    """

    def each(items: Sequence[Any]) -> list[Any]:
        return [encoded(item, wanted, arrays, depth + 1) for item in items]

    if depth > DEEPEST:
        raise FileFormatError(f"it holds lists inside each other, more than {DEEPEST} deep")
    if value is None or type(value) is bool or (type(value) is int and value in WORDS):
        return value
    if isinstance(value, str):
        return str(value)
    if type(value) is float:
        return value if math.isfinite(value) else {"float": [str(value)]}
    if isinstance(value, np.generic) and value.dtype.name in DTYPES:
        return {"scalar": [value.dtype.name, *each([value.item()])]}
    if isinstance(value, np.ndarray) and value.dtype.name in DTYPES:
        return as_array(value, wanted, arrays)
    if isinstance(value, list):
        return each(value)
    if isinstance(value, tuple):
        return {"tuple": each(value)}
    if isinstance(value, slice):
        return {"slice": each([value.start, value.stop, value.step])}
    if value is Ellipsis:
        return {"ellipsis": []}
    if isinstance(value, Slot):
        return {"slot": [value.position]}
    if isinstance(value, np.dtype | type) and np.dtype(value).name in DTYPES:
        return {"dtype": [np.dtype(value).str]}
    raise FileFormatError(f"it holds {value!r:.60}, a {type(value).__name__}, which a file cannot hold")


def decoded(found: Any, arrays: Arrays, depth: int = 0) -> Any:
    """The value that JSON stands for; the arrays in it are taken out of `arrays`.

    Raises
    ------
    FileFormatError
        If the JSON is nothing that `encoded` makes.

    Examples
    --------
    >>> decoded({"tuple": [{"slice": [0, 4, None]}, {"ellipsis": []}, None, 2.5]}, {})
    (slice(0, 4, None), Ellipsis, None, 2.5)
    """
    if depth > DEEPEST:
        raise Damaged(f"values stand inside each other, more than {DEEPEST} deep")
    if type(found) is list:
        return [decoded(item, arrays, depth + 1) for item in found]
    if type(found) is dict:
        form, parts = next(iter(found.items()), ("", None))
        if len(found) != 1 or form not in FORMS or type(parts) is not list:
            raise Damaged(f"an object that begins with {shown(form)} is no value")
        items = [decoded(item, arrays, depth + 1) for item in parts]
        try:
            return FORMS[form](items, arrays)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise Damaged(f"a value of the form {form!r} cannot be made ({error})") from None
    if type(found) is int and found not in WORDS:
        raise Damaged("a whole number has more than 64 bits")
    if type(found) is float and not math.isfinite(found):
        raise Damaged("a number is larger than a float can be")
    return found


def taken(key: Any, arrays: Arrays) -> np.ndarray[Any, Any]:
    if type(key) is not str or key not in arrays:
        raise ValueError(f"there is no array {key!r:.60}, or it is used twice")
    return arrays.pop(key)


def array_of(items: list[Any], arrays: Arrays) -> np.ndarray[Any, Any]:
    key, *order = items
    found = np.asarray(taken(key, arrays), order="F" if order else "C")
    if order != (["columns"] if is_in_columns(found) else []):
        raise ValueError(f"{order!r:.60} is no order of an array of shape {found.shape}")
    return found


def number_of(items: list[Any], arrays: Arrays) -> Any:
    (key,) = items
    array = taken(key, arrays)
    if array.shape or array.dtype not in (np.float64, np.int64, np.bool_):
        raise ValueError(f"{key!r:.60} is no number of Python")
    return array.item()


def element_of(items: list[Any], arrays: Arrays) -> np.generic:
    (key,) = items
    found: Any = taken(key, arrays)[()]
    if not isinstance(found, np.generic):
        raise ValueError(f"{key!r:.60} has axes")
    return found


def scalar_of(items: list[Any], arrays: Arrays) -> np.generic:
    name, value = items
    if name not in DTYPES or type(value) is not type(np.zeros((), name).item()):
        raise ValueError(f"{value!r:.60} is no element of dtype {name!r:.60}")
    found: np.generic = np.dtype(name).type(value)
    if found.item() != value and value == value:
        raise ValueError(f"{value!r:.60} is no {name}")
    return found


def float_of(items: list[Any], arrays: Arrays) -> float:
    (word,) = items
    return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[word]


def slice_of(items: list[Any], arrays: Arrays) -> slice:
    start, stop, step = items
    return slice(start, stop, step)


def ellipsis_of(items: list[Any], arrays: Arrays) -> Any:
    if items:
        raise ValueError("an ellipsis has no parts")
    return Ellipsis


def slot_of(items: list[Any], arrays: Arrays) -> Slot:
    (position,) = items
    if type(position) is not int or position < 0:
        raise ValueError("the position is no number from 0 on")
    return Slot(position)


def dtype_of(items: list[Any], arrays: Arrays) -> np.dtype[Any]:
    (code,) = items
    return DTYPES_BY_CODE[code]


FORMS: dict[str, Callable[[list[Any], Arrays], Any]] = {
    "array": array_of,
    "number": number_of,
    "element": element_of,
    "scalar": scalar_of,
    "float": float_of,
    "tuple": lambda items, arrays: tuple(items),
    "slice": slice_of,
    "ellipsis": ellipsis_of,
    "slot": slot_of,
    "dtype": dtype_of,
}
"""How a value of each form is made of its parts, and of the arrays of the file."""
