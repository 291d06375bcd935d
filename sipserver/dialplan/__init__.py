"""YAML to validated routes and steps; pure matching; explain. Knows no call, no socket and no engine."""
