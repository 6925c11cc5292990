"""play: a graph as a page on which one steps through the forward and the backward pass."""

from viz.play.player import Player, TooLargeError, play

__all__ = ["Player", "TooLargeError", "play"]
