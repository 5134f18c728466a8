"""The service: see README.md for the layout."""
