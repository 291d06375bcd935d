"""Whose calls and keys these are: API keys and what they allow.

Installed as `sipserver.tenants` (setup.cfg maps the folder).
"""
