"""Templates of the configuration of Kamailio, which `sipserver edge` renders; installed as `sipserver.edge.templates`."""
