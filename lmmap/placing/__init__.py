"""One new model on a map that stays as it is, from all of its texts or from some of them."""
