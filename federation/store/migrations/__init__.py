"""Alembic's steps from each schema revision to the next."""
