"""What tests and benches share to run the whole server as its users do: as a process of its own."""
