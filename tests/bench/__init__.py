"""The bench: what the service's routes cost beside a bare floor, in one run."""
