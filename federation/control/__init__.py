"""Use cases and reconcilers. No SQL, no HTTP, no SDK."""
