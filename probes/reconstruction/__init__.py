"""Cameras, depth and points of scenes from one forward pass of a network, and how near they come.

It stands among the probes because it measures: where a scene has cameras and depth of its own, the
reconstruction is aligned with them and scored.
"""
