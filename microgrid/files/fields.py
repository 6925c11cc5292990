"""Reading JSON that anybody may have written: every field is asked for by name and type, and none may be left."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from microgrid.errors import FileFormatError

REQUIRED: Any = object()
"""Instead of a default: the field must be there."""

JSON_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    type(None): "null",
}


class Damaged(FileFormatError):
    """What a file holds is nothing that microgrid writes. `arrays.naming` adds which file it is, and what to do."""


def parsed(text: str | bytes) -> Any:
    """JSON as Python values; an error for what is no JSON, names a key twice, or is nested too deep to read."""
    try:
        return json.loads(text, object_pairs_hook=without_twins, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"its header is no JSON that can be read ({error})") from None


def without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


def refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def shown(value: Any) -> str:
    """A JSON value for an error; what may be large is only called what it is."""
    return JSON_NAMES[type(value)] if type(value) in (dict, list) else f"{value!r:.60}"


class Fields:
    """The fields of a JSON object, each taken once.

    Examples
    --------
    >>> fields = Fields({"kind": "input", "speed": 3}, "node 7")
    >>> fields.take("kind", str)
    'input'
    >>> fields.end()
    Traceback (most recent call last):
        ...
    microgrid.files.fields.Damaged: node 7 has a field 'speed', which has no meaning
    """

    def __init__(self, found: Any, what: str) -> None:
        if type(found) is not dict:
            raise Damaged(f"{what} is not {JSON_NAMES[dict]}, but {shown(found)}")
        self.left = dict(found)
        self.what = what

    def take(self, name: str, kind: type, default: Any = REQUIRED) -> Any:
        """The value of a field, which must be of this very type: true is no number. `object` stands for any."""
        value = self.left.pop(name, default)
        if value is REQUIRED:
            raise Damaged(f"{self.what} has no field {name!r}")
        if value is not default and kind is not object and type(value) is not kind:
            raise Damaged(f"the field {name!r} of {self.what} is not {JSON_NAMES[kind]}, but {shown(value)}")
        return value

    def end(self) -> None:
        """An error if a field is left that nobody has taken."""
        for name in self.left:
            raise Damaged(f"{self.what} has a field {name!r:.60}, which has no meaning")
