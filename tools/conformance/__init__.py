"""Doubles of cloud services that speak their published wire formats over real sockets, and check what they are told."""
