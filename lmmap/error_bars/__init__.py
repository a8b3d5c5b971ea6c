"""Error bars: of distances and mean differences, of comparisons and rankings, of neighbours and positions."""
