"""What is remembered: call records and their events, by SQLAlchemy. The only room that imports it."""
