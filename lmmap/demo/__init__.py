"""Small models and texts for a machine with no hub."""

from lmmap.demo.make import DemoPaths, make_demo

__all__ = ["DemoPaths", "make_demo"]
