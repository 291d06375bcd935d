"""What breaks in the field: malformed messages, bad media, killed processes, full disks, dead clients."""
