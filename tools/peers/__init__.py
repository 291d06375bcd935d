"""Programs of others that tests and benches talk to, each in an environment of its own."""
