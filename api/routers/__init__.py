"""HTTP in, one service call, HTTP out: a thin file a noun."""
