"""The security invariants of the design, one file each: S1 to S5."""
