"""Signed event delivery to the outside, and the webhooks of Twilio and Vonage. Empty until the control plane arrives.

Installed as `sipserver.webhooks` (setup.cfg maps the folder).
"""
