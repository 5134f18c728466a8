"""What the service does: functions that take a session, a caller, then the input."""
