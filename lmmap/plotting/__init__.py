"""Figures: a map, a score set or a table in, axes or a figure out; nothing global is changed."""

from lmmap.plotting.estimates import plot_estimate_vs_exact
from lmmap.plotting.files import save_figure
from lmmap.plotting.heatmaps import plot_kl_heatmap, plot_matrix
from lmmap.plotting.laboratory import plot_sweep
from lmmap.plotting.maps import plot_map
from lmmap.plotting.pairs import plot_pair

__all__ = [
    "plot_estimate_vs_exact",
    "plot_kl_heatmap",
    "plot_map",
    "plot_matrix",
    "plot_pair",
    "plot_sweep",
    "save_figure",
]
