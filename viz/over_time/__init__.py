"""Plots over time, with matplotlib where it is installed: gradients, values, Jacobians, and losses."""

from viz.over_time.gradient_flow import gradient_flow
from viz.over_time.heatmap import heatmap
from viz.over_time.jacobians import jacobians
from viz.over_time.loss_curve import loss_curve

__all__ = ["gradient_flow", "heatmap", "jacobians", "loss_curve"]
