"""Whose calls these are: API keys and people, and what they may do; and who did what.

Installed as `sipserver.tenants` (setup.cfg maps the folder).
"""
