"""The conversation: turn taking, barge-in, the language model and its tools, the voice. Knows no SIP and no YAML."""
