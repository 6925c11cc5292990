"""The main job, `python -m microgrid`: sunspots forecast by a recurrent network, told as it goes.

The one part of microgrid that stands above viz.
"""
