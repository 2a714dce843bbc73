"""What would have happened: a trace, replayed on a virtual clock through the real router and planner."""
