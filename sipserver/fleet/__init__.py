"""Many processes as one server: the supervisor, the warm parent that forks, what each kind of process consists of."""
