"""The templates of the edge, imported as `sipserver.edge.templates` (`package_dir` in `setup.cfg`)."""
