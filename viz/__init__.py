"""viz: pictures of microgrid's graphs, before and after unrolling, and of what happens in them over time."""

from viz import notebook
from viz.over_time import gradient_flow, heatmap, jacobians, loss_curve
from viz.picture import Picture, PictureFormatError, before_after, draw
from viz.play import Player, TooLargeError, play
from viz.render import RenderError

__all__ = [
    "Picture",
    "PictureFormatError",
    "Player",
    "RenderError",
    "TooLargeError",
    "before_after",
    "draw",
    "gradient_flow",
    "heatmap",
    "jacobians",
    "loss_curve",
    "play",
]

notebook.register()
