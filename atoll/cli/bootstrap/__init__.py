"""`atoll agent bootstrap`: makes many known machines agents, over SSH."""
