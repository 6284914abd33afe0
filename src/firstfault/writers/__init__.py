"""Who writes the next message of a run: a model behind an endpoint, or one of this machine."""
