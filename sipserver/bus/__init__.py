"""What processes and machines tell each other: journal, commands, leases, limits. In memory, or over Redis."""
