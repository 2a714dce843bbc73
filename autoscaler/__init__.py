"""Unplaced demand, group state and prices in, a Plan out. Pure: no clock, no I/O."""
