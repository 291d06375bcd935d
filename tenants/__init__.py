"""Whose calls and keys these are: API keys and what they allow; and who did what.

Installed as `sipserver.tenants` (setup.cfg maps the folder).
"""
