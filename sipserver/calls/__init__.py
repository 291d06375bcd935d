"""The call: its state table, the steps of its dialplan at work, its recording and its record's events."""
