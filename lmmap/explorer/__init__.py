"""Explorer: maps of any models on any texts of a score set, fast enough to follow a hand."""
