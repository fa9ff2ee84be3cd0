"""Commands as jobs on a Ray cluster: where they go, what travels, what comes back."""
