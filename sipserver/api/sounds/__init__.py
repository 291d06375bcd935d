"""Sound files of this machine and of the others of a fleet, given away by HTTP."""
