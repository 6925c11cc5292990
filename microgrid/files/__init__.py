"""Models on disk, as safetensors: arrays, and a JSON description of the graph. Nothing in a file is ever executed.

`arrays` reads and writes the file, `describe` and `restore` go from a graph to JSON and back, `values` does so for
numbers, settings and arrays, `fields` reads JSON that anybody may have written, and `work` bounds what it asks for.
"""

from microgrid.files.model import load, save

__all__ = ["load", "save"]
