"""See language models as points in the space of text distributions.

Score N texts under K causal language models, double-centre the log-likelihood matrix, and the squared
distance between two rows estimates twice the KL divergence of their models (Oyama et al. 2025,
arXiv:2502.16173). Names are loaded when they are first used: importing the package costs nothing.
"""

from importlib import import_module
from typing import Any

from lmmap.version import __version__ as __version__

_ROOM_OF = {
    "InputError": "errors",
    "TextSet": "texts",
    "text_set": "texts",
    "read_texts": "text_files",
    "read_documents": "text_files",
    "chunk_text": "chunks",
    "chunk_documents": "chunks",
    "ModelSpec": "models",
    "read_models": "model_lists",
    "Store": "store",
    "load_model": "scoring.load",
    "mixed_copy": "scoring.mixing",
    "score_texts": "scoring.score",
    "score_models": "scoring.sweep",
    "score_live": "widgets",
    "with_sliders": "widgets",
    "LogLikelihoods": "loglik",
    "join_models": "loglik",
    "double_center": "geometry",
    "squared_distances": "geometry",
    "estimate_kl": "geometry",
    "estimate_kl_tokens": "geometry",
    "height": "geometry",
    "bits_per_byte": "geometry",
    "clip_below": "geometry",
    "nearest_neighbors": "geometry",
    "Segments": "segments",
    "segments_of_tokens": "segments",
    "segments_of_totals": "segments",
    "read_segments": "token_records",
    "estimate_kl_by": "estimates",
    "gram_matrix": "estimates",
    "flag_pairs": "pair_flags",
    "debias_kl": "resolution",
    "kl_intervals": "error_bars.uncertainty",
    "mean_difference_errors": "error_bars.uncertainty",
    "is_closer": "error_bars.comparisons",
    "rank_models": "error_bars.comparisons",
    "bootstrap_weights": "error_bars.resampling",
    "neighbor_probabilities": "error_bars.resampling",
    "position_covariances": "error_bars.resampling",
    "ellipses": "error_bars.resampling",
    "split_variance": "geometry",
    "exact_kl_on_texts": "exact_kl",
    "exact_kl_on_samples": "exact_kl",
    "compare_estimates": "exact_kl",
    "Enumerated": "exact_kl",
    "enumerate_sequences": "exact_kl",
    "half_jeffreys_of_sequences": "exact_kl",
    "kl_along_path": "exact_kl",
    "text_kl_on_samples": "exact_kl",
    "variance_along_path": "exact_kl",
    "ModelMap": "modelmap",
    "fit_map": "modelmap",
    "plot_map": "plotting",
    "plot_kl_heatmap": "plotting",
    "plot_matrix": "plotting",
    "plot_pair": "plotting",
    "plot_sweep": "plotting",
    "recommended_kl": "recommended",
    "look_at_pair": "microscope",
    "pick_pair": "widgets",
    "View": "explorer.views",
    "Explorer": "explorer.frames",
    "open_explorer": "explorer.opening",
    "explore": "widgets.shown",
    "map_widget": "widgets.map_widget",
    "show_map": "widgets.shown",
    "write_page": "widgets.page",
    "make_lookalike": "lookalike",
    "make_benchmarks": "lookalike",
    "read_pickle": "imports.pickles",
    "import_scores": "imports.scores",
    "export_scores": "export",
    "write_card": "export",
    "place_model": "placing.place",
    "predict_benchmarks": "analyses.prediction",
    "variance_dimensions": "analyses.structure",
    "link_models": "analyses.structure",
    "separability": "analyses.separability",
    "flag_leaks": "analyses.leaks",
    "source_profiles": "analyses.primary",
    "primary_of": "analyses.primary",
    "nearest_models": "analyses.neighbors",
    "plot_estimate_vs_exact": "plotting",
    "save_figure": "plotting",
    "record": "notebooks",
}

__all__ = sorted(_ROOM_OF)


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'lmmap' has no attribute {name!r}")
    value = getattr(import_module(f"lmmap.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
