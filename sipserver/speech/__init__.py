"""Voice activity, speech-to-text, text-to-speech: contracts, the engines behind them, and the models they need."""
