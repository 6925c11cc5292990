"""The states of random generators, as JSON holds them and back."""

from __future__ import annotations

from typing import Any

import numpy as np


def written(generator: np.random.Generator) -> Any:
    """The state of a random generator as JSON holds it."""
    return plain(generator.bit_generator.state)


def read(generator: np.random.Generator, found: Any) -> Any:
    """What `written` gave, as the state of a generator of the same kind.

    Raises ValueError, TypeError, KeyError, OverflowError or AttributeError where it does not fit.
    """
    state = like(generator.bit_generator.state, found)
    type(generator.bit_generator)().state = state  # another of its kind says whether it takes it
    return state


def plain(state: Any) -> Any:
    """Dictionaries, lists and numbers alone."""
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state


def like(template: Any, found: Any) -> Any:
    """What `plain` gave, in the form of a template."""
    if isinstance(template, dict):
        if sorted(found) != sorted(template):
            raise ValueError(f"it has {sorted(found)}, not {sorted(template)}")
        return {key: like(value, found[key]) for key, value in template.items()}
    if isinstance(template, np.ndarray):
        array = np.array(found, template.dtype)
        if array.shape != template.shape:
            raise ValueError(f"it has shape {array.shape}, not {template.shape}")
        return array
    if type(found) is not type(template):
        raise TypeError(f"it has {found!r:.40} for {template!r:.40}")
    return found
