"""viz: pictures of microgrid's graphs, before and after unrolling."""

from viz.picture import Picture, PictureFormatError, before_after, draw
from viz.render import RenderError

__all__ = ["Picture", "PictureFormatError", "RenderError", "before_after", "draw"]
