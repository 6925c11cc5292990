"""The primitives by family; `methods` binds them to Tensor's operators."""

from microgrid.ops import methods as methods
