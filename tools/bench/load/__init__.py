"""The load of the benches: SIPp for the calls, one process for all of their sound, and readers of what it costs."""
