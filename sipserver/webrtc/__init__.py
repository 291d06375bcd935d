"""A browser as a leg: WebRTC by aiortc. Owns sessions, their sound and their data channel. Refuses to know calls."""
