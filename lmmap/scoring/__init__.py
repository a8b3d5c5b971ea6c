"""Scoring: from a model and texts to log-likelihoods. Encode, plan, load, check, score, sweep."""
