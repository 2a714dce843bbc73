"""Users' traffic to session apps, through the agents' links."""
