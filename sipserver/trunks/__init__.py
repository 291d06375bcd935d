"""Trunks: who may call us and how we call others. Settings, numbers, identities, choice. Pure; sip carries it out."""
