"""A tenant's events to programs over WebSockets: live, and from a cursor on, without a gap and without repetitions."""
