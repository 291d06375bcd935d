"""The engines, one file each. Importing one is cheap: what is heavy is imported when the engine is loaded."""
