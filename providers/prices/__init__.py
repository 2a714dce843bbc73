"""Prices of shapes: the book that drivers ask, feeds that fill it, the signed offline file."""
