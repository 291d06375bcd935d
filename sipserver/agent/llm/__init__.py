"""Language models: the contract, one vendor a file, and the local server process behind the embedded default."""
