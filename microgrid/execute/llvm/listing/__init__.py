"""The machine code of a program as Python to read: loops over time, rows and columns, and one line per number.

The text is a script that runs: given the inputs, the static values and what NumPy computes, by the names of
their nodes, it leaves the arrays that the machine code leaves. `Compiled.source` shows it.
"""

from microgrid.execute.llvm.listing.script import Script, listing

__all__ = ["Script", "listing"]
