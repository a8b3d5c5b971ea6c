"""Widgets: what runs in a notebook while one looks at it."""

from lmmap.widgets.live import LiveSweep as LiveSweep
from lmmap.widgets.live import score_live as score_live
from lmmap.widgets.pairs import pick_pair as pick_pair
from lmmap.widgets.sliders import with_sliders as with_sliders
