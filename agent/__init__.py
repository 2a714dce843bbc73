"""The daemon on one machine: runs sessions, dials out, listens on nothing unless its owner wants it to."""
