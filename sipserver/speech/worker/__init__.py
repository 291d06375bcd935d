"""The speech worker's server: local engines for other processes, over the Wyoming protocol and shared memory."""
