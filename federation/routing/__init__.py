"""Sessions in, ranked and explained placements out. Pure: no clock, no I/O."""
