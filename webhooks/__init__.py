"""Signed event delivery to the outside (`outgoing`), and the webhooks of Twilio and Vonage.

Installed as `sipserver.webhooks` (setup.cfg maps the folder).
"""
