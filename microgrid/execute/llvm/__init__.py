"""The LLVM executor's parts: from scalar expressions to machine code."""
